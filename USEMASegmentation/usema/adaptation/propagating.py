"""What the user changed on some slices, propagated to the others by a network that has learned how corrections go on.

Carrying (carrying.py) adds the same difference to the neighbours of a slice, whatever they show. This network sees what
they show: the image, the model's scores, and the corrected outlines on both sides. It was trained on simulated
corrections of labelled cases (Testing/Benchmarks/propagation.py), knows nothing of any structure, and does not learn
here. Each label is looked at alone, and
nothing changes where what the user drew does not reach (drawn.py).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from ..errors import Cancelled
from ..inference.outputs import Outputs
from ..models.parts import SIGMOID
from ..networks.propagation import Propagation
from .drawn import Drawn, along, meets_another
from .estimate import refuse_without
from .lesson import Lesson, Shown, away_from
from .propagation_features import FEATURES, Told, see
from .truth import UNKNOWN

WEIGHTS = Path(__file__).with_name("propagation.safetensors")
POSSIBLE = -3.0  # log odds from which on a voxel may yet become the label's
MARGIN = 12  # voxels around what may
LEAST = 0.01  # of a change, below which it is not looked for
TILE, HALO = 64, 24  # voxels: the sides of what is computed at once, and how much of a neighbour it sees
BYTES = 180  # of memory for a voxel of what is computed at once: features, and what they are made of
REACH = 18.0  # voxels from the nearest corrected slice, at which 1/e of the change is left, and soon nothing


@functools.cache
def network() -> Propagation:
    """The one that ships; it is read once."""
    one = Propagation(FEATURES)
    one.load_state_dict({name: tensor.float() for name, tensor in load_file(WEIGHTS).items()})
    return one.eval()


def can_propagate(outputs: Outputs) -> bool:
    """Whether each voxel has one label: of regions in each other a slice does not tell what lies underneath."""
    return outputs.activation != SIGMOID


def on_main_axis(shown: Sequence[Shown]) -> list[Shown]:
    """The corrected slices along that axis of the data which has most of them."""
    axes = [one.axis for one in shown]
    most = max(sorted(set(axes)), key=axes.count, default=0)
    return [one for one in shown if one.axis == most]


@dataclass(frozen=True, eq=False)
class Part:
    """What becomes of the logits of some outputs.

    Attributes:
        rows: which.
        box: where, in the last three axes.
        change: float32 (a, b, c), what is added.
    """

    rows: tuple[int, ...]
    box: tuple[slice, slice, slice]
    change: torch.Tensor


@dataclass(frozen=True, eq=False)
class Propagated:
    """Changes of logits, to be added as they come."""

    parts: tuple[Part, ...]

    @classmethod
    def of(
        cls,
        lesson: Lesson,
        scores: dict[int, np.ndarray],
        outputs: Outputs,
        shown: Sequence[Shown],
        planes: slice | None = None,
        progress: Callable[[int, int], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Propagated:
        """Of what a network says of the whole of the data.

        Args:
            lesson: with what the network finds on the slices.
            scores: by label, (a, b, c) its calibrated log odds.
            shown: the corrected slices, all along one axis; may be none.
            planes: those that are wanted, along that axis; None: all.
            progress: called with pieces done and in all.

        Raises:
            DeviceError: there is not enough memory.
            Cancelled: ``should_stop`` said so.
        """
        if not any(lesson.changed(one).any() for one in shown):
            return cls(())
        axis = shown[0].axis
        image, labels = np.moveaxis(lesson.data[0], axis, 0), np.moveaxis(lesson.labels, axis, 0)
        asked = []
        for value, score in scores.items():
            score = np.moveaxis(score, axis, 0)
            told = [
                told_by(value, one.planes, labels[one.planes], np.moveaxis(lesson.found[one.slice], axis, 0), score)
                for one in shown
            ]
            if not any(one.changed.any() for one in told):
                continue  # he left this label as it was
            box = box_of(score, told)
            wanted = slice(0, box[0].stop - box[0].start)
            if planes is not None:
                wanted = slice(max(planes.start - box[0].start, 0), min(planes.stop - box[0].start, wanted.stop))
            if wanted.start < wanted.stop:
                asked.append((value, box, [one.within(box[0].start, *box[1:]) for one in told], wanted))
        needed = [_memory_of(wanted, box) for _, box, _, wanted in asked]
        refuse_without("To propagate corrections", max(needed, default=0), "cpu")
        total, done, parts = sum(_pieces(wanted, box) for _, box, _, wanted in asked), 0, []

        def piece_done() -> None:
            nonlocal done
            done += 1
            if progress is not None:
                progress(done, total)

        for value, box, told, wanted in asked:
            score = np.moveaxis(scores[value], axis, 0)[box].astype(np.float32)
            found = change_of(image[box], score, told, wanted, piece_done, should_stop)
            found *= outputs.temperatures[0]
            place = [slice(box[0].start + wanted.start, box[0].start + wanted.stop), *box[1:]]
            place.insert(axis, place.pop(0))
            change = torch.from_numpy(np.ascontiguousarray(np.moveaxis(found, 0, axis)))
            rows = tuple(row for row, its in enumerate(outputs.values) if its == value)
            parts.append(Part(rows, tuple(place), change))
        return cls(tuple(parts))

    def __call__(self, start: int, logits: torch.Tensor) -> torch.Tensor:
        """A slab of logits (outputs, d, b, c) that begins at plane ``start``, changed in place."""
        for one in self.parts:
            first = max(one.box[0].start, start)
            last = min(one.box[0].start + len(one.change), start + logits.shape[1])
            if first >= last:
                continue
            change = one.change[first - one.box[0].start : last - one.box[0].start].to(logits)
            for row in one.rows:
                logits[(row, slice(first - start, last - start), *one.box[1:])] += change
        return logits

    def at(self, shown: Shown, logits: torch.Tensor) -> torch.Tensor:
        """The same for the planes of one slice alone, (outputs, ...) as ``Shown.index`` cuts; of changes there."""
        logits = logits.clone()
        for one in self.parts:
            box, length = list(one.box), one.change.shape[shown.axis]
            places = torch.from_numpy(shown.planes) - box[shown.axis].start
            inside = (places >= 0) & (places < length)  # of a thick slice some planes may lie beyond
            change = one.change.index_select(shown.axis, places[inside]).to(logits)
            box[shown.axis] = inside.to(logits.device)
            for row in one.rows:
                logits[row][tuple(box)] += change
        return logits


def propagated(
    lessons: Sequence[Lesson],
    scores: Sequence[dict[int, np.ndarray]],
    outputs: Outputs,
    progress: Callable[[int, int], None],
    should_stop: Callable[[], bool] | None,
) -> list[Propagated]:
    """For each lesson what its slices along the axis that has most of them say; as ``Propagated.of``."""
    return [
        Propagated.of(lesson, its, outputs, on_main_axis(lesson.shown), progress=progress, should_stop=should_stop)
        for lesson, its in zip(lessons, scores, strict=True)
    ]


def told_by(value: int, planes: np.ndarray, right: np.ndarray, found: np.ndarray, score: np.ndarray) -> Told:
    """What a corrected slice tells of a label.

    Args:
        planes: that show the slice.
        right: (planes, b, c) labels of it, or UNKNOWN.
        found: labels of the same shape, the model's.
        score: (a, b, c) the model's log odds of the label, on all planes.
    """
    label, had = right == value, found == value
    changed = (label != had) & (right != UNKNOWN)
    given = changed & (right > 0) & (found > 0)
    exchanged = bool(2 * given.sum() > changed.sum())
    if exchanged and meets_another((score > 0).sum(axis=(1, 2)), planes, int(label.sum())):
        return Told(planes, np.where(given, had, label), changed & ~given)
    return Told(planes, label, changed, exchanged)


def box_of(score: np.ndarray, told: Sequence[Told]) -> tuple[slice, slice, slice]:
    """Where a label is, or may yet be, with a margin, and all corrected slices.

    Args:
        score: (a, b, c) log odds.
    """
    possible = score > POSSIBLE
    for one in told:
        possible[one.planes] |= one.label
    found = []
    for axis, length in enumerate(score.shape):
        shown = np.flatnonzero(possible.any(axis=tuple({0, 1, 2} - {axis})))
        first, last = (shown[0], shown[-1] + 1) if len(shown) else (0, length)
        found.append(slice(max(0, int(first) - MARGIN), min(length, int(last) + MARGIN)))
    known = np.concatenate([one.planes for one in told])
    return slice(min(found[0].start, int(known.min())), max(found[0].stop, int(known.max()) + 1)), *found[1:]


@torch.no_grad()
def change_of(
    image: np.ndarray,
    score: np.ndarray,
    told: Sequence[Told],
    wanted: slice,
    piece_done: Callable[[], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> np.ndarray:
    """float32 (planes, b, c), what is to be added to calibrated logits of one label.

    Args:
        image: (a, b, c) as the model's network sees it.
        score: (a, b, c) the label's log odds.
        wanted: planes of the first axis.
        piece_done: called after each.

    Raises:
        Cancelled: ``should_stop`` said so.
    """
    image = normalised(image)
    result = np.zeros((wanted.stop - wanted.start, *score.shape[1:]), np.float32)
    near = nearness(len(score), told)
    reach = Reach.of(score, told)
    for planes, wide in _cuts(wanted, len(score)):
        heard = near[planes].max() >= LEAST
        seen = see(image, score, told, wide.start, wide.stop) if heard else None
        for rows, wide_rows in _cuts(slice(0, score.shape[1]), score.shape[1]):
            for columns, wide_columns in _cuts(slice(0, score.shape[2]), score.shape[2]):
                if should_stop is not None and should_stop():
                    raise Cancelled("Propagating the corrections was stopped.")
                reached = reach.weight(planes, rows, columns)
                if seen is not None and reached.any():
                    around = (slice(None), wide_rows, wide_columns)
                    features = torch.from_numpy(np.ascontiguousarray(seen.features[(slice(None), *around)]))
                    kept, added = (its[0, 0].numpy() for its in network()(features[None]))
                    change = near[wide] * ((kept - 1) * score[(wide, *around[1:])] + added) + seen.carried[around]
                    pairs = ((planes, wide), (rows, wide_rows), (columns, wide_columns))
                    inner = tuple(slice(own.start - its.start, own.stop - its.start) for own, its in pairs)
                    place = slice(planes.start - wanted.start, planes.stop - wanted.start)
                    result[place, rows, columns] = reached * change[inner]
                if piece_done is not None:
                    piece_done()
    return result


@dataclass(frozen=True, eq=False)
class Reach:
    """Where the changes of a label on several slices count.

    Attributes:
        of_slices: for each slice that was changed where it lies, what was drawn, and (planes, 1, 1) how much it counts
            along the axis.
    """

    of_slices: tuple[tuple[float, Drawn, np.ndarray], ...]

    @classmethod
    def of(cls, score: np.ndarray, told: Sequence[Told]) -> Reach:
        areas = (score > 0).sum(axis=(1, 2))
        changed = [one for one in told if one.changed.any()]
        return cls(
            tuple(
                (
                    one.middle,
                    Drawn.of(one.changed.any(axis=0)),
                    along(areas, one.planes, int(one.label.sum()), one.exchanged),
                )
                for one in changed
            )
        )

    def weight(self, planes: slice, rows: slice = slice(None), columns: slice = slice(None)) -> np.ndarray:
        """float32 (planes, rows, columns), 1 where any of them counts, 0 where none does."""
        positions = np.arange(planes.start, planes.stop)[:, None, None]
        each = (
            drawn.weight(np.abs(positions - middle), rows, columns) * counts[planes]
            for middle, drawn, counts in self.of_slices
        )
        return functools.reduce(np.maximum, each)


def _pieces(wanted: slice, box: Sequence[slice]) -> int:
    """How many pieces ``change_of`` computes of a box."""
    planes = box[0].stop - box[0].start
    sides = [slice(0, one.stop - one.start) for one in box[1:]]
    return len(_cuts(wanted, planes)) * math.prod(len(_cuts(one, one.stop)) for one in sides)


def _memory_of(wanted: slice, box: Sequence[slice]) -> int:
    """Bytes that ``change_of`` needs of a box: a slab's features are computed for whole planes."""
    planes, *sides = (one.stop - one.start for one in box)
    slab = max(wide.stop - wide.start for _, wide in _cuts(wanted, planes))
    return BYTES * slab * math.prod(sides)


def nearness(length: int, told: Sequence[Told]) -> np.ndarray:
    """float32 (planes, 1, 1), how much what the network says counts: 1 on a corrected slice, less away from all."""
    return np.exp(-((away_from(told, length) / REACH) ** 2)).astype(np.float32)[:, None, None]


def normalised(image: np.ndarray) -> np.ndarray:
    """float32 of mean 0 and standard deviation 1."""
    return ((image - image.mean()) / (image.std() + 1e-6)).astype(np.float32)


def _cuts(wanted: slice, length: int) -> list[tuple[slice, slice]]:
    """Pieces of what is wanted of an axis, and each with as much of its neighbours as the network sees."""
    starts = list(range(wanted.start, wanted.stop, TILE if wanted.stop - wanted.start > TILE + HALO else length))
    return [
        (slice(start, stop), slice(max(0, start - HALO), min(length, stop + HALO)))
        for start, stop in zip(starts, [*starts[1:], wanted.stop], strict=True)
    ]
