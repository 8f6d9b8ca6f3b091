"""A correction that follows the user's strokes as far as the image does, and no farther than a centimetre.

The strokes are what the user changed since: no tool of its own. They pull on the margins that the model left, the less
the farther away they are, where crossing an edge of the image counts as distance. A voxel changes only with a piece
that touches a stroke. No network runs: the same network would say the same again; what is new are the strokes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import SimpleITK as sitk
from scipy import ndimage
from usema.errors import InputError
from usema.volumes.margins import BACKGROUND, HIGHEST, LOWEST, STEP, Margins, PlacedMargins
from usema.volumes.masks import NOTHING, Box, PlacedMask, box_around

from ..Steps import Working, atOnce, beside
from .Changes import Allowed
from .Port import Change, Edits, Notes, Port

REACH_MM = 10.0  # of a stroke over even tissue; nothing changes beyond
PULL = 6.0  # what a stroke adds to its label's logit where it is
FALL = 0.3  # of the reach, over which the pull falls to 1/e
SMOOTH = 0.2  # of the reach, at its end, over which the rest of the pull fades
MARGIN_MM = 15.0  # of the box around the strokes


@dataclass(frozen=True, eq=False)
class Strokes:
    """What the user has changed since the model's result or the last refinement.

    Attributes:
        mask: the voxels.
        values: the labels whose segments were changed.
    """

    mask: PlacedMask
    values: tuple[int, ...]

    @classmethod
    def of(cls, port: Port) -> Strokes:
        refined, new = port.refined(), {}
        for value, edits in port.edits().items():
            since = edits.changed
            since = PlacedMask(since.array & ~refined.get(value, NOTHING).on(since.box), since.start).trimmed()
            if since.array.size:
                new[value] = since
        box = box_around(*(one.box for one in new.values()))
        mask = np.zeros([part.stop - part.start for part in box], bool)
        for one in new.values():
            mask |= one.on(box)
        return cls(PlacedMask(mask, tuple(part.start for part in box[::-1])), tuple(new))


def refine(port: Port) -> int:
    """Let the model follow the strokes, as one step that can be undone. The strokes themselves stay.

    Returns:
        how many voxels have changed.

    Raises:
        InputError: there are no strokes.
    """
    return atOnce(refining(port))


def refining(port: Port) -> Working:
    """As `refine`, a moment at a time: what it finds is of the moment in which it writes."""
    while True:
        moment, strokes = port.moment(), Strokes.of(port)
        if not strokes.values:
            raise InputError(
                "There are no new corrections to follow.",
                "Paint or erase a little where the result is wrong, then refine.",
            )
        box = _around(strokes.mask.box, port)
        covered = None if port.overlaps else (yield from port.lookingAtOthers(box))
        edits = port.edits()
        allowed = Allowed(port, edits, box, strokes.values, covered)
        image, thresholds = port.image(box).copy(), dict(port.thresholds)
        find = partial(_follow, port.margins, strokes, edits, allowed, image, port.spacing, thresholds)
        changes, after, count = yield from beside(find, math.prod(port.margins.shape))
        notes = Notes(margins=after, box=box, refined={value: one.changed for value, one in edits.items()})
        if (yield from port.writing(changes, notes, moment)):
            return count


def _follow(
    margins: Margins,
    strokes: Strokes,
    edits: Mapping[int, Edits],
    allowed: Allowed,
    image: np.ndarray,
    spacing,
    thresholds: Mapping[int, int],
) -> tuple[dict[int, Change], Margins, int]:
    """What changes, the margins then, and how many voxels that are; touches nothing of the scene."""
    box = allowed.box
    touched = strokes.mask.on(box)
    seeds = {value: one.added.on(box) for value, one in edits.items()}
    nots = {value: one.removed.on(box) for value, one in edits.items()}
    before = {value: margins_in(margins, value, box, thresholds) for value in margins.of}
    pull = pulls(image, spacing, seeds, nots)
    after = {value: one + pull[value] if value in pull else one for value, one in before.items()}
    old, new = labels_of(before, margins), labels_of(after, margins)
    changed = touching((old != new) & ~allowed.fixed, touched)
    changes = allowed.changes(edits, new, changed)
    after = updated(margins, after, box, changed, allowed.edited, edits)
    return changes, Margins(margins.shape, after, margins.order), int(changed.sum())


def margins_in(margins: Margins, value: int, box: Box, thresholds: Mapping[int, int]) -> np.ndarray:
    """float32, the logits of a label: behind the likeliest one where labels exclude each other, else its own."""
    steps = margins.of[value].on(box).astype(np.float32)
    if margins.order is None:
        steps = np.minimum(steps, 0)
    return (steps + np.where(steps < 0, 0.5, 0) + thresholds.get(value, 0)) * np.float32(STEP)


def labels_of(logits: Mapping[int, np.ndarray], margins: Margins) -> np.ndarray:
    """The labels that these logits mean."""
    if margins.order is not None:
        labels = np.zeros(next(iter(logits.values())).shape, np.int32)
        for value in margins.order:
            if value in logits:
                labels[logits[value] >= 0] = value
        return labels
    values = sorted(logits)
    return np.asarray(values, np.int32)[np.argmax(np.stack([logits[value] for value in values]), axis=0)]


def pulls(
    image: np.ndarray, spacing, seeds: Mapping[int, np.ndarray], nots: Mapping[int, np.ndarray]
) -> dict[int, np.ndarray]:
    """What strokes add to the logits of labels, and take from those that they erased.

    Args:
        image: (z, y, x).
        seeds, nots: bool, voxels that were added to a label, and taken from it.
    """
    cost, found = costs(image, spacing), {}
    for strokes, sign in ((seeds, PULL), (nots, -PULL)):
        for value, mask in strokes.items():
            if mask.any():
                found[value] = found.get(value, 0) + np.float32(sign) * weight(geodesic(cost, mask, spacing))
    return found


def costs(image: np.ndarray, spacing) -> np.ndarray:
    """What a millimetre costs, in reaches: more where the image changes more than it usually does here."""
    image = image.astype(np.float32)
    gradients = [np.gradient(image, mm, axis=axis) for axis, mm in enumerate(spacing) if image.shape[axis] > 1]
    steepness = np.sqrt(sum(one**2 for one in gradients)) if gradients else np.zeros_like(image)
    usual = float(np.median(steepness)) or float(steepness.mean()) or 1.0
    return ((1 + steepness / usual) / np.float32(2 * REACH_MM)).clip(1 / REACH_MM, None)


def geodesic(cost: np.ndarray, mask: np.ndarray, spacing) -> np.ndarray:
    """The cost of the cheapest way from a mask; 2 where it is more than 1."""
    speed = sitk.GetImageFromArray((1 / cost).astype(np.float32))
    speed.SetSpacing(tuple(float(mm) for mm in spacing[::-1]))
    march = sitk.FastMarchingImageFilter()
    march.SetTrialPoints([tuple(int(one) for one in place[::-1]) for place in np.argwhere(mask)])
    march.SetStoppingValue(1.0)
    distance = sitk.GetArrayFromImage(march.Execute(speed))
    return np.where(mask, 0, np.minimum(distance, 2))  # what was not reached is the largest number that there is


def weight(distance: np.ndarray) -> np.ndarray:
    """What is left of a pull; nothing from the reach on, and no step there."""
    fade = np.clip((1 - distance) / SMOOTH, 0, 1)
    return (np.exp(-distance / FALL) * fade * fade * (3 - 2 * fade)).astype(np.float32)


def touching(changed: np.ndarray, strokes: np.ndarray) -> np.ndarray:
    """The pieces (6 neighbours) of what would change that touch a stroke."""
    components, _ = ndimage.label(changed | strokes)
    kept = np.unique(components[strokes])
    return changed & np.isin(components, kept[kept > 0])


def updated(
    margins: Margins, logits, box: Box, changed, edited, edits: Mapping[int, Edits]
) -> dict[int, PlacedMargins]:
    """The margins in the box after a refinement: new where something changed, certain where the user drew."""
    start, parts = tuple(part.start for part in box), {}
    values = sorted(logits)
    if margins.order is None:
        stacked = np.stack([logits[value][changed] for value in values])
        winner = stacked.argmax(axis=0)
        best = stacked.max(axis=0)
        stacked_others = stacked.copy()
        np.put_along_axis(stacked_others, winner[None], -np.inf, axis=0)
        second = stacked_others.max(axis=0)
    for index, value in enumerate(values):
        array = margins.of[value].on(box)
        if margins.order is None:
            won = winner == index
            steps = np.floor(np.where(won, best - second, stacked[index] - best) / STEP)
            array[changed] = np.where(won, steps.clip(0, HIGHEST), steps.clip(LOWEST, -1)).astype(np.int8)
        else:
            array[changed] = np.floor(logits[value][changed] / STEP).clip(LOWEST, HIGHEST).astype(np.int8)
        if value == BACKGROUND:
            own = ~np.any([one.now.on(box) for one in edits.values()], axis=0)
        else:
            own = edits[value].now.on(box) if value in edits else np.zeros(changed.shape, bool)
        array[edited] = np.where(own[edited], HIGHEST, LOWEST)
        parts[value] = PlacedMargins(array, start)
    return parts


def _around(box: Box, port: Port) -> Box:
    found = []
    for part, mm, length in zip(box, port.spacing, port.margins.shape, strict=True):
        margin = int(np.ceil(MARGIN_MM / mm))
        found.append(slice(max(0, part.start - margin), min(length, part.stop + margin)))
    return tuple(found)
