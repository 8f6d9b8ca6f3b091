"""A threshold that follows a slider: how sure the model must be of a label for it to win a voxel.

The slider adds steps to the margin of one label: a voxel is the label's where its margin plus what was added is not
negative. Labels stay a partition: what one wins the others lose, what it loses the next best one wins. Voxels that the
user changed or accepted, and those outside of the user's masks, keep what they have; what segments of others cover
is not won.
"""

from __future__ import annotations

import math

import numpy as np
from usema.volumes.margins import BACKGROUND, HIGHEST, LOWEST, STEP, Margins
from usema.volumes.masks import Box
from usema.volumes.segments import millilitres

from .Changes import editedIn, placed
from .Port import Change, Notes, Port
from .Slices import acceptedIn

MOST = round(4 / STEP)  # steps that the slider adds or takes away


def probabilityOf(logits: float) -> float:
    """The probability, of the label against the next best one, that a voxel needs with so much added to the margin."""
    return 1 / (1 + math.exp(logits))


class LiveThreshold:
    """The threshold of one label. What takes time is done once, here: then each position is one comparison.

    Args:
        port: the result.
        value: of the label.

    Attributes:
        steps: that were added so far.
        box: where voxels may change.
    """

    def __init__(self, port: Port, value: int):
        self.port, self.value = port, value
        self.steps = port.thresholds.get(value, 0)
        self.box = port.margins.of[value].box
        edits = port.edits()
        now = edits[value].now
        self._inside = now.on(self.box)
        self._covered = None if port.overlaps else port.others(self.box)
        self._gap = self._gaps(edits)
        counts = np.bincount((self._gap.view(np.uint8) ^ 128).ravel(), minlength=256)
        self._reached = counts[::-1].cumsum()[::-1]  # voxels whose gap is at least this, LOWEST first
        self._outside = now.count - np.count_nonzero(self._inside)

    def mask(self, steps: int, out: np.ndarray | None = None) -> np.ndarray:
        """bool: the segment's voxels in the box with so many steps; into ``out``, where given."""
        return np.greater_equal(self._gap, np.int8(-steps), out=out)

    def millilitres(self, steps: int) -> float:
        """The volume of the segment with so many steps."""
        return millilitres(int(self._outside + self._reached[-steps - LOWEST]), self.port.spacing)

    def apply(self, steps: int) -> int:
        """Write it, as one step that can be undone.

        Returns:
            how many voxels have changed; 0: there was nothing to be done, and nothing to be undone.
        """
        new = self.mask(steps)
        lost, won = self._inside & ~new, new & ~self._inside
        changes = {self.value: Change(placed(won, self.box), placed(lost, self.box))}
        heirs = self._heirs(lost, steps)
        for value, edits in self.port.edits().items():
            if value == self.value:
                continue
            loses = edits.now.on(self.box) & won & self.port.yields(value)
            inherits = heirs == value
            if loses.any() or inherits.any():
                changes[value] = Change(placed(inherits, self.box), placed(loses, self.box))
        count = int(np.count_nonzero(lost) + np.count_nonzero(won))
        if count:
            self.port.write(changes, Notes(thresholds={self.value: steps}))
        return count

    def _gaps(self, edits) -> np.ndarray:
        """int8: what must be added for the label to win; voxels that are to stay are out of reach."""
        gap = gaps(self.port.margins, self.value, dict(self.port.thresholds))
        fixed = editedIn(edits, self.box) | acceptedIn(self.port, self.box)
        editable = self.port.editable(self.value, self.box)
        if editable is not None:
            fixed |= ~editable
        gap[fixed & self._inside], gap[fixed & ~self._inside] = HIGHEST, LOWEST
        if self._covered is not None:
            gap[self._covered & ~self._inside] = LOWEST
        return gap

    def _heirs(self, lost: np.ndarray, steps: int) -> np.ndarray:
        """Who wins the voxels that the label loses; 0 elsewhere."""
        heirs = np.zeros(lost.shape, np.int32)
        if self._covered is not None:
            lost = lost & ~self._covered
        if lost.any():
            thresholds = {**self.port.thresholds, self.value: steps}
            heirs[lost] = nextBest(self.port.margins, self.value, thresholds, self.box, lost)
        return heirs


def gaps(margins: Margins, value: int, thresholds: dict[int, int]) -> np.ndarray:
    """int8, in the box of a label: its margins with what was added to the others; within reach of a slider."""
    own = margins.of[value]
    box, gap = own.box, own.array
    others = {other: steps for other, steps in thresholds.items() if steps and other != value}
    if margins.order is not None:
        gap = gap.copy()
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
