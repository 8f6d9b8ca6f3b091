"""What happens to labels after the networks: a table of known steps, which a model names in ``postprocess``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import scipy

from ..measure.ellipse import as_ellipse


def postprocess(
    labels: np.ndarray,
    steps: Sequence[dict[str, Any]],
    spacing_zyx: Sequence[float],
    others: Mapping[str, np.ndarray] | None = None,
) -> np.ndarray:
    """Apply the steps of a ``model.json``, which has been checked, one after the other.

    Args:
        labels: (z, y, x), z towards the head; changed in place.
        steps: each with "step", one of STEPS, and perhaps "labels", whose union is looked at as one (absent: all),
            "connectivity" and what the step itself takes.
        spacing_zyx: mm.
        others: labels (z, y, x) of the parts that steps name in "part".

    Returns:
        ``labels``.
    """
    for step in steps:
        STEPS[step["step"]](labels, step, spacing_zyx, others or {})
    return labels


def keep_components(
    labels: np.ndarray,
    keeps: Callable[[np.ndarray], np.ndarray],
    wanted: Sequence[int] | None = None,
    connectivity: int = 26,
) -> None:
    """Remove the connected components that do not stay.

    Args:
        labels: (z, y, x); changed in place.
        keeps: given the voxels of each component (of background, the first, 0), which stay.
        wanted: values whose union is looked at as one; None: all but 0.
        connectivity: 6, 18 or 26 neighbours of a voxel.
    """
    mask = np.isin(labels, wanted) if wanted else labels != 0
    components, count = scipy.ndimage.label(mask, _neighbours(connectivity))
    if count:
        sizes = np.bincount(components.ravel(), minlength=count + 1)
        sizes[0] = 0
        keep = keeps(sizes)
        keep[0] = True
        labels[mask & ~keep[components]] = 0


def _kept(labels, step, keeps: Callable[[np.ndarray], np.ndarray]) -> None:
    keep_components(labels, keeps, step.get("labels"), step.get("connectivity", 26))


def _keep_largest(labels, step, spacing_zyx, others) -> None:
    """As many of the largest as ``count`` says (1); those as large as the last of them stay too, as in nnU-Net."""

    _kept(labels, step, lambda sizes: sizes >= np.sort(sizes[1:])[-min(step.get("count", 1), len(sizes) - 1)])


def _remove_small(labels, step, spacing_zyx, others) -> None:
    """Components of ``volume_mm3`` or less go."""
    _kept(labels, step, lambda sizes: sizes * math.prod(spacing_zyx) > step["volume_mm3"])


def _number_downwards(labels, step, spacing_zyx, others) -> None:
    """Bodies that lie apart, such as vertebrae, are numbered anew where the network mixed them up: where two touch.

    Then each connected body of at least ``volume_mm3`` gets one label: counted up from the lowest, which has the
    lowest label that was found; or down from the highest, where the first label was found and the last was not.
    TotalSegmentator's ``postprocess_vertebrae_pp``, without its dilation.
    """
    order = step["labels"]
    low, high = order[0], order[-1]
    if not _touch(labels):
        return
    components, _ = scipy.ndimage.label(labels, _neighbours(6))
    sizes = np.bincount(components.ravel())
    kept = np.flatnonzero(sizes * math.prod(spacing_zyx) >= step["volume_mm3"])
    kept = kept[kept != 0]
    present = [value for value in np.unique(labels[np.isin(components, kept)]) if low <= value <= high]
    new = np.zeros(len(sizes), labels.dtype)
    if present:
        heights = [center[0] for center in scipy.ndimage.center_of_mass(components > 0, components, kept)]
        from_the_top = low in present and high not in present
        upwards = kept[np.argsort(heights, kind="stable")]
        if from_the_top:
            # Of two at one height the one that was found first comes first, whichever way is counted.
            upwards = kept[np.argsort(-np.array(heights), kind="stable")]
        numbers = range(low, high + 1) if from_the_top else range(int(max(present)), low - 1, -1)
        for body, number in zip(upwards, numbers, strict=False):  # where numbers end, bodies go
            new[body] = number
    labels[...] = new[components]


def _touch(labels: np.ndarray) -> bool:
    """Whether two voxels of different labels are neighbours."""
    for axis in range(labels.ndim):
        lines = np.moveaxis(labels, axis, 0)
        one, next_one = lines[:-1], lines[1:]
        if ((one != 0) & (next_one != 0) & (one != next_one)).any():
            return True
    return False


def _grow(labels, step, spacing_zyx, others) -> None:
    """Each label grows into background by an ellipsoid of ``distance_mm``; where two meet, the lower one has it."""
    radius = step["distance_mm"]
    ellipsoid = _ellipsoid(radius, spacing_zyx)
    before = labels.copy()
    reach = [math.ceil(radius / spacing) for spacing in spacing_zyx]
    for label, box in enumerate(scipy.ndimage.find_objects(before), 1):
        if box is None:
            continue
        box = tuple(
            slice(max(0, side.start - far), min(length, side.stop + far))
            for side, far, length in zip(box, reach, labels.shape, strict=True)
        )
        grown = scipy.ndimage.binary_dilation(before[box] == label, ellipsoid)
        labels[box][grown & (labels[box] == 0)] = label


def _ellipsoid(radius: float, spacing_zyx: Sequence[float]) -> np.ndarray:
    """TotalSegmentator's: its grid begins at -radius, so that it is lopsided where that is no whole number of voxels.

    What its users see has that shape, hence ours.
    """
    radii = [radius / spacing for spacing in spacing_zyx]
    grids = np.ogrid[tuple(slice(-r, r + 1) for r in radii)]
    return sum((grid / r) ** 2 for grid, r in zip(grids, radii, strict=True)) <= 1


def _keep_within(labels, step, spacing_zyx, others) -> None:
    """Nothing stays where the part that is named found none of ``part_labels``."""
    labels[~np.isin(others[step["part"]], step["part_labels"])] = 0


def _ellipse(labels, step, spacing_zyx, others) -> None:
    """In an image, each label becomes the ellipse along its outline, where it nearly is one; others stay."""
    for plane in labels:
        for label in step["labels"]:
            inside = as_ellipse(plane == label)
            plane[(plane == label) & ~inside] = 0
            plane[inside & (plane == 0)] = label


# name: what it does to labels in place, given the step, the spacing and the labels of other parts.
STEPS: dict[str, Callable[..., None]] = {
    "keep_largest": _keep_largest,
    "remove_small": _remove_small,
    "number_downwards": _number_downwards,
    "grow": _grow,
    "keep_within": _keep_within,
    "ellipse": _ellipse,
}


def _neighbours(connectivity: int) -> np.ndarray:
    return scipy.ndimage.generate_binary_structure(3, {6: 1, 18: 2, 26: 3}[connectivity])
