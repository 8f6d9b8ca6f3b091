"""Whether learning helped, and what it would change far from where the user looked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree

from ..inference.outputs import Outputs
from ..volumes.geometry import Geometry
from ..volumes.segments import millilitres
from .carrying import Carried
from .corrections import Corrections, Slice
from .lesson import Lesson, Shown
from .propagating import Propagated, on_main_axis
from .truth import UNKNOWN

LEARNED, PROPAGATED, CARRIED, UNCHANGED = WAYS = ("learned", "propagated", "carried", "unchanged")
FAR_MM = 20.0
MOST_FAR = 0.05  # of the segments' voxels; if more would change, the user is asked
AS_GOOD = 0.01  # Dice: a single slice does not tell less apart
AS_LITTLE = 1.1  # of the Dice that is lost: a slice left out lies farther from the others than most that will hear them
MOST_LEFT_OUT = 4  # slices, one after the other
APART = 3.0  # planes: of two changed slices that lie nearer together, one does not prove that the other's change holds
MOST_CHANGED = 0.3  # of the segments' voxels; likewise
MOST_POINTS = 200_000  # that distances are taken to


@dataclass(frozen=True)
class HeldOut:
    """How a corrected slice came out that was not learned from: mean Dice of its labels.

    Attributes:
        slice: which it was.
        before: the model as it is.
        carried: with what the other slices have, carried to it.
        learned: with a model that learned from the others, and that carried, too.
    """

    slice: Slice
    before: float
    carried: float
    learned: float

    @property
    def best(self) -> str:
        """Which way to go: learning, unless another comes out better; nothing, only if that is better than both."""
        if self.learned >= max(self.carried, self.before) - AS_GOOD:
            return LEARNED
        return CARRIED if self.carried >= self.before - AS_GOOD else UNCHANGED

    @property
    def report(self) -> dict:
        """The field held_out of the worker's answer."""
        axis, index = self.slice
        return {"axis": axis, "index": index, "before": self.before, "carried": self.carried, "learned": self.learned}


