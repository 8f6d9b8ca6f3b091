"""The parts of a model on one case: one after the other, each with what an earlier one found where it asks for that."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from ..errors import Cancelled
from ..volumes.geometry import Geometry
from ..volumes.margins import Margins
from .combining import mean_of_probabilities
from .loading import LoadedPart
from .speeds import EXACT, FAST, FIRST_PASS, PAYS

Progress = Callable[[int, int, "float | None"], None]


@dataclass(frozen=True)
class Taught:
    """Attributes:
    change: gives what is to be made of a slab of logits, (start, logits) -> logits.
    slabs: all of them, (start, logits) in order, if they are known: the network does not run. The list is emptied.
    """

    change: Callable[[int, torch.Tensor], torch.Tensor]
    slabs: list[tuple[int, torch.Tensor]] | None = None


# Sees a prepared case, and the grid it was prepared from, before its network runs. None: nothing is to be made of it.
Teacher = Callable[["LoadedPart", Any, Geometry], "Taught | None"]


@dataclass
class Wishes:
    """How a case is to be run; see ``Predictor.segment``. ``warnings`` receives sentences for the user.

    ``overlap`` may also be one of ``speeds``; ``overlap_after`` is that of the run which comes after a first pass.
    ``spent`` receives seconds, by what they were spent on. ``teacher`` is for ``usema.adaptation``.
    """

    overlap: float | str | None = None
    mirror: bool = False
    probabilities: bool = False
    margins: bool = False
    progress: Progress | None = None
    should_stop: Callable[[], bool] | None = None
    warnings: list[str] = field(default_factory=list)
    spent: dict[str, float] = field(default_factory=dict)
    teacher: Teacher | None = None
    overlap_after: float | None = None

    def for_first_pass(self) -> Wishes:
        """How a first look at this run is made."""
        return replace(self, overlap=FIRST_PASS, overlap_after=self.overlap, probabilities=False, margins=False)

    def for_finding(self) -> Wishes:
        """How the region is found that a case is then run in."""
        return Wishes(progress=self.progress, should_stop=self.should_stop, warnings=self.warnings, spent=self.spent)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Counts the time inside for ``name``, and for nothing around that."""
        begun, before = time.monotonic(), sum(self.spent.values())
        yield
        inner = sum(self.spent.values()) - before
        self.spent[name] = self.spent.get(name, 0.0) + time.monotonic() - begun - inner

    def warn(self, message: str) -> None:
        """Each sentence once, whichever part says it."""
        if message not in self.warnings:
            self.warnings.append(message)


@dataclass(frozen=True)
class Found:
    """Labels (z, y, x), probabilities (labels + 1, z, y, x) float16 or None, the largest probability of a label, the
    labels of parts that were kept aside, by name, what else is to be said of how it was found, how many times as many
    tiles each speed has, and margins or None."""

    labels: np.ndarray
    probabilities: np.ndarray | None
    highest: float
    aside: dict[str, np.ndarray] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)
    tiles: dict[str, float] = field(default_factory=dict)
    margins: Margins | None = None


class NoFirstPass(Exception):
    """A first pass would take nearly as long as the run itself."""


def run_parts(
    parts: Sequence[LoadedPart],
    array: np.ndarray,
    geometry: Geometry,
    wishes: Wishes,
    combine: str = "labels",
    aside: Collection[str] = (),
) -> Found:
    """Run the parts on a case.

    A part that another names as previous is a step on the way. The others make the result: labels of later ones over
    those of earlier ones, or, where ``combine`` is "probabilities", from the mean of theirs. Between parts only labels
    are kept.

    Args:
        array: (channels, z, y, x) on ``geometry``, in the axes the model was trained in.
        combine: "labels" or "probabilities".
        aside: names of parts whose labels are wanted apart from the result.

    Raises:
        InputError, DeviceError, BundleError, Cancelled: as ``Predictor.segment``.
        NoFirstPass: one was asked for.
    """
    steps = {part.part.previous for part in parts} | set(aside)
    results = [part for part in parts if part.name not in steps]
    count = [part.tiles(array, geometry) for part in parts]
    asked = {wishes.overlap, wishes.overlap_after, None, FAST}
    tiles = {wish: sum(each(wish) for each in count) for wish in asked}
    if wishes.overlap == FIRST_PASS and tiles[FIRST_PASS] > PAYS * tiles[wishes.overlap_after]:
        raise NoFirstPass
    counter = _Counter(wishes.progress, [each(wishes.overlap) for each in count])
    averaged = combine == "probabilities" and len(results) > 1
    earlier: dict[str, np.ndarray] = {}
    total: Found | None = None
    for part in parts:
        if averaged and part in results:
            continue
        alone = part in results and len(results) == 1  # else there are no logits in common
        keep = replace(wishes, probabilities=alone and wishes.probabilities, margins=alone and wishes.margins)
        found = _run(part, array, geometry, earlier, keep, counter.next_part())
        if part not in results:
            earlier[part.name] = found.labels
        elif total is None:
            total = found
        else:
            np.copyto(total.labels, found.labels, where=found.labels != 0)
            total = Found(total.labels, None, max(total.highest, found.highest))
        if len(parts) > 1:
            part.leave_device()
    if averaged:
        total = _averaged(results, array, geometry, earlier, wishes, counter)
    by_speed = {EXACT: tiles[None] / tiles[wishes.overlap], FAST: tiles[FAST] / tiles[wishes.overlap]}
    if any(part.in_bfloat16 for part in parts):
        del by_speed[EXACT]  # whose tiles take far longer each
    return replace(total, aside={name: earlier[name] for name in aside}, tiles=by_speed)


