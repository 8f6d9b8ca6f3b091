"""A threshold that follows a slider: how sure the model must be of a label for it to win a voxel.

The slider adds steps to the margin of one label: a voxel is the label's where its margin plus what was added is not
negative. Labels stay a partition: what one wins the others lose, what it loses the next best one wins. Voxels that the
user changed or accepted, and those outside of the user's masks, keep what they have; what segments of others cover
is not won.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from usema.volumes.margins import BACKGROUND, HIGHEST, LOWEST, STEP, Margins
from usema.volumes.masks import NOTHING, Box
from usema.volumes.segments import millilitres

from ..Steps import Working, atOnce, beside, slabsBeside
from .Changes import editedIn, placed
from .Port import Change, Notes, Port
from .Slices import acceptedPlaces, cut

MOST = round(4 / STEP)  # steps that the slider adds or takes away


def probabilityOf(logits: float) -> float:
    """The probability, of the label against the next best one, that a voxel needs with so much added to the margin."""
    return 1 / (1 + math.exp(logits))


class LiveThreshold:
    """The threshold of one label. What takes time is done once, before: then each position is one comparison.

    Args:
        port: the result.
        value: of the label.
        box: where voxels may change.
        covered: bool, there: what segments of others cover; None: they do not count.

    Attributes:
        steps: that were added so far.
        box: as given.
        outline: bool, there: for who shows a position. It is filled once already, because the first time takes longest.
    """

    def __init__(self, port: Port, value: int, box: Box, covered: np.ndarray | None):
        self.port, self.value, self.box = port, value, box
        self._thresholds = dict(port.thresholds)
        self.steps = self._thresholds.get(value, 0)
        self._edits = port.edits()
        self._yielding = {other for other in self._edits if other != value and port.yields(other)}
        self._accepted = acceptedPlaces(port)
        self._covered = covered
        self._shape = tuple(part.stop - part.start for part in box)
        self._inside, self._gap = np.empty(self._shape, bool), np.empty(self._shape, np.int8)
        self.outline = np.empty(self._shape, bool)
        self._reached = np.zeros(256, np.int64)  # voxels whose gap is at least this, LOWEST first
        self._outside = 0

    @classmethod
    def of(cls, port: Port, value: int) -> LiveThreshold:
        """As `preparing`, without a pause."""
        return atOnce(cls.preparing(port, value))

    @classmethod
    def preparing(cls, port: Port, value: int) -> Working:
        """Makes one, a moment at a time. What changes meanwhile is not in it; given up, it stops computing."""
        margins = port.margins
        box = (yield from beside(lambda: margins.of[value], math.prod(margins.shape))).box
        covered = None if port.overlaps else (yield from port.lookingAtOthers(box))
        editable = yield from port.lookingWhereEditable(value, box)
        live = cls(port, value, box, covered)
        yield from slabsBeside(live._shape, lambda part: live._prepare(part, editable))
        yield from beside(live._count, math.prod(live._shape))
        return live

    def mask(self, steps: int, out: np.ndarray | None = None) -> np.ndarray:
        """bool: the segment's voxels in the box with so many steps; into ``out``, where given."""
        return np.greater_equal(self._gap, np.int8(-steps), out=out)

    def millilitres(self, steps: int) -> float:
        """The volume of the segment with so many steps."""
        return millilitres(int(self._outside + self._reached[-steps - LOWEST]), self.port.spacing)

    def changing(self, steps: int) -> Working:
        """Finds, a moment at a time, what so many steps change; returns (changes by label, how many voxels)."""
        masks: dict[tuple[int, bool], np.ndarray] = {}  # by label, and whether it wins them

        def look(part: slice) -> None:
            for key, mask in self._changed(part, steps):
                if mask.any():
                    masks.setdefault(key, np.zeros(self._shape, bool))[part] = mask

        yield from slabsBeside(self._shape, look)

        def found() -> tuple[dict[int, Change], int]:
            changed = {key: placed(mask, self.box) for key, mask in masks.items()}
            values = dict.fromkeys(value for value, _ in changed)
            changes = {one: Change(*(changed.get((one, wins), NOTHING) for wins in (True, False))) for one in values}
            return changes, sum(mask.count for (one, _), mask in changed.items() if one == self.value)

        return (yield from beside(found, math.prod(self._shape)))

    def _slab(self, part: slice) -> Box:
        """Where a slab of the box lies."""
        start = self.box[0].start
        return (slice(start + part.start, start + part.stop), *self.box[1:])

    def _prepare(self, part: slice, editable: np.ndarray | None) -> None:
        """Of a slab: what must be added for the label to win; voxels that are to stay are out of reach."""
        box, inside, gap = self._slab(part), self._inside[part], self._gap[part]
        inside[...] = self._edits[self.value].now.on(box)
        gap[...] = gaps(self.port.margins, self.value, self._thresholds, box)
        fixed = editedIn(self._edits, box) | cut(self._accepted, box)
        if editable is not None:
            fixed |= ~editable[part]
        gap[fixed & inside], gap[fixed & ~inside] = HIGHEST, LOWEST
        if self._covered is not None:
            gap[self._covered[part] & ~inside] = LOWEST
        self._reached += np.bincount((gap.view(np.uint8) ^ 128).ravel(), minlength=256)
        self.outline[part] = gap >= -self.steps

    def _count(self) -> None:
        self._outside = self._edits[self.value].now.count - np.count_nonzero(self._inside)
        self._reached = self._reached[::-1].cumsum()[::-1]

    def _changed(self, part: slice, steps: int) -> Iterator[tuple[tuple[int, bool], np.ndarray]]:
        """Of a slab: by label, and whether it wins them, the voxels that change."""
        box, inside = self._slab(part), self._inside[part]
        new = self._gap[part] >= -steps
        lost, won = inside & ~new, new & ~inside
        yield (self.value, True), won
        yield (self.value, False), lost
        heirs = self._heirs(lost, steps, part)
        for value, edits in self._edits.items():
            if value != self.value:
                yield (value, True), heirs == value
                if value in self._yielding:
                    yield (value, False), edits.now.on(box) & won

    def _heirs(self, lost: np.ndarray, steps: int, part: slice) -> np.ndarray:
        """Who wins the voxels that the label loses; 0 elsewhere."""
        heirs = np.zeros(lost.shape, np.int32)
        if self._covered is not None:
            lost = lost & ~self._covered[part]
        if lost.any():
            thresholds = {**self._thresholds, self.value: steps}
            heirs[lost] = nextBest(self.port.margins, self.value, thresholds, self._slab(part), lost)
        return heirs


