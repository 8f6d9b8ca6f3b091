"""Whether a volume can be a head that lies as its file says: by its size, and by where its two like halves are.

A file with a wrong spacing or direction shows a head of half the size, or one on its side. Networks for heads find
nothing in it, or something wrong, so whoever looks for the cause is told these.
"""

from __future__ import annotations

import numpy as np
import scipy
import SimpleITK as sitk

from ..volumes.volume import Volume, reorient

SMALL, LARGE, TURNED = "small", "large", "turned"
_COARSE_MM = 4.0
_LENGTHS_MM = (140, 330)  # of a head along its longest axis: a small child's brain, and an adult's head with the neck
# Correlations of a head with its mirror image: left and right 0.9 and more, the others 0.8 at most, also without skull;
# of one that is tilted all are about 0.7.
_SYMMETRIC, _CLEARLY = 0.85, 0.15
_MIRRORED = ("from top to bottom", "from front to back", "from left to right")  # of axes z, y, x in LPS
_SHIFTS = range(-4, 5)  # coarse voxels by which a head lies aside in the box around it


def head_doubts(volume: Volume) -> dict[str, str]:
    """What no head has: SMALL, LARGE or TURNED -> a sentence for the user; empty where the volume may well show one.

    Takes a fraction of a second. What is turned over an axis from left to right, face up or down, is not noticed.

    Args:
        volume: finite values, dark around the head.
    """
    geometry = volume.geometry
    array, spacing = _coarse(reorient(volume, "LPS"))
    shown = _foreground(array)
    if not shown.any():
        return {}
    (box,) = scipy.ndimage.find_objects(shown.astype(np.uint8))
    lengths = [(part.stop - part.start) * step for part, step in zip(box, spacing, strict=True)]
    doubts = {}
    if not _LENGTHS_MM[0] <= max(lengths) <= _LENGTHS_MM[1]:
        measured = " x ".join(f"{length:.0f}" for length in reversed(lengths))
        stored = " x ".join(f"{step:.3g}" for step in geometry.spacing)
        size = SMALL if max(lengths) < _LENGTHS_MM[0] else LARGE
        doubts[size] = (
            f"As a head it would be too {size}: what the volume shows "
            f"measures {measured} mm (left to right, front to back, top to bottom), a head about 160 x 200 x 200. The "
            f"file's spacing, {stored} mm, may be wrong."
        )
    symmetry = [_symmetry(np.where(shown, array, 0)[box], axis) for axis in range(3)]
    axis = int(np.argmax(symmetry))
    if symmetry[axis] >= _SYMMETRIC and symmetry[axis] - symmetry[2] >= _CLEARLY:
        doubts[TURNED] = (
            f"As a head it would be turned by 90 degrees: its like halves follow each other {_MIRRORED[axis]}, not "
            f"{_MIRRORED[2]}. The file's orientation, {geometry.orientation}, may be wrong."
        )
    return doubts


def _coarse(volume: Volume) -> tuple[np.ndarray, list[float]]:
    """Means over blocks of about 4 mm (z, y, x), or over as many voxels as leave 48 along the longest axis; mm."""
    steps = []
    most = max(1, max(volume.array.shape) // 48)
    for spacing in volume.geometry.spacing_zyx:
        steps.append(min(most, max(1, round(_COARSE_MM / spacing))))
    array = volume.array
    for axis, step in enumerate(steps):
        whole = array.shape[axis] // step
        shape = (*array.shape[:axis], whole, step, *array.shape[axis + 1 :])
        kept = array[(slice(None),) * axis + (slice(0, whole * step),)]
        array = kept.reshape(shape).mean(axis=axis + 1, dtype=np.float32)
    return array, [step * spacing for step, spacing in zip(steps, volume.geometry.spacing_zyx, strict=True)]


def _foreground(array: np.ndarray) -> np.ndarray:
    """Bool: the largest thing that is brighter than the background."""
    otsu = sitk.OtsuThresholdImageFilter()
    otsu.Execute(sitk.GetImageFromArray(array))
    darkest = float(array.min())
    bright = scipy.ndimage.binary_opening(array > darkest + (otsu.GetThreshold() - darkest) / 2)
    components, count = scipy.ndimage.label(bright)
    return components == 1 + np.argmax(np.bincount(components.ravel())[1:]) if count else bright


def _symmetry(array: np.ndarray, axis: int) -> float:
    """The correlation with the mirror image along an axis, where that is shifted best."""
    mirrored = np.flip(array, axis)
    if array.min() == array.max():
        return 0.0
    return max(float(np.corrcoef(array.ravel(), np.roll(mirrored, shift, axis).ravel())[0, 1]) for shift in _SHIFTS)
