"""Finding the region first: a rough result's box, in which a fine model then works."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..volumes.geometry import Geometry
from ..volumes.volume import Volume

Box = tuple[slice, slice, slice]


def box_around(labels: np.ndarray, wanted: Sequence[int], margin_mm: float, geometry: Geometry) -> Box | None:
    """The box (z, y, x) around labels, widened by a margin as TotalSegmentator does: whole voxels, rounded down.

    Args:
        labels: (z, y, x) on ``geometry``.
        wanted: the values that count; empty: all but 0.

    Returns:
        None where there is none of them.
    """
    found = np.isin(labels, list(wanted)) if wanted else labels != 0
    box = []
    for axis, (length, spacing) in enumerate(zip(labels.shape, geometry.spacing_zyx, strict=True)):
        inside = np.flatnonzero(found.any(axis=tuple({0, 1, 2} - {axis})))
        if not len(inside):
            return None
        margin = int(margin_mm / spacing)
        box.append(slice(max(0, int(inside[0]) - margin), min(length, int(inside[-1]) + 1 + margin)))
    return tuple(box)


def cut(volume: Volume, box: Box) -> Volume:
    """The part of a volume in a box (z, y, x), at its place in the patient."""
    first = [part.start for part in reversed(box)]
    geometry = volume.geometry
    origin = geometry.affine[:3, :3] @ first + geometry.origin
    size = tuple(part.stop - part.start for part in reversed(box))
    return Volume(
        np.ascontiguousarray(volume.array[box]), Geometry(size, geometry.spacing, tuple(origin), geometry.direction)
    )


def pasted(array: np.ndarray, box: Box, shape: Sequence[int], outside: float = 0) -> np.ndarray:
    """An array (..., z, y, x) of a box back in the whole, which is ``outside`` elsewhere."""
    whole = np.full((*array.shape[:-3], *shape), outside, array.dtype)
    whole[(..., *box)] = array
    return whole
