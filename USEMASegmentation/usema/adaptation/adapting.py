"""From corrected slices to a result that heeds them: look, estimate, check, learn, segment. The journey of this room.

The model's own predictor is asked what the network sees of the volume, and is not changed; what was learned becomes a
delta, and a second predictor with it makes the result.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..errors import Cancelled, InputError
from ..inference.checks import shows_more_than_a_crop
from ..inference.loading import LoadedPart
from ..inference.predictor import Predictor
from ..inference.result import Segmentation
from ..inference.running import Taught
from ..inference.speeds import EXACT, PREVIEW, overlap_of
from ..inference.spoilt_thread import spared
from ..models.adaptable import why_not
from ..models.delta import Delta
from ..volumes.volume import Volume
from .beside import Faded, both
from .carrying import REACH, SHORT_REACH, Carried
from .corrections import Corrections, Slice
from .estimate import STEP, Estimate, memory_of, refuse_longer, refuse_without, size_of
from .judging import (
    CARRIED,
    LEARNED,
    PROPAGATED,
    UNCHANGED,
    HeldOut,
    change_of,
    changed_labels,
    dice_on,
    least_lost,
    left_out,
    lost_when_left_out,
)
from .learning import MOST_TILES, Learned, learn, recipe_for
from .lesson import Lesson, as_network_knows
from .looking import MOST_KEPT, Looked, on_slices, tiles_in, windows
from .parameters import learned
from .places import Places
from .propagating import Propagated, can_propagate, on_main_axis, propagated
from .telling import delta_said, message
from .wish import AUTO, CHECKED_FROM, RIGHT_FROM, WISHES, Wish

PHASES = LOOKING, CHECKING, LEARNING, PROPAGATING, SEGMENTING = (
    "looking",
    "checking",
    "learning",
    "propagating",
    "segmenting",
)

Progress = Callable[[str, int, int, "float | None"], None]  # phase, done, total, seconds left


@dataclass(frozen=True, eq=False)
class Adapted:
    """Attributes:
    segmentation: the result; corrected slices and edited voxels in it are the user's.
    delta: what was learned; None: nothing.
    report: what was done and what it changes, the field "adaptation" of the worker's answer.
    """

    segmentation: Segmentation
    delta: Delta | None
    report: dict


class _Collected(Exception):
    """What the network sees is known; the run that told it need not go on."""


@spared
def adapt(
    predictor: Predictor,
    volumes: Sequence[Volume],
    corrections: Corrections,
    wish: Wish | None = None,
    *,
    progress: Progress | None = None,
    estimated: Callable[[Estimate], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Adapted:
    """Segments a case again, heeding what the user corrected.

    Args:
        predictor: of the model; it is not changed.
        volumes: as ``Predictor.segment`` takes them.
        corrections: on the grid of the first.
        wish: how; None: as ``Wish`` has it.
        progress: called with each step of each phase.
        estimated: called once, before learning begins.
        should_stop: asked at every step; when it says so, Cancelled is raised.

    Raises:
        InputError: the model cannot learn, nothing was corrected where it looks or is told, or it would take too long.
        DeviceError: there is not enough memory.
        Cancelled: ``should_stop`` said so.
        UsemaError: as ``Predictor.segment``.
    """
    return _Adaptation(predictor, list(volumes), corrections, wish or Wish(), progress, estimated, should_stop).run()


class _Adaptation:
    def __init__(self, predictor, volumes, corrections, wish: Wish, progress, estimated, should_stop):
        self._predictor: Predictor = predictor
        self._volumes, self._corrections, self._wish = volumes, corrections, wish
        self._progress: Progress = progress or (lambda phase, done, total, left: None)
        self._estimated = estimated or (lambda estimate: None)
        self._should_stop = should_stop
        if wish.way not in WISHES:
            raise InputError(f"There is no way {wish.way!r}.", f"Choose one of: {', '.join(WISHES)}.")
        metadata = predictor.metadata
        if reason := why_not(metadata):
            raise InputError(reason, "Correct by hand, or segment with another model.")
        if predictor.delta is not None:
            raise ValueError("learning starts from the model itself")
        corrections.check(metadata, volumes[0].geometry)
        self._part: LoadedPart = predictor.parts[0]
        can = can_propagate(self._part.outputs)
        if wish.way == PROPAGATED and not can:
            raise InputError(
                "Labels of this model may lie in each other: a slice does not tell what lies underneath.",
                f"Choose one of: {AUTO}, {LEARNED}, {CARRIED}.",
            )
        self._propagates = can and wish.way in (AUTO, PROPAGATED)
        self._device = torch.device(predictor.device)
        self._recipe = recipe_for(self._part.network, wish.recipe)
        self._overlap = self._part.overlap(overlap_of(wish.speed, wish.overlap))
        self._lessons: list[Lesson] = []
        self._lost = ""  # what the user is told of changes that are not kept
        self._tile_seconds = 0.0
        self._reach = REACH

    def run(self) -> Adapted:
        self._check()
        self._lessons = self._collect()
        if not any(lesson.shown for lesson in self._lessons):
            raise InputError(
                f"None of the corrected slices ({self._corrections.told}) lies where the model looks.",
                "Correct a slice that shows something of what the model finds.",
            )
        before, looked = self._before()
        right = self._dice(before)
        self._reach = SHORT_REACH if right >= RIGHT_FROM else REACH
        scores = [one.scores for one in looked] if self._propagates else None
        slices = {one for lesson in self._lessons for one in lesson.heard}
        way, held, lost = self._choose(before, right, scores, len(slices))
        pupil, after = None, before
        if way == LEARNED:
            pupil = self._learn(LEARNING)
            after = self._look(self._lessons, pupil)
        delta = None
        if pupil:
            said = delta_said(self._predictor.metadata, self._corrections, pupil.steps, self._wish.seed)
            delta = pupil.delta(self._part, said)
        result = self._segment(way, pupil, delta, after, looked)
        change = change_of(result.labels, self._corrections, result.geometry)
        report = {
            "way": way,
            "slices": [list(one) for one in sorted(slices)],
            "steps": pupil.steps if pupil else 0,
            "trained": size_of(pupil.parameters) if pupil else 0,
            "dice_before": right,
            "dice_after": self._dice(after) if pupil else None,
            "held_out": held and held.report,
            **change,
            "message": message(way, len(slices), held, right, lost, change["changed_voxels"]),
        }
        return Adapted(result, delta, report)

    def _before(self) -> tuple[list[dict[Slice, torch.Tensor]], list[Looked] | None]:
        """The logits on corrected slices, and what the network says everywhere; lessons hear where that was changed."""
        outputs, looked, sizes = self._part.outputs, None, sum(one.labels.size for one in self._lessons)
        everywhere = self._wish.way != LEARNED  # learning takes the slices as they are, whatever was changed on them
        untold = self._corrections.edited is None  # what was changed; the model's own result tells
        if keep := everywhere and self._device.type == "cpu" and 4 * outputs.count * sizes <= MOST_KEPT:
            own, looked = self._look_everywhere(None)
            before = [one.on_slices(lesson.shown) for one, lesson in zip(looked, self._lessons, strict=True)]
        else:
            before = self._look(self._lessons)
        found = [{one: outputs.to_labels(logits).numpy() for one, logits in its.items()} for its in before]
        self._lessons = [lesson.seen(its) for lesson, its in zip(self._lessons, found, strict=True)]
        values = [changed_labels(one) if self._propagates else [] for one in self._lessons]
        needed = sum(2 * len(its) * one.labels.size for its, one in zip(values, self._lessons, strict=True))
        refuse_without("To propagate corrections", needed, "cpu")
        if keep:
            for one, its in zip(looked, values, strict=True):
                one.score(its)
        elif everywhere or untold:
            own, looked = self._look_everywhere(values)
        if untold:
            self._lost = self._corrections.beside(own)
        if everywhere:
            self._lessons = [lesson.only_where(own != self._corrections.labels) for lesson in self._lessons]
        return before, looked

    def _choose(
        self, before: list[dict[Slice, torch.Tensor]], right: float, scores: list | None, count: int
    ) -> tuple[str, HeldOut | None, dict[str, float] | None]:
        """The way to go, and what was found by leaving slices out, as far as that was asked for; see ``Wish``."""
        way = self._wish.way
        if way in (PROPAGATED, CARRIED):
            return way, None, None
        if way == AUTO and (scores is not None or right >= RIGHT_FROM):
            lost = lost_when_left_out(
                self._lessons, before, self._part.outputs, self._reach, scores,
                progress=lambda done, total: self._progress(CHECKING, done, total, None), should_stop=self._should_stop,
            )  # fmt: skip
            return least_lost(lost), None, lost
        checks = way == AUTO and count >= CHECKED_FROM
        self._estimate(checks)
        held = self._hold_out(before) if checks else None
        return held.best if held else LEARNED, held, None

    def _check(self) -> None:
        if self._should_stop is not None and self._should_stop():
            raise Cancelled("Learning was stopped.")

    def _collect(self) -> list[Lesson]:
        """What the network sees of the volume, region by region."""
        metadata, geometry, found = self._predictor.metadata, self._volumes[0].geometry, []
        labels = as_network_knows(self._corrections, metadata)
        one = metadata.find_regions is None or not shows_more_than_a_crop(metadata, geometry)

        def teacher(part, prepared, grid):
            places = Places.of(prepared, grid, geometry)
            found.append(Lesson.of(prepared.data, places, labels, self._corrections.slices))
            if one:
                raise _Collected

        with suppress(_Collected):
            self._run(self._predictor, teacher, False, lambda done, total, left: None)
        return found

    def _run(self, predictor: Predictor, teacher, kept: bool, progress) -> Segmentation:
        wish = self._wish
        return predictor.segment(
            self._volumes,
            overlap=wish.overlap,
            speed=EXACT if wish.speed == PREVIEW else wish.speed,
            mirror=wish.mirror,
            probabilities=kept and wish.probabilities,
            margins=kept and wish.margins,
            labels=wish.labels,
            progress=progress,
            should_stop=self._should_stop,
            teacher=teacher,
        )

    def _look(self, lessons: Sequence[Lesson], pupil: Learned | None = None) -> list[dict[Slice, torch.Tensor]]:
        """The logits on corrected slices, of each of the lessons; as the model is, this is a phase, and it is timed."""
        network = self._part.network if pupil is None else pupil.network
        places = [windows(one, one.shown, self._part.recipe.patch_size) for one in lessons]
        counts = [tiles_in(self._part, *pair, self._overlap) for pair in zip(lessons, places, strict=True)]
        total, begun = sum(counts), time.monotonic()
        found = []
        for index, (lesson, several) in enumerate(zip(lessons, places, strict=True)):

            def tile_done(tiles: int, before: int = sum(counts[:index])) -> None:
                if pupil is None:
                    self._progress(LOOKING, before + tiles, total, None)

            logits = on_slices(
                self._part, network, lesson, several, self._overlap, self._device, tile_done, self._should_stop
            )
            found.append(logits)
        if pupil is None:
            self._tile_seconds = (time.monotonic() - begun) / max(1, total)
        return found

    def _look_everywhere(self, values: list[list[int]] | None) -> tuple[np.ndarray, list[Looked]]:
        """The model's own result, and what the network says of each lesson's data: of these labels, or all of it."""
        found, begun = [], time.monotonic()

        def teacher(part, prepared, grid):
            number = len(found)
            shape = self._lessons[number].labels.shape
            found.append(Looked(self._part.outputs, shape, None if values is None else values[number]))
            return Taught(found[-1])

        def tell(done: int, total: int, left: float | None) -> None:
            if self._wish.way != LEARNED:  # else it is known without the time that getting ready takes
                self._tile_seconds = (time.monotonic() - begun) / max(1, done)
            self._progress(LOOKING, done, total, left)

        return self._run(self._predictor, teacher, False, tell).labels, found

    def _estimate(self, checks: bool) -> None:
        """Tells what learning will take, and refuses what is too much."""
        sides = self._part.recipe.patch_size
        image = torch.zeros(len(self._lessons[0].data), *sides, device=self._device)
        network = self._part.network.to(self._device)
        deep = self._recipe.deep
        shapes = [one.data.shape[1:] for one in self._lessons]
        tiles = sum(self._part.recipe.tiling.of(shape, sides, self._overlap).count for shape in shapes)
        mirrored = 2 ** len(self._part.mirror_axes(self._wish.mirror))
        lessons = (2 if checks else 1) * (min(tiles, MOST_TILES) + (STEP * self._recipe.steps if deep else 0))
        seconds = self._tile_seconds * (lessons + tiles * (mirrored + deep))
        needed = memory_of(network, image) if deep else 0
        found = Estimate(seconds, needed, size_of(learned(network, deep)))
        self._estimated(found)
        refuse_without("Learning from corrections", found.memory_bytes, str(self._device))
        refuse_longer("Learning from corrections", seconds, self._wish.seconds_allowed)

    def _learn(self, phase: str, without: Slice | None = None) -> Learned:
        recipe, begun = self._recipe, time.monotonic()

        def step_done(step: int) -> None:
            left = (time.monotonic() - begun) / step * (recipe.steps - step)
            self._progress(phase, step, recipe.steps, left)

        self._progress(phase, 0, recipe.steps, None)
        return learn(
            self._part, self._lessons, self._overlap, self._device, recipe, self._wish.seed,
            without=without, step_done=step_done, should_stop=self._should_stop,
        )  # fmt: skip

    def _hold_out(self, before: list[dict[Slice, torch.Tensor]]) -> HeldOut:
        """Learns without one slice, and looks how that one comes out."""
        lesson, missing = left_out(self._lessons)
        own = before[self._lessons.index(lesson)]
        pupil = self._learn(CHECKING, missing.slice)
        (its,) = self._look([lesson], pupil)
        outputs, others = self._part.outputs, [one for one in lesson.shown if one is not missing]

        def score(found: torch.Tensor, logits: dict[Slice, torch.Tensor]) -> float:
            if logits:
                found = Carried.of(lesson, logits, outputs, others, self._reach).at(missing, found)
            return dice_on(lesson, [missing], {missing.slice: found}, outputs)

        plain = own[missing.slice]
        faded = Faded.of(lesson, others).at(missing, plain, its[missing.slice])
        return HeldOut(missing.slice, score(plain, {}), score(plain, own), score(faded, its))

    def _segment(
        self,
        way: str,
        pupil: Learned | None,
        delta: Delta | None,
        after: list[dict[Slice, torch.Tensor]],
        looked: list[Looked] | None,
    ) -> Segmentation:
        outputs, seen = self._part.outputs, iter(range(len(self._lessons)))
        parts: list[Propagated] = []
        if way == PROPAGATED:
            scores = [one.scores for one in looked]
            parts = propagated(
                self._lessons, scores, outputs, lambda *its: self._progress(PROPAGATING, *its, None), self._should_stop
            )

        def changed(number: int):
            lesson, logits = self._lessons[number], after[number]
            if way == UNCHANGED:
                return lambda start, logits: logits
            if way == PROPAGATED:
                along = on_main_axis(lesson.shown)
                rest = [one for one in lesson.shown if one not in along]
                its, others = parts[number], Carried.of(lesson, logits, outputs, rest, self._reach)
                return lambda start, logits: others(start, its(start, logits))
            carried = Carried.of(lesson, logits, outputs, lesson.shown, self._reach)
            if way == CARRIED:
                return carried
            faded = Faded.of(lesson, lesson.shown)
            return lambda start, logits: carried(start, faded(start, logits))

        def teacher(part, prepared, grid):
            number = next(seen)
            return Taught(changed(number), looked[number].slabs if looked and pupil is None else None)

        predictor = self._predictor
        if pupil is not None:
            predictor = predictor.adapted(delta)
            predictor.parts[0].take(both(self._part.network, predictor.parts[0].network, pupil.deep), 2)
        tell = self._progress
        result = self._run(predictor, teacher, True, lambda done, total, left: tell(SEGMENTING, done, total, left))
        corrections = self._corrections
        labels = result.labels.copy()
        kept = corrections.kept if way != UNCHANGED else np.ones(labels.shape, bool)
        labels[kept] = corrections.labels[kept]
        provenance = {**result.provenance, "adaptation": way, "adaptedFrom": corrections.told}
        margins = result.margins and result.margins.agreeing(labels)
        warnings = [*result.warnings, self._lost] if self._lost and way != UNCHANGED else result.warnings
        return replace(result, labels=labels, provenance=provenance, margins=margins, warnings=warnings)

    def _dice(self, logits: list[dict[Slice, torch.Tensor]]) -> float:
        """Mean over the regions, on the corrected slices."""
        pairs = zip(self._lessons, logits, strict=True)
        return float(np.mean([dice_on(one, one.shown, its, self._part.outputs) for one, its in pairs if one.shown]))
