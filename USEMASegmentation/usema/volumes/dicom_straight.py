"""From a stack as it was acquired to voxels on a straight, even grid: tilted slices moved, missing ones made."""

from __future__ import annotations

import logging

import numpy as np
import scipy

from .dicom_padding import fill_padding
from .dicom_pixels import read_slices
from .dicom_stack import Stack

log = logging.getLogger(__name__)


def straight_voxels(stack: Stack) -> np.ndarray:
    """(z, y, x) on ``stack.geometry``; the slices' own voxels where the stack is straight and whole.

    Padding that would drown the image is background. Moving and making are linear in between; whole numbers stay whole.
    What a moved slice leaves empty gets the least value of the series, or 0 if that is above it.

    Raises:
        InputError: a file cannot be decoded.
    """
    voxels = read_slices(stack.slices)
    if said := fill_padding(voxels, [one.padding for one in stack.slices]):
        log.warning("%s: %s", stack.slices[0].file.parent, said)
    if stack.shifts.any():
        voxels = _moved(voxels, stack.shifts, stack.geometry.shape[1:])
    if not stack.weights.any() and len(voxels) == len(stack.between):
        return voxels
    made = np.empty((len(stack.between), *voxels.shape[1:]), voxels.dtype)
    for z, ((below, above), weight) in enumerate(zip(stack.between, stack.weights, strict=True)):
        if weight == 0:
            made[z] = voxels[below]
        else:
            between = (1 - weight) * voxels[below].astype(np.float64) + weight * voxels[above]
            made[z] = _as(between, voxels.dtype)
    return made


def _moved(voxels: np.ndarray, shifts: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    rows, columns = voxels.shape[1:]
    fill = min(0, voxels.min().item())
    moved = np.full((len(voxels), *shape), fill, voxels.dtype)
    for z, (x, y) in enumerate(shifts):
        canvas = np.full(shape, fill, np.float64)
        canvas[:rows, :columns] = voxels[z]
        moved[z] = _as(scipy.ndimage.shift(canvas, (y, x), order=1, mode="constant", cval=fill), voxels.dtype)
    return moved


def _as(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return (np.rint(array) if dtype.kind in "iu" else array).astype(dtype)
