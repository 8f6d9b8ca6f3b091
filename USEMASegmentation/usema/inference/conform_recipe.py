"""Whole heads on the conformed grid as a recipe (see ``preprocessing.Recipe``): brainchop's way in and back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import BundleError, InputError
from ..volumes.geometry import Geometry
from .conform import SIDE, Conformed, averaged, conform, hounsfield_to_cormack, normalised_by_quantiles
from .grid_collector import GridCollector
from .outputs import Outputs
from .postprocessing import keep_components
from .tiling import Tiling

_KNOWN = {"mask_by_previous", "largest_component", "hounsfield"}
_STEPS = (1, 2, 4)  # voxels of 1 mm that become one


class ConformRecipe:
    """256 voxels of 1 mm along each axis, intensities between the 2nd and the 98th percentile as 0 to 1.

    Args:
        values: "mask_by_previous" (bool): the image is zero where the part before found nothing, and so is the result;
            "largest_component" (bool): of all labels together only the largest component stays (26 neighbours), on
            the conformed grid, as brainchop does; "hounsfield" (bool): stretch the soft tissue of a CT first;
            "voxel_mm" (1, 2 or 4): the network sees voxels of that length, each the mean of those of 1 mm.
    """

    channels = 1
    tiling = Tiling
    takes_strips = True

    def __init__(self, values: dict[str, Any]):
        values = dict(values)
        step = values.pop("voxel_mm", 1)
        if step not in _STEPS:
            raise BundleError(
                f"The model's preprocessing has voxels of {step!r} mm, none of {', '.join(map(str, _STEPS))}.",
                "Update USEMA, or import the model again.",
            )
        self._step = int(step)
        self.patch_size = (SIDE // self._step,) * 3
        unknown = sorted(set(values) - _KNOWN)
        wrong = [name for name, value in values.items() if not isinstance(value, bool)]
        if unknown or wrong:
            raise BundleError(
                f"The model's preprocessing has {(unknown or wrong)[0]!r}, which is none of "
                f"{', '.join(sorted(_KNOWN))} with true or false.",
                "Update USEMA, or import the model again.",
            )
        self.previous_is_mask = bool(values.get("mask_by_previous"))
        self._largest = bool(values.get("largest_component"))
        self._hounsfield = bool(values.get("hounsfield"))

    def shape(self, array: np.ndarray, geometry: Geometry) -> tuple[int, int, int]:
        return self.patch_size

    def resolution(self, geometry: Geometry) -> tuple[float, float, float]:
        return (float(self._step),) * 3

    def prepare(self, array: np.ndarray, geometry: Geometry, previous: np.ndarray | None = None) -> ConformedCase:
        """See ``preprocessing.Recipe``."""
        values = hounsfield_to_cormack(array[0]) if self._hounsfield else array[0]
        conformed = conform(values, geometry)
        coarse = conformed.coarser(self._step)
        if not conformed.image.any():
            raise InputError("The volume has the same value everywhere.", "Choose a volume that shows a head.")
        mask = None
        image = conformed.image
        if self.previous_is_mask and previous is not None:
            fine = conformed.labels_from_input(previous) != 0
            mask = fine if self._step == 1 else coarse.labels_from_input(previous) != 0
            image = np.where(fine, image, 0)
        notes = []
        if conformed.cut_off_mm >= 1:  # less than a voxel of that grid is nothing
            notes.append(
                f"The volume is {conformed.cut_off_mm:.0f} mm larger than the {SIDE} mm around its middle that the "
                "model looks at; what lies beyond was left out."
            )
        data = averaged(normalised_by_quantiles(image), self._step)[None]
        return ConformedCase(data, coarse, mask, self._largest, notes)


@dataclass(frozen=True, eq=False)
class ConformedCase:
    """A head as the network wants it, and the way back.

    Attributes:
        data: (1, side, side, side) float32, axes (channel, i, j, k) of ``conform``.
        conformed: the grid that it lies on.
        mask: where labels may be; None: everywhere.
        largest: only the largest component stays.
        notes: for the user, in sentences.
    """

    data: np.ndarray
    conformed: Conformed
    mask: np.ndarray | None
    largest: bool
    notes: list[str] = field(default_factory=list)

    def collector(self, outputs: Outputs, keep_probabilities: bool, keep_margins: bool = False) -> GridCollector:
        """What leads the logits back to the grid of the array that was prepared."""
        values_back = self.conformed.labels_on_input if keep_margins else None
        return GridCollector(self.data.shape[1:], outputs, keep_probabilities, self._on_input, values_back)

    def _on_input(self, labels: np.ndarray, kept: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
        if self.mask is not None:
            labels[~self.mask] = 0
        if self.largest:
            # Of two that are equally large the first stays, as with the publisher.
            keep_components(labels, lambda sizes: np.arange(len(sizes)) == sizes.argmax())
        if kept is not None:
            kept = np.stack([self.conformed.labels_on_input(one) for one in kept])
            kept[0] += kept.sum(axis=0) == 0  # beyond the conformed grid all is background
        return self.conformed.labels_on_input(labels), kept
