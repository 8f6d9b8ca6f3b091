"""The voxels by which a model's calibration is judged: from labelled cases to logits.

Only voxels within 5 mm of the reference's or the result's foreground count. Nearly all others are background beyond
any doubt: over a whole volume they would drown the calibration error of the voxels that somebody may ask about.
Mehrtash et al. (2020, arXiv 1911.13273) measure inside the foreground's bounding box for the same reason; a margin
around the foreground does not depend on a structure's shape and orientation. What is sure pulls the temperature towards
1: version 0.1.0 of hippocampus-mr wants 2.19 within 2 mm, 1.94 within 5 mm and 1.63 over the whole volume. 5 mm is more
than a usual CT slice is thick, so that the margin has voxels on every side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from ..inference.predictor import Predictor
from ..models.metadata import ModelMetadata
from ..volumes.bounding_box import bounding_box
from .calibration import Voxels
from .labelled_cases import IGNORED, LabelledCase, read_case, where_labelled

MARGIN_MM = 5.0
MARGIN_PIXELS = 5  # of images, which may not know how large a pixel is
REGION = f"voxels within {MARGIN_MM:g} mm of the reference's or the result's foreground"
REGION_OF_IMAGES = f"pixels within {MARGIN_PIXELS} pixels of the reference's or the result's foreground"
_MOST = 50_000  # voxels of a case that are kept: 2 MB with 10 classes, so that hundreds of cases fit
# Probabilities come in half precision, where all below 6e-8 are 0. At this temperature a class must be 66 logits behind
# to become 0, and the logits of those up to 38 behind come back to 0.004.
LOGIT_TEMPERATURE = 4.0


def region_of(metadata: ModelMetadata) -> str:
    """Which voxels are looked at, in words."""
    return REGION_OF_IMAGES if metadata.takes_images else REGION


def read_voxels(predictor: Predictor, case: LabelledCase) -> tuple[Voxels, list[str]]:
    """Segments a case, and gives the logits and reference labels of its voxels near foreground.

    Args:
        predictor: its ``temperature`` should be LOGIT_TEMPERATURE.

    Returns:
        at most 50,000 voxels, drawn at random but the same each time; and the predictor's warnings.

    Raises:
        InputError: the case cannot be segmented, its labels lie on another grid, or are not the model's.
    """
    volumes, reference = read_case(case, predictor.metadata)
    result = predictor.segment(volumes, probabilities=True)
    found, drawn = where_labelled(result.labels, reference)
    spacing = (MARGIN_MM / MARGIN_PIXELS,) * 3 if predictor.metadata.takes_images else volumes[0].geometry.spacing_zyx
    near = near_foreground((drawn > 0) | (found > 0), spacing)
    chosen = np.flatnonzero(near & (reference != IGNORED))
    if len(chosen) > _MOST:
        chosen = np.sort(np.random.default_rng(0).choice(chosen, _MOST, replace=False))
    probabilities = result.probabilities.reshape(predictor.num_classes, -1)[:, chosen].T.astype(np.float32)
    smallest = np.finfo(np.float16).smallest_subnormal
    logits = np.log(np.maximum(probabilities, smallest)) * np.float32(predictor.temperature)
    return Voxels(logits, reference.ravel()[chosen]), result.warnings


def near_foreground(foreground: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Where a mask (z, y, x), or a voxel of it within 5 mm, is; ``spacing`` is z, y, x in mm."""
    near = np.zeros(foreground.shape, bool)
    if foreground.any():
        # Only the mask's box with its margin: distances take 20 bytes a voxel.
        box = bounding_box(foreground, [math.ceil(MARGIN_MM / step) for step in spacing])
        near[box] = ndimage.distance_transform_edt(~foreground[box], sampling=spacing) <= MARGIN_MM
    return near
