"""What a segment measures: its size, its longest diameter, and the intensities in it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import scipy

from .geometry import Geometry
from .masks import label_boxes
from .segments import millilitres

_FLAT = 1e-9  # of the largest extent: what lies closer to a plane or a line lies in it
_AT_ONCE = 500  # corners of a hull that are compared with all others: a large organ's has ten thousand


@dataclass(frozen=True)
class Measures:
    """Of one segment; None where there is none because nothing was found.

    Attributes:
        voxels: how many.
        volume_ml: their volume.
        mean, sd, median: of the intensities; the standard deviation is that of a sample, as 3D Slicer has it.
        longest_diameter_mm: between the centres of the two voxels that are farthest from each other (maximum Feret
            diameter); 0 of a single voxel.
    """

    voxels: int = 0
    volume_ml: float = 0.0
    mean: float | None = None
    sd: float | None = None
    median: float | None = None
    longest_diameter_mm: float | None = None


def measure(labels: np.ndarray, intensities: np.ndarray, geometry: Geometry, values: list[int]) -> dict[int, Measures]:
    """Measures of the labels of a label map.

    Args:
        labels: integers (z, y, x) on ``geometry``.
        intensities: of the same shape; those of the volume, not normalised.
        values: of the labels that are wanted.

    Returns:
        a value of ``values`` -> its measures.
    """
    boxes, found = label_boxes(labels), {}
    for value in values:
        if value not in boxes:
            found[value] = Measures()
            continue
        mask = labels[boxes[value]] == value
        inside = intensities[boxes[value]][mask].astype(np.float64)
        found[value] = Measures(
            voxels=len(inside),
            volume_ml=millilitres(len(inside), geometry.spacing),
            mean=float(inside.mean()),
            sd=float(inside.std(ddof=1)) if len(inside) > 1 else 0.0,
            median=float(np.median(inside)),
            longest_diameter_mm=longest_diameter(mask, geometry.spacing),
        )
    return found


def longest_diameter(mask: np.ndarray, spacing: tuple[float, float, float]) -> float:
    """Between the centres of the two set voxels of a mask (z, y, x) that are farthest apart, exactly.

    The two are corners of the convex hull. ITK's own filter compares all voxels of the surface with each other, which
    takes minutes for large organs.

    Args:
        spacing: millimetres along x, y, z.
    """
    # Of each row along x, only the first and the last voxel can be a corner.
    rows = mask.any(axis=2)
    z, y = np.nonzero(rows)
    lines = mask[rows]
    first, last = lines.argmax(axis=1), mask.shape[2] - 1 - lines[:, ::-1].argmax(axis=1)
    ends = [np.column_stack([x, y, z]) for x in (first, last)]
    points = np.unique(np.concatenate(ends), axis=0) * np.array(spacing)
    if len(points) < 2:
        return 0.0
    points = _without_flat_axes(points - points.mean(axis=0))
    if points.shape[1] == 1:
        return float(np.ptp(points))
    with suppress(scipy.spatial.QhullError):  # too few points for a hull
        points = points[scipy.spatial.ConvexHull(points).vertices]
    some = (points[first : first + _AT_ONCE] for first in range(0, len(points), _AT_ONCE))
    return float(max(scipy.spatial.distance.cdist(one, points).max() for one in some))


def _without_flat_axes(points: np.ndarray) -> np.ndarray:
    """The same distances in as few dimensions as the points span: a hull needs thickness."""
    _, extents, axes = np.linalg.svd(points, full_matrices=False)
    return points @ axes[extents > _FLAT * extents[0]].T
