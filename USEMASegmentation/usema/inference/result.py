"""What the journey of ``predictor`` ends in."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from ..models.metadata import Label
from ..volumes.geometry import Geometry
from ..volumes.margins import Margins
from ..volumes.volume import Volume, restore
from .image_results import ImageResult


@dataclass(frozen=True)
class Segmentation:
    """What a model found in a volume.

    Attributes:
        labels: (z, y, x) on ``geometry``; 0 is background.
        geometry: that of the first input volume, exactly.
        model_labels: what the values of ``labels`` mean.
        probabilities: (labels + 1, z, y, x) float16, background first; None unless they were asked for. Regions may lie
            in each other: then each label has its region's, and background one minus the largest.
        max_foreground_probability: the largest probability of any label in any voxel; says why a result is empty.
        provenance: how the result was made, text by name, for files and scenes.
        warnings: what the user should know, in sentences.
        seconds_by_speed: about how long this case takes here with each speed, by the number of tiles; empty where there
            is no choice. Without "exact" after a run in bfloat16; "fast" may take less where a processor has that.
        margins: agreeing with ``labels``; None unless they were asked for, and where networks for different labels have
            no logits in common.
        image: what there is of an image beside its labels; None of a volume.
    """

    labels: np.ndarray
    geometry: Geometry
    model_labels: tuple[Label, ...]
    probabilities: np.ndarray | None
    max_foreground_probability: float
    provenance: dict[str, str]
    warnings: list[str] = field(default_factory=list)
    seconds_by_speed: dict[str, float] = field(default_factory=dict)
    margins: Margins | None = None
    image: ImageResult | None = None


def as_stored(result: Segmentation, first: Volume) -> Segmentation:
    """The result on the grid that the first input came on, where that is a slice which was turned upright."""
    grid = getattr(first, "stored", None)
    if grid is None:
        return result

    def back(array: np.ndarray | None) -> np.ndarray | None:
        return None if array is None else restore(array, result.geometry, grid)

    return replace(
        result,
        labels=back(result.labels),
        probabilities=back(result.probabilities),
        geometry=grid,
        margins=None,  # they are of the turned slice
        image=replace(result.image, objects=back(result.image.objects)),
    )
