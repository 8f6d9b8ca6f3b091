"""A volume in one file, read by what the file holds: NIfTI by ``nifti``, NRRD and MetaImage by ITK.

What ITK leaves out of the latter two, the units of length and a word on missing orientation, is added here.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .file_grid import check_dimensions, grid_of_file
from .geometry import Geometry
from .integrity import NIFTI, NRRD, check_file, file_format
from .itk_reading import IMAGE_IO, itk_reader
from .metaimage import MetaImageHeader
from .nrrd import NrrdHeader

log = logging.getLogger(__name__)


def read_image_file(path: Path) -> tuple[np.ndarray, Geometry]:
    """Voxels (z, y, x) in the type of the file, and their grid.

    Raises:
        InputError: it is of another kind, damaged, or not one three-dimensional scalar volume.
    """
    kind = file_format(path)
    if kind == NIFTI:
        from .nifti import read_nifti

        return read_nifti(path)
    with itk_reader(path, IMAGE_IO[kind]) as reader:
        check_file(path)
        reader.ReadImageInformation()
        kind_of_voxel = sitk.GetPixelIDValueAsString(reader.GetPixelIDValue())
        size = check_dimensions(path, reader.GetSize(), reader.GetNumberOfComponents(), kind_of_voxel)
        geometry = grid_of_image(path, kind, reader, size)
        image = reader.Execute()
    return sitk.GetArrayFromImage(image).reshape(size[::-1]), geometry


def grid_of_image(path: Path, kind: str, reader: sitk.ImageFileReader, size: tuple[int, int, int]) -> Geometry:
    """The grid in millimetres, whatever unit the header names."""
    dimensions = reader.GetDimension()
    direction = np.array(reader.GetDirection()).reshape(dimensions, dimensions)[:3, :3]
    spacing, origin = np.array(reader.GetSpacing()[:3]), np.array(reader.GetOrigin()[:3])
    header = NrrdHeader(path) if kind == NRRD else MetaImageHeader(path)
    header.warn()
    of_space, of_axes, unit = header.to_millimetres()
    if unit:
        log.warning("%s gives its lengths in %s; they were converted to mm.", path, unit)
        direction, spacing, origin = of_space[:, None] * direction, of_axes * spacing, of_space * origin
    return grid_of_file(path, size, spacing, origin, direction)
