"""NaN that stands for "not measured": what registration leaves outside the field of view."""

from __future__ import annotations

import numpy as np

from ..errors import InputError

# Fewer NaN voxels than this at the border are damage: what registration leaves is whole edges and faces.
_LEAST_OUTSIDE = 8


def fill_outside(array: np.ndarray, name: str) -> tuple[np.ndarray, str]:
    """Give NaN outside the field of view the value of background: 0, or the least value where that is below 0.

    Outside is what hangs together, face to face, with the border of the volume. NaN within, and infinity anywhere, is
    damage that nobody can fill in.

    Args:
        array: (z, y, x); not changed.
        name: what messages call the volume.

    Returns:
        the array itself and "" if it has no NaN; else a filled copy, and a sentence with the count.

    Raises:
        InputError: there is NaN that does not reach the border, or single ones there, or infinity, or nothing but NaN.
    """
    if array.dtype.kind != "f" or array.size == 0 or np.isfinite([array.min(), array.max()]).all():
        return array, ""
    nan = np.isnan(array)
    infinite = np.isinf(array)
    if infinite.any():
        _refuse(array, infinite, name)
    if nan.all():
        raise InputError(f"{name} is NaN in every voxel.", "Give the volume as it was before the last step.")
    from scipy import ndimage  # not at file scope: it takes longer than most volumes need, which have no NaN

    regions, count = ndimage.label(nan)
    outside = np.zeros(count + 1, bool)
    for axis in (axis for axis in range(array.ndim) if array.shape[axis] > 1):  # a single slice is no border
        for end in (0, -1):
            outside[np.unique(np.take(regions, end, axis))] = True
    inside = nan & ~outside[regions]
    if nan.sum() - inside.sum() < _LEAST_OUTSIDE:
        inside = nan
    if inside.any():
        _refuse(array, inside, name)
    filled = array.copy()
    fill = min(0.0, float(array[~nan].min()))
    filled[nan] = fill
    share = nan.mean()
    return filled, (
        f"{name} has {nan.sum()} NaN voxels ({share:.1%}) at its border: they were taken as outside the field of view, "
        f"with the value {fill:g}."
    )


def _refuse(array: np.ndarray, bad: np.ndarray, name: str) -> None:
    z, y, x = (int(i) for i in np.unravel_index(bad.argmax(), bad.shape))
    raise InputError(
        f"{name} has {bad.sum()} NaN or infinite voxels; the first is {array[z, y, x]} at x {x}, y {y}, z {z}.",
        "Replace them, for example by the value of the background.",
    )
