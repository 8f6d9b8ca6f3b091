"""A prepared volume, and where the user has said what is right, on the grid that the network sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from ..models.metadata import ModelMetadata
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
        shown: the corrected slices that it sees; no two of one axis have planes in common.
        places: where the data lie in the volume.
        heard: the corrected slices that lie in the data, those that others show better too.
        found: by slice, int16 labels that the network finds on its planes, shaped as ``Shown.index`` cuts.
    """

    data: np.ndarray
    labels: np.ndarray
    shown: tuple[Shown, ...]
    places: Places = field(repr=False)
    heard: tuple[Slice, ...] = ()
    found: Mapping[Slice, np.ndarray] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, data: np.ndarray, places: Places, labels: np.ndarray, slices: Sequence[Slice]) -> Lesson:
        """Of what a network sees of a volume.

        Args:
            labels: (z, y, x) int16, of the volume, as the network knows them.
            slices: those that are right.
        """
        seen, shown = places.nearest(labels, UNKNOWN), []
        for axis, index in slices:
            own, planes = places.planes(axis, index, [other for its, other in slices if its == axis])
            if len(planes):
                shown.append(Shown((axis, index), own, planes))
                # Where the voxels are smaller than the network's, its planes may lie nearer to slices beside this one.
                seen[shown[-1].index] = places.on_slice(labels, axis, index, UNKNOWN)
        heard = tuple(one for one in slices if len(places.planes(*one)[1]))
        return cls(data, seen, tuple(shown), places, heard)

    def seen(self, found: Mapping[Slice, np.ndarray]) -> Lesson:
        """The same, with what the network finds on the slices."""
        return replace(self, found=found)

    def only_where(self, changed: np.ndarray) -> Lesson:
        """The same, but as if the user had said nothing else than the network where he changed nothing.

        On the network's grid labels differ from what it finds by resampling alone.

        Args:
            changed: bool (z, y, x) of the volume, where the user's labels are not the model's own.
        """
        labels = self.labels.copy()
        for one in self.shown:
            touched = self.places.touched(changed, *one.slice)
            its = labels[one.index]
            labels[one.index] = np.where(touched | (its == UNKNOWN), its, self.found[one.slice])
        return replace(self, labels=labels)

    def changed(self, one: Shown) -> np.ndarray:
        """bool, shaped as ``Shown.index`` cuts: where the user made anything else of a slice than the network."""
        its = self.labels[one.index]
        return (its != self.found[one.slice]) & (its != UNKNOWN)

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