def apply(port: Port, value: int, steps: int) -> int:
    """As `applying`, without a pause."""
    return atOnce(applying(port, value, steps))


def applying(port: Port, value: int, steps: int) -> Working:
    """Writes a label with so many steps as one step that can be undone, a moment at a time. What it finds of masks and
    segments is of the moment in which it writes.

    Returns:
        how many voxels have changed; 0: there was nothing to be done, and nothing to be undone.
    """
    while True:
        moment = port.moment()
        live = yield from LiveThreshold.preparing(port, value)
        changes, count = yield from live.changing(steps)
        notes = Notes(thresholds={value: steps})
        if not count or (yield from port.writing(changes, notes, moment)):
            return count


def gaps(margins: Margins, value: int, thresholds: dict[int, int], box: Box) -> np.ndarray:
    """int8, in a box: the margins of a label with what was added to the others; within reach of a slider."""
    gap = margins.of[value].on(box)
    others = {other: steps for other, steps in thresholds.items() if steps and other != value}
    if margins.order is not None:
        for later in margins.order[margins.order.index(value) + 1 :]:
            if later in margins.of:
                over = margins.of[later].on(box) >= -others.get(later, 0)
                gap[over] = LOWEST
    elif others:
        best = np.full(gap.shape, LOWEST, np.int16)
        for other in margins.of:
            if other != value:
                np.maximum(best, _scores(margins, other, box, others.get(other, 0)), out=best)
        gap = np.minimum(gap, 0).astype(np.int16) - best - (gap >= 0)
    return np.clip(gap, LOWEST + 1, HIGHEST - 1).astype(np.int8)


def nextBest(margins: Margins, value: int, thresholds: dict[int, int], box: Box, where: np.ndarray) -> np.ndarray:
    """Which label, or background, has voxels that this one does not have.

    Args:
        where: bool, in the box.

    Returns:
        values, one for each voxel of ``where``.
    """
    count = int(np.count_nonzero(where))
    best, winner = np.full(count, LOWEST - MOST - 1, np.int16), np.zeros(count, np.int32)
    for other in margins.order or sorted(margins.of):
        if other == value or other not in margins.of:
            continue
        if margins.order is not None:
            winner[margins.of[other].on(box)[where] >= -thresholds.get(other, 0)] = other
            continue
        scores = _scores(margins, other, box, thresholds.get(other, 0))[where]
        better = scores > best
        best[better], winner[better] = scores[better], other
    return winner


def _scores(margins: Margins, value: int, box: Box, steps: int) -> np.ndarray:
    """int16: how far behind the label that the model chose a label is, with what was added to it."""
    return np.minimum(margins.of[value].on(box), 0).astype(np.int16) + (0 if value == BACKGROUND else steps)
