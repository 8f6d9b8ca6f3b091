"""Two-dimensional images in files, whatever holds them: PNG, JPEG, TIFF, DICOM, and single slices of volume formats."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..errors import InputError
from .geometry import Geometry
from .integrity import check_file, file_format
from .itk_reading import IMAGE_IO, itk_reader
from .outside import fill_outside
from .paths import PICTURE_SUFFIXES, SEGMENTATION_SUFFIXES, check_path, picture_suffix, volume_suffix
from .pictures import Picture, check_picture, turned_upright
from .told import told_of_file

log = logging.getLogger(__name__)


def read_picture(path: str | Path, pixel_size: float | None = None) -> Picture:
    """Read an image to segment, or frames of one size.

    What a user should know of how it was read goes to the log as a warning.

    Args:
        path: PNG, JPEG, TIFF (its pages are frames), BMP, one DICOM image (its frames are frames), or NIfTI, NRRD or
            MetaImage of one slice.
        pixel_size: mm, in place of what the file says; None: what it says.

    Returns:
        the image; its spacing is 1 and ``pixel_size_known`` False where the file does not say how large a pixel is.

    Raises:
        InputError: there is no such file, it is of another kind, damaged, a volume, or ``check_picture`` refuses it.
    """
    path = Path(path)
    picture = load_picture(path, sized=pixel_size is not None)
    array, said = fill_outside(picture.array, str(path)) if not picture.in_colour else (picture.array, "")
    if said:
        log.warning("%s", said)
    picture = replace(picture, array=array)
    if pixel_size is not None:
        geometry = replace(picture.geometry, spacing=(pixel_size, pixel_size, picture.geometry.spacing[2]))
        picture = replace(picture, geometry=geometry, pixel_size_known=True)
    check_picture(picture, str(path))
    return picture


def load_picture(path: Path, numbers: bool = False, sized: bool = False) -> Picture:
    """As ``read_picture``, but whatever its values are: a label map may be empty.

    Args:
        numbers: of a picture with a palette, the numbers of its colours.
        sized: the user says how large a pixel is, and nothing is said of how sure the file is of it.

    Raises:
        InputError: there is no such file, it is of another kind, damaged, or a volume.
    """
    from .dicom import is_dicom

    check_path(path)
    if str(path).lower().endswith(SEGMENTATION_SUFFIXES):
        raise InputError(f"{path} is a segmentation, not an image.", "Give the image that it was drawn on.")
    if path.is_dir():
        raise InputError(f"{path} is a folder, not an image.", "Give the image itself.")
    if picture_suffix(path):
        from .picture_formats import read_format

        array = read_format(path, numbers)
        frames, height, width = array.shape[:3]
        geometry = nominal_geometry(width, height, frames)
        return Picture(array, geometry, told=told_of_file(path), pixel_size_known=False)
    if is_dicom(path):
        from .picture_dicom import read_dicom_picture

        return read_dicom_picture(path, sized)
    if not volume_suffix(path):
        raise InputError(
            f"{path} is no kind of image that USEMA reads.",
            f"Give a file that ends in {', '.join(PICTURE_SUFFIXES)}, a DICOM image, or NIfTI, NRRD or MHA of one "
            "slice; save it as PNG first.",
        )
    return _one_slice(path)


def nominal_geometry(width: int, height: int, frames: int = 1) -> Geometry:
    """The grid of an image that says nothing of its place: pixels of 1, rows and columns as they are stored."""
    return Geometry((width, height, frames), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), np.eye(3).ravel())


def _one_slice(path: Path) -> Picture:
    """A slice in a file that is made for volumes."""
    check_file(path)
    with itk_reader(path, IMAGE_IO[file_format(path)]) as reader:
        reader.ReadImageInformation()
        size = _flat(path, reader.GetSize())
        components = reader.GetNumberOfComponents()
        if components not in (1, 3, 4):
            raise InputError(
                f"{path} has {components} values in each pixel, which are no colours.", "Save each as an image."
            )
        image = reader.Execute()
    array = sitk.GetArrayFromImage(image)
    array = array.reshape(*size[::-1], components)[..., :3] if components > 1 else array.reshape(size[::-1])
    geometry = _geometry(image, size)
    picture = turned_upright(Picture(np.ascontiguousarray(array), geometry, told=told_of_file(path)))
    # Programs write 1 where they do not know better, 3D Slicer's loader of images among them.
    return replace(picture, pixel_size_known=picture.geometry.spacing[:2] != (1.0, 1.0))


def _flat(path: Path, size: tuple[int, ...]) -> tuple[int, int, int]:
    """The size along x, y and z of what has one slice."""
    size = (*size, 1) if len(size) == 2 else tuple(size)
    if len(size) < 3 or 1 not in size[:3] or max(size[3:], default=1) > 1:
        raise InputError(
            f"{path} is a volume of {' x '.join(map(str, size))} voxels, and the model is for two-dimensional images.",
            "Choose a model for volumes, or give one slice.",
        )
    return size[:3]


def _geometry(image: sitk.Image, size: tuple[int, int, int]) -> Geometry:
    dimensions = image.GetDimension()
    direction = np.eye(3)
    direction[:dimensions, :dimensions] = np.array(image.GetDirection()).reshape(dimensions, dimensions)[:3, :3]
    spacing, origin = ([*values, fill][:3] for values, fill in ((image.GetSpacing(), 1.0), (image.GetOrigin(), 0.0)))
    return Geometry(size, spacing, origin, direction.ravel())
