"""What each speed costs in Dice: a case run at all of them.

A preview ends with the labels of an exact run. What it shows before is a first look of its own, and is measured as such
where it would be shown. Images of one slice have none.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

import numpy as np

from ...errors import Cancelled
from ...inference.predictor import Predictor
from ...inference.result import Segmentation
from ...inference.speeds import EXACT, FAST, PAYS
from ...models.metadata import Label
from ...volumes.volume import Volume
from .results import FIRST_LOOK, SpeedResult


class Tiles:
    """Progress that keeps how many tiles there are; where a region is found first, those of the region."""

    count = 0

    def __call__(self, done: int, total: int, seconds_left: float | None) -> None:
        self.count = total


def at_every_speed(
    predictor: Predictor,
    volumes: Sequence[Volume],
    exact: tuple[Segmentation, int],
    dice: Callable[[Segmentation], float],
) -> tuple[SpeedResult, ...]:
    """One case at every speed.

    Args:
        exact: what the speed "exact" found, and in how many tiles; a single tile is the same at every speed.
        dice: the mean Dice of a result over its labels.
    """
    found, tiles = exact
    results = [SpeedResult(EXACT, dice(found), tiles)]
    ways = [(FAST, {"speed": FAST})]
    if not predictor.metadata.takes_images:
        ways.append((FIRST_LOOK, {"overlap": 0.0, "should_stop": lambda: counted.count > PAYS * tiles}))
    for name, options in ways if tiles > 1 else ():
        counted = Tiles()
        try:
            other = predictor.segment(volumes, progress=counted, **options)
        except Cancelled:  # it would not be shown
            continue
        results.append(SpeedResult(name, dice(other), counted.count))
    return tuple(results)


def mean_dice(found: np.ndarray, reference: np.ndarray, labels: Sequence[Label]) -> float:
    """Over the labels that are in one of the two at least; NaN if none is."""
    scores = []
    for label in labels:
        one, other = found == label.value, reference == label.value
        if voxels := int(one.sum()) + int(other.sum()):
            scores.append(2 * int((one & other).sum()) / voxels)
    return statistics.fmean(scores) if scores else math.nan
