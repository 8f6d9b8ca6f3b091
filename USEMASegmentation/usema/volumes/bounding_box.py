"""The smallest box around a mask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def bounding_box(mask: np.ndarray, margin: Sequence[int] = (0, 0, 0)) -> tuple[slice, ...]:
    """The smallest box that holds all of a mask, empty if the mask is.

    Args:
        mask: (z, y, x).
        margin: voxels more on both sides of each axis, as far as the array goes.
    """
    box = []
    for axis in range(mask.ndim):
        hits = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        more = margin[axis]
        box.append(slice(max(0, int(hits[0]) - more), int(hits[-1]) + 1 + more) if hits.size else slice(0, 0))
    return tuple(box)
