"""A volume in one file, read by what the file holds: NIfTI by ``nifti``, NRRD and MetaImage by ITK.

What ITK leaves out of the latter two, the units of length and a word on missing orientation, is added here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
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
        geometry = _read_header(path, kind, reader)
        image = reader.Execute()
    return sitk.GetArrayFromImage(image).reshape(geometry.shape), geometry


def read_grid(path: Path) -> Geometry:
    """The grid of :func:`read_image_file`, from the header alone: damage behind it may go unnoticed.

    Raises:
        InputError: the header is of another kind, damaged, or not that of one three-dimensional scalar volume.
    """
    kind = file_format(path)
    if kind == NIFTI:
        from .nifti import read_nifti_grid

        return read_nifti_grid(path)
    with itk_reader(path, IMAGE_IO[kind]) as reader:
        return _read_header(path, kind, reader)


def read_slices(path: Path) -> Iterator[np.ndarray]:
    """The voxels of :func:`read_image_file`, slice by slice (y, x). Of NIfTI no more is read than is asked for.

    Raises:
        InputError: as it, where the reading comes to it.
    """
    if file_format(path) == NIFTI:
        from .nifti import read_nifti_slices

        yield from read_nifti_slices(path)
    else:
        yield from read_image_file(path)[0]


def _read_header(path: Path, kind: str, reader: sitk.ImageFileReader) -> Geometry:
    reader.ReadImageInformation()
    kind_of_voxel = sitk.GetPixelIDValueAsString(reader.GetPixelIDValue())
    size = check_dimensions(path, reader.GetSize(), reader.GetNumberOfComponents(), kind_of_voxel)
    return grid_of_image(path, kind, reader, size)


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
