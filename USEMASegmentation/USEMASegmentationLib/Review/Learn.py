"""Learning from corrections, as far as arrays tell: what the engine is given, and what of its answer is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from usema.errors import InputError
from usema.volumes.margins import BACKGROUND, HIGHEST, LOWEST, Margins, PlacedMargins
from usema.volumes.masks import Box, PlacedMask, box_around, common_box, relative

from .Changes import Allowed
from .Port import Notes, Port
from .Slices import Slice, cut

CHECKED_FROM = 3  # slices, from which on the engine leaves one out to see whether learning helps
# How often everything is computed at the most: as it is, for the lessons, and as it was learned.
_TIMES, _TIMES_CHECKED = 3, 4


def lessons(slices: Sequence[Slice], box: Box) -> list[Slice]:
    """The slices to learn from: those that are ticked, in the box that was segmented."""
    return [one for one in slices if one.ticked and box[one.axis].start <= one.index < box[one.axis].stop]


def labelsNow(port: Port, box: Box, slices: Sequence[Slice]) -> np.ndarray:
    """Whole numbers (z, y, x) in the box: the labels as they stand.

    Raises:
        InputError: segments overlap in a slice to learn from.
    """
    edits = port.edits()
    labels = np.zeros([part.stop - part.start for part in box], np.min_scalar_type(max(edits, default=0)))
    places = [(one.axis, one.index) for one in slices]
    for value in port.margins.order or sorted(edits):
        if value not in edits:
            continue
        now = edits[value].now.on(box)
        if port.margins.order is None and (both := now & (labels > 0) & cut(places, box)).any():
            other = port.names.get(int(labels[both][0]), "another segment")
            raise InputError(
                f"'{port.names.get(value, value)}' and '{other}' overlap in a slice to learn from.",
                "Erase one of them there: each voxel of such a slice has one label.",
            )
        labels[now] = value
    return labels


def missing(port: Port, values: Sequence[int]) -> list[int]:
    """Labels of the model that have no segment: the engine would learn that there is nothing of them."""
    return sorted(set(values) - {BACKGROUND} - set(port.names))


def apply(
    port: Port,
    box: Box,
    labels: np.ndarray,
    margins: Margins,
    slices: Sequence[tuple[int, int]],
    provenance: Mapping[str, str],
    delta: str,
) -> int:
    """Write what the model finds after learning, as one step that can be undone.

    What the user changed until now, also while it was learned, the slices that were learned from, and what the masks
    protect, stay as they are.

    Args:
        labels: (z, y, x), in the box.
        margins: on the whole grid, of the box.
        slices: (axis, index), learned from.
        delta: what was learned, as text; empty: nothing, only neighbouring slices follow.

    Returns:
        how many voxels have changed.
    """
    edits = port.edits()
    allowed = Allowed(port, edits, box, edits)
    before = np.zeros(labels.shape, labels.dtype)
    for value in port.margins.order or sorted(edits):
        if value in edits:
            before[edits[value].now.on(box)] = value
    changed = (before != labels) & ~allowed.fixed & ~cut(slices, box)
    changes = allowed.changes(edits, labels, changed)
    after = np.where(changed, labels, before)
    thresholds = dict.fromkeys(port.thresholds, 0)
    sure = allowed.edited | cut(slices, box)
    notes = Notes(thresholds, certain(margins, after, sure, box), box, {}, provenance, delta)
    port.write(changes, notes)
    return int(np.count_nonzero(changed))


def expectedSeconds(whole: float, count: int) -> float:
    """About what learning from so many slices takes, before it begins: then the engine tells more exactly.

    Args:
        whole: seconds that segmenting took.
    """
    return whole * (_TIMES_CHECKED if count >= CHECKED_FROM else _TIMES)


def certain(margins: Margins, labels: np.ndarray, sure: np.ndarray, box: Box) -> Margins:
    """Margins that agree with labels, without doubt where these are the user's.

    Args:
        labels: (z, y, x), in the box.
        sure: bool, there.
    """
    whole = np.zeros(margins.shape, labels.dtype)
    whole[box] = labels
    agreeing, parts = margins.agreeing(whole), {}
    for value, one in agreeing.of.items():
        own = PlacedMask((labels == value) & sure, tuple(part.start for part in box[::-1])).trimmed()
        around = box_around(one.box, own.box)
        array = one.on(around)
        inner = common_box(around, box)
        if inner is not None:
            place, mine = array[relative(inner, around)], relative(inner, box)
            place[sure[mine]] = np.where(labels[mine] == value, HIGHEST, LOWEST)[sure[mine]]
        parts[value] = PlacedMargins(array, tuple(part.start for part in around))
    return Margins(agreeing.shape, parts, agreeing.order)
