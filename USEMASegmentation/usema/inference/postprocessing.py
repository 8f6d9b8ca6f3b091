"""What happens to labels after the networks: a table of known steps, which a model names in ``postprocess``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import ndimage


def postprocess(labels: np.ndarray, steps: Sequence[dict[str, Any]], spacing_zyx: Sequence[float]) -> np.ndarray:
    """Apply the steps of a ``model.json``, which has been checked, one after the other.

    Args:
        labels: (z, y, x); changed in place.
        steps: each with "step", one of STEPS, and perhaps "labels", whose union is looked at as one (absent: all),
            "connectivity" and what the step itself takes.
        spacing_zyx: mm.

    Returns:
        ``labels``.
    """
    for step in steps:
        wanted = step.get("labels")
        mask = np.isin(labels, wanted) if wanted else labels != 0
        components, count = ndimage.label(mask, _neighbours(step.get("connectivity", 26)))
        if count:
            sizes = np.bincount(components.ravel(), minlength=count + 1)
            sizes[0] = 0
            keep = STEPS[step["step"]](sizes, step, math.prod(spacing_zyx))
            keep[0] = True
            labels[mask & ~keep[components]] = 0
    return labels


def _keep_largest(sizes: np.ndarray, step: dict[str, Any], voxel_mm3: float) -> np.ndarray:
    """As many of the largest as ``count`` says (1); those as large as the last of them stay too, as in nnU-Net."""
    count = min(step.get("count", 1), len(sizes) - 1)
    return sizes >= np.sort(sizes[1:])[-count]


def _remove_small(sizes: np.ndarray, step: dict[str, Any], voxel_mm3: float) -> np.ndarray:
    """Components of ``volume_mm3`` or less go."""
    return sizes * voxel_mm3 > step["volume_mm3"]


# name: which components stay, given the voxels of each (of the first, background, 0), the step and a voxel's mm3.
STEPS: dict[str, Callable[[np.ndarray, dict[str, Any], float], np.ndarray]] = {
    "keep_largest": _keep_largest,
    "remove_small": _remove_small,
}


def _neighbours(connectivity: int) -> np.ndarray:
    return ndimage.generate_binary_structure(3, {6: 1, 18: 2, 26: 3}[connectivity])