def _run(
    part: LoadedPart,
    array: np.ndarray,
    geometry: Geometry,
    earlier: dict[str, np.ndarray],
    wishes: Wishes,
    progress: Progress,
) -> Found:
    with wishes.timed("preparing"):
        prepared = part.recipe.prepare(array, geometry, earlier.get(part.part.previous))
    for note in prepared.notes:
        wishes.warn(note)
    taught = wishes.teacher(part, prepared, geometry) if wishes.teacher else None
    if taught is None:
        prepared = part.turned(prepared, wishes.overlap)
    with wishes.timed("labels"):
        collector = prepared.collector(part.outputs, wishes.probabilities, wishes.margins)
        known = taught is not None and taught.slabs is not None
        for slab in _known(taught.slabs, wishes, progress) if known else _logits(part, prepared, wishes, progress):
            collector.add(*(slab if taught is None else (slab[0], taught.change(*slab))))
            del slab  # else it would be held while the next is computed
        labels, probabilities = collector.finish()
    return Found(labels, probabilities, collector.highest, margins=collector.margins)


def _averaged(parts, array, geometry, earlier, wishes: Wishes, counter: _Counter) -> Found:
    with wishes.timed("preparing"):
        prepared = [part.recipe.prepare(array, geometry, earlier.get(part.part.previous)) for part in parts]
    for note in (note for one in prepared for note in one.notes):
        wishes.warn(note)
    slabs = [_logits(part, one, wishes, counter.next_part()) for part, one in zip(parts, prepared, strict=True)]
    outputs = [part.outputs for part in parts]
    with wishes.timed("labels"):
        labels, probabilities, highest, margins = mean_of_probabilities(
            slabs, prepared, outputs, wishes.probabilities, wishes.margins
        )
    return Found(labels, probabilities, highest, margins=margins)


def _logits(part: LoadedPart, prepared, wishes: Wishes, progress: Progress):
    slabs = part.logits(
        prepared,
        overlap=wishes.overlap,
        mirror=wishes.mirror,
        progress=progress,
        should_stop=wishes.should_stop,
        report=wishes.warn,
    )
    while True:
        with wishes.timed("network"):
            slab = [next(slabs, None)]
        if slab[0] is None:
            return
        yield slab.pop()  # not held here, too


def _known(slabs: list[tuple[int, torch.Tensor]], wishes: Wishes, progress: Progress):
    count = len(slabs)
    progress(0, count, None)
    while slabs:
        if wishes.should_stop is not None and wishes.should_stop():
            raise Cancelled("Segmenting was stopped.")
        yield slabs.pop(0)
        progress(count - len(slabs), count, None)


class _Counter:
    """Progress over the tiles of all parts, as one number that only grows."""

    def __init__(self, progress: Progress | None, tiles: Sequence[int]):
        self._progress = progress or (lambda done, total, seconds_left: None)
        self._tiles = list(tiles)
        self._done: list[int] = []
        self._shown = -1

    def next_part(self) -> Progress:
        """What the next part is to call with its own numbers."""
        index = len(self._done)
        self._done.append(0)

        def progress(done: int, total: int, seconds_left: float | None) -> None:
            self._done[index] = round(done / total * self._tiles[index])
            everything, so_far = sum(self._tiles), sum(self._done)
            if so_far == self._shown:
                return  # a part that begins has done as much as the one before had at its end
            self._shown = so_far
            if seconds_left is not None and done < total:
                seconds_left *= (everything - so_far) / (total - done)
            self._progress(so_far, everything, seconds_left if done < total or so_far == everything else None)

        return progress
