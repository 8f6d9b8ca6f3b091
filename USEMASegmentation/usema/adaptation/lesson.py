"""A prepared volume, and where the user has said what is right, on the grid that the network sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ..inference.preprocessing import Prepared
from ..models.metadata import ModelMetadata
from ..volumes.geometry import Geometry
from .corrections import Corrections, Slice
from .places import Places
from .truth import UNKNOWN


@dataclass(frozen=True, eq=False)
class Shown:
    """A corrected slice as the network sees it: some neighbouring planes.

    Attributes:
        slice: which it is.
        axis: of the data, along which the planes lie.
        planes: their indices.
    """

    slice: Slice
    axis: int
    planes: np.ndarray

    @property
    def middle(self) -> float:
        """Where it lies among the planes."""
        return float(np.mean(self.planes))

    @property
    def index(self) -> tuple:
        """What cuts the planes out of an array of the data's last three axes."""
        return (..., *[self.planes if axis == self.axis else slice(None) for axis in range(3)])


@dataclass(frozen=True, eq=False)
class Lesson:
    """What is to be learned from one prepared volume.

    Attributes:
        data: (C, a, b, c) float32, as the network sees it.
        labels: (a, b, c) int16, the user's, as the network knows them; UNKNOWN outside the volume.
        shown: the corrected slices that it sees.
        places: where the data lie in the volume.
    """

    data: np.ndarray
    labels: np.ndarray
    shown: tuple[Shown, ...]
    places: Places = field(repr=False)

    @classmethod
    def of(cls, prepared: Prepared, grid: Geometry, volume: Geometry, labels: np.ndarray, slices) -> Lesson:
        """Of data that were prepared from an array on ``grid``.

        Args:
            volume: the grid of the labels.
            labels: (z, y, x) int16, as the network knows them.
            slices: those that are right.
        """
        places = Places.of(prepared, grid, volume)
        shown = []
        for axis, index in slices:
            own, planes = places.planes(axis, index)
            if len(planes):
                shown.append(Shown((axis, index), own, planes))
        return cls(prepared.data, places.nearest(labels, UNKNOWN), tuple(shown), places)

    def known(self, without: Slice | None = None) -> np.ndarray:
        """(a, b, c) int16: the labels on the corrected slices, UNKNOWN elsewhere.

        Args:
            without: a slice that counts as not corrected.
        """
        found = np.full(self.labels.shape, UNKNOWN, np.int16)
        for one in self.shown:
            if one.slice != without:
                found[one.index] = self.labels[one.index]
        if without is not None:  # what crosses it is not known either
            for one in self.shown:
                if one.slice == without:
                    found[one.index] = UNKNOWN
        return found


def away_from(slices: Sequence, length: int) -> np.ndarray:
    """How many planes each plane of an axis lies from the nearest of some slices, which have a ``middle``."""
    return np.abs(np.arange(length)[:, None] - [one.middle for one in slices]).min(axis=1)


def along(axis: int, weights: np.ndarray, logits: torch.Tensor) -> torch.Tensor:
    """Weights of the planes along an axis of the data, shaped to be multiplied with logits (outputs, a, b, c)."""
    shape = [1] * 4
    shape[1 + axis] = -1
    return torch.from_numpy(weights).to(logits).reshape(shape)


def as_network_knows(corrections: Corrections, metadata: ModelMetadata) -> np.ndarray:
    """(z, y, x) int16: labels of regions in a whole volume become those that the network has in a crop."""
    own = metadata.networks[0].values
    table = np.arange(max([*own, *(label.value for label in metadata.labels)]) + 1, dtype=np.int16)
    if metadata.find_regions is not None:
        for region in metadata.find_regions["regions"]:
            for value, becomes in zip(own[1:], region["labels"], strict=True):
                table[becomes] = value
    return table[corrections.labels]
