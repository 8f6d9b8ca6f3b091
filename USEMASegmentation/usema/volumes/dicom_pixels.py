"""The voxels of a stack of DICOM slices. ITK's GDCM decodes them: uncompressed, RLE, JPEG, JPEG-LS and JPEG 2000."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk

from ..errors import InputError
from .dicom_headers import Slice, pydicom_silent
from .itk_reading import itk_reader

_NO_SCALE = (1.0, 0.0)
_HINT = "It is damaged, or compressed in a way that is not read here: export it uncompressed."


def read_slices(slices: list[Slice]) -> np.ndarray:
    """(n, y, x), rescaled; slice i is ``slices[i]``. Where slices differ in type after rescaling, float32.

    Raises:
        InputError: a file cannot be decoded.
    """
    voxels, file, frames = None, None, None
    for index, one in enumerate(slices):
        if one.file != file:
            file, frames = one.file, read_frames(one.file, one.white_first)
        pixels = _by_own_scale(frames[one.frame], one)
        if voxels is None:
            voxels = np.empty((len(slices), *pixels.shape), pixels.dtype)
        elif voxels.dtype != pixels.dtype and voxels.dtype != np.float32:
            voxels = voxels.astype(np.float32)  # the first slices may be whole numbers and later ones fractions
        voxels[index] = pixels
    return voxels


def read_frames(file: Path, white_first: bool = False) -> np.ndarray:
    """(frames, y, x) of one file, rescaled.

    Args:
        white_first: its least value is to be shown white. That is of no concern to what values measure (PS3.3
            C.7.6.3.1.2), but GDCM turns them over.

    Raises:
        InputError: GDCM cannot decode it.
    """
    if white_first:
        with _black_first(file) as copy:
            return read_frames(copy)
    array = sitk.GetArrayFromImage(decoded(file))
    return array if array.ndim == 3 else array[None]


def decoded(file: Path) -> sitk.Image:
    """One file as GDCM decodes it, rescaled. Raises InputError where it cannot."""
    with itk_reader(file, "GDCMImageIO", "decoded", _HINT) as reader:
        return reader.Execute()


def _by_own_scale(pixels: np.ndarray, one: Slice) -> np.ndarray:
    """GDCM applies the scale of a file's first frame to all."""
    (slope, intercept), (first_slope, first_intercept) = one.rescale or _NO_SCALE, one.first_rescale or _NO_SCALE
    if (slope, intercept) == (first_slope, first_intercept):
        return pixels
    stored = np.rint((pixels.astype(np.float64) - first_intercept) / first_slope)
    return (stored * slope + intercept).astype(np.float32)


@contextmanager
def _black_first(file: Path) -> Iterator[Path]:
    """A copy of a file, as long as the block lasts, of which GDCM takes the values as they are."""
    with tempfile.TemporaryDirectory(prefix="usema-") as folder:
        copy = Path(folder) / "image.dcm"
        try:
            with pydicom_silent():
                dataset = pydicom.dcmread(file, force=True)
                dataset.PhotometricInterpretation = "MONOCHROME2"
                dataset.save_as(copy)
        except Exception as error:  # pydicom raises whatever broken bytes lead to
            raise InputError(f"{file} cannot be decoded: {error}.", _HINT) from error
        try:
            yield copy
        except InputError as error:
            raise InputError(error.message.replace(str(copy), str(file)), error.hint) from error