def left_out(lessons: Sequence[Lesson]) -> tuple[Lesson, Shown]:
    """The slice to leave out: the middle one along the axis that has most of them."""
    every = [(lesson, one) for lesson in lessons for one in lesson.shown]
    axes = [one.slice[0] for _, one in every]
    axis = max(set(axes), key=axes.count)
    along = sorted((pair for pair in every if pair[1].slice[0] == axis), key=lambda pair: pair[1].slice[1])
    return along[len(along) // 2]


def dice_on(lesson: Lesson, shown: Sequence[Shown], logits: Mapping[Slice, torch.Tensor], outputs: Outputs) -> float:
    """Mean Dice over the labels that are right or found on these slices together; 1 where there is neither."""
    found, right = [], []
    for one in shown:
        found.append(outputs.to_labels(logits[one.slice]).numpy().ravel())
        right.append(lesson.labels[one.index].ravel())
    found, right = np.concatenate(found), np.concatenate(right)
    scores = []
    for value in sorted(({*np.unique(right).tolist()} | {*np.unique(found).tolist()}) - {0, -1}):
        mine, true = found == value, right == value
        scores.append(2 * (mine & true).sum() / (mine.sum() + true.sum()))
    return float(np.mean(scores)) if scores else 1.0


def changed_labels(lesson: Lesson) -> list[int]:
    """The labels that some corrected slice has more or less of than the model."""
    values: set[int] = set()
    for one in lesson.shown:
        differ = lesson.changed(one)
        values |= {*np.unique(lesson.found[one.slice][differ]), *np.unique(lesson.labels[one.index][differ])}
    return sorted(int(one) for one in values - {0})


def lost_when_left_out(
    lessons: Sequence[Lesson],
    logits: Sequence[Mapping[Slice, torch.Tensor]],
    outputs: Outputs,
    reach: float,
    scores: Sequence[Mapping[int, np.ndarray]] | None = None,
    progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> dict[str, float]:
    """1 less Dice of corrected slices, all together, when each hears only what others say of it, by way.

    Dice rather than a count of wrong voxels: a way that finds nothing may have fewer of these than one that finds most.

    Args:
        logits: of each lesson, as ``looking.on_slices`` gives them.
        reach: as ``Carried.of`` takes it.
        scores: of each lesson, as ``looking.Scores`` keeps them; without, nothing is propagated.
        progress: called with slices done and in all.

    Raises:
        DeviceError, Cancelled: as ``Propagated.of``.
    """
    ways = (UNCHANGED, CARRIED) if scores is None else (UNCHANGED, CARRIED, PROPAGATED)
    overlaps, sizes, asked = dict.fromkeys(ways, 0), dict.fromkeys(ways, 0), []
    for number, lesson in enumerate(lessons):
        shown = lesson.shown if scores is None else on_main_axis(lesson.shown)
        for one in _some(shown):
            others = [other for other in shown if other is not one and not _alike(lesson, one, other)]
            if others:
                asked.append((number, one, others))
    for done, (number, one, others) in enumerate(asked):
        if progress is not None:
            progress(done, len(asked))
        lesson, its = lessons[number], logits[number]
        own, right = its[one.slice], lesson.labels[one.index]
        heard = {UNCHANGED: own, CARRIED: Carried.of(lesson, its, outputs, others, reach).at(one, own)}
        if scores is not None:
            planes = slice(int(one.planes[0]), int(one.planes[-1]) + 1)
            found = Propagated.of(lesson, scores[number], outputs, others, planes, should_stop=should_stop)
            heard[PROPAGATED] = found.at(one, own)
        for way, each in heard.items():
            labels = np.where(right == UNKNOWN, 0, outputs.to_labels(each).numpy())
            overlaps[way] += 2 * int(((labels == right) & (labels > 0)).sum())
            sizes[way] += int((labels > 0).sum() + (right > 0).sum())
    return {way: 1 - overlaps[way] / sizes[way] if sizes[way] else 0.0 for way in ways}


def _alike(lesson: Lesson, one: Shown, other: Shown) -> bool:
    """Whether two slices were both changed, and show nearly the same."""
    near = one.axis == other.axis and abs(one.middle - other.middle) < APART
    return near and lesson.changed(one).any() and lesson.changed(other).any()


def least_lost(lost: Mapping[str, float]) -> str:
    """The way to go, of ``lost_when_left_out``: propagating or carrying, unless another loses clearly less."""
    if PROPAGATED in lost and lost[PROPAGATED] <= AS_LITTLE * min(lost.values()):
        return PROPAGATED
    return CARRIED if lost[CARRIED] <= lost[UNCHANGED] else UNCHANGED


def _some(shown: Sequence[Shown]) -> Sequence[Shown]:
    """At most so many slices as may be left out, spread over all."""
    if len(shown) <= MOST_LEFT_OUT:
        return shown
    return [shown[index] for index in np.linspace(0, len(shown) - 1, MOST_LEFT_OUT).astype(int)]


def change_of(labels: np.ndarray, corrections: Corrections, geometry: Geometry) -> dict:
    """How a result differs from what the user sees, how much of that lies far from all that he corrected, and a
    question where either is much.

    Args:
        labels: (z, y, x), the result.

    Returns:
        the fields changed_voxels, changed_ml, far_voxels, far_share, far_mm and question of the worker's answer.
    """
    places = np.argwhere(labels != corrections.labels)
    spacing = np.asarray(geometry.spacing_zyx)
    away = np.full(len(places), np.inf)
    for axis, index in corrections.slices:
        away = np.minimum(away, np.abs(places[:, axis] - index) * spacing[axis])
    far = places[away > FAR_MM]
    if len(far) and corrections.edited is not None and corrections.edited.any():
        edited = np.argwhere(corrections.edited)
        edited = edited[:: max(1, len(edited) // MOST_POINTS)]
        far = far[cKDTree(edited * spacing).query(far * spacing, distance_upper_bound=FAR_MM)[0] > FAR_MM]
    size = int(max((labels > 0).sum(), (corrections.labels > 0).sum(), 1))
    share, everything = len(far) / size, len(places) / size
    question = ""
    if share > MOST_FAR:
        question = (
            f"{millilitres(len(far), geometry.spacing):.2f} ml, {share:.0%} of what is segmented, would change farther "
            f"than {FAR_MM:g} mm from all that you corrected. Take the result?"
        )
    elif everything > MOST_CHANGED:
        question = (
            f"{millilitres(len(places), geometry.spacing):.2f} ml, {everything:.0%} of what is segmented, would change "
            "on slices that you did not correct. Take the result?"
        )
    return {
        "changed_voxels": len(places),
        "changed_ml": millilitres(len(places), geometry.spacing),
        "far_voxels": len(far),
        "far_share": share,
        "far_mm": FAR_MM,
        "question": question,
    }
