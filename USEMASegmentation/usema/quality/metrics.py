"""What a mask is worth beside its reference: Dice, surface Dice, and the 95 % Hausdorff distance.

The metrics are MONAI's, over voxels, with the image's spacing:

- Dice: twice the shared volume, divided by the sum of both volumes.
- Normalised surface Dice (Nikolov et al. 2021, arXiv 1809.04430): the share of both surfaces that lies within a
  tolerance of the other surface. MONAI counts the surfaces' voxels, those of a mask with a face neighbour outside it.
  Most published values weigh pieces of surface by their area, as Nikolov's own code does: the two differ where voxels
  are not cubes, so each table says which it holds.
- 95 % Hausdorff distance, in mm: the 95th percentile of the distances from one surface to the other, the larger of the
  two directions.

Where a label is absent from both, there is nothing to measure and all three are NaN. Where it is absent from one only,
the case is missed: 0, 0 and infinity.
"""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Sequence

import numpy as np

from ..errors import MissingDependencyError
from ..volumes.bounding_box import bounding_box

METRICS = ("dice", "surface_dice", "hausdorff95_mm")
# How tables and cards call the surface Dice that is measured here.
SURFACE_DICE_COUNTS = "surface Dice counts voxels of the surfaces (MONAI); published values mostly weigh them by area"


def compare_masks(
    prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float], tolerance_mm: float
) -> tuple[float, float, float]:
    """Dice, surface Dice and 95 % Hausdorff distance of two boolean arrays.

    Args:
        prediction, reference: (z, y, x), or (y, x) for a picture of one slice.
        spacing: along the same axes, in mm.
        tolerance_mm: how far apart surfaces may lie and still count as the same, for the surface Dice.

    Raises:
        MissingDependencyError: MONAI is not installed.
    """
    try:
        import torch
        from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice
    except ImportError as error:
        raise MissingDependencyError(
            f"Evaluation needs the package {error.name}.", 'Install it with: pip install "usema[evaluate]"'
        ) from error
    if not prediction.any() or not reference.any():
        both = prediction.any() == reference.any()
        return (math.nan,) * 3 if both else (0.0, 0.0, math.inf)
    box = bounding_box(prediction | reference)  # outside, nothing changes the metrics, and memory is saved
    pair = [torch.from_numpy(mask[box].copy())[None, None] for mask in (prediction, reference)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI 1.5 and 1.6 warn of a call that MONAI itself makes
        dice = compute_dice(*pair)
        surface_dice = compute_surface_dice(*pair, [tolerance_mm], include_background=True, spacing=tuple(spacing))
        hausdorff = compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=tuple(spacing))
    return dice.item(), surface_dice.item(), hausdorff.item()


def mean_of_found(values: Sequence[float]) -> float:
    """The mean of the finite values, NaN if there are none. No penalty in place of an infinite distance is right for
    every image: misses are counted beside it."""
    return statistics.fmean([value for value in values if math.isfinite(value)] or [math.nan])
