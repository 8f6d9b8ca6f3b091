"""The voxels of a stack of DICOM slices. ITK's GDCM decodes them: uncompressed, RLE, JPEG, JPEG-LS and JPEG 2000."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .dicom_headers import Slice
from .itk_reading import itk_reader


def read_slices(slices: list[Slice]) -> np.ndarray:
    """(n, y, x), rescaled; slice i is ``slices[i]``. Where slices differ in type after rescaling, float32.

    Raises:
        InputError: a file cannot be decoded.
    """
    voxels, file, frames = None, None, None
    for index, one in enumerate(slices):
        if one.file != file:
            file, frames = one.file, read_frames(one.file)
            first = next(each for each in slices if each.file == file and each.frame == 0) if one.rescale else None
        pixels = frames[one.frame]
        if first is not None and one.rescale != first.rescale:
            # GDCM applies the scale of the first frame to all.
            stored = np.rint((pixels.astype(np.float64) - first.rescale[1]) / first.rescale[0])
            pixels = (stored * one.rescale[0] + one.rescale[1]).astype(np.float32)
        if voxels is None:
            voxels = np.empty((len(slices), *pixels.shape), pixels.dtype)
        elif voxels.dtype != pixels.dtype and voxels.dtype != np.float32:
            voxels = voxels.astype(np.float32)  # the first slices may be whole numbers and later ones fractions
        voxels[index] = pixels
    return voxels


def read_frames(file: Path) -> np.ndarray:
    """(frames, y, x) of one file, rescaled. Raises InputError where GDCM cannot decode it."""
    array = sitk.GetArrayFromImage(decoded(file))
    return array if array.ndim == 3 else array[None]


def decoded(file: Path) -> sitk.Image:
    """One file as GDCM decodes it, rescaled. Raises InputError where it cannot."""
    hint = "It is damaged, or compressed in a way that is not read here: export it uncompressed."
    with itk_reader(file, "GDCMImageIO", "decoded", hint) as reader:
        return reader.Execute()
