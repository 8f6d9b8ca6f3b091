"""Finding the region first: a rough result's box, in which a fine model then works."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..models.metadata import ModelMetadata
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


def crop_around(voxels: np.ndarray, metadata: ModelMetadata, geometry: Geometry, largest: bool = False) -> Box:
    """A box (z, y, x) around voxels, of the size of the crops that a model with ``find_regions`` was trained on.

    Args:
        voxels: indices (n, 3) z, y, x on ``geometry``.
        largest: as large as the largest of these crops: the voxels are but a part of what is to be in it.
    """
    extent, margin = metadata.expected_extent_mm, metadata.find_regions["margin_mm"]
    turned = metadata.orientation or geometry.orientation
    # the array's axis -> the one that the extent is told along
    limits = {2 - source: axis for axis, (source, _) in enumerate(geometry.moves_to(turned))}
    box = []
    for axis, (length, spacing) in enumerate(zip(geometry.shape, geometry.spacing_zyx, strict=True)):
        first, last = int(voxels[:, axis].min()), int(voxels[:, axis].max()) + 1
        least, most = extent["min"][limits[axis]], extent["max"][limits[axis]]
        wanted = most if largest else float(np.clip((last - first) * spacing + 2 * margin, least, most))
        size = round(wanted / spacing)
        start = round((first + last - size) / 2)
        box.append(slice(max(0, start), min(length, start + size)))
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
