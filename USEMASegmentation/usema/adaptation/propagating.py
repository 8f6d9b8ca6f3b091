"""What the user changed on some slices, propagated to the others by a network that has learned how corrections go on.

Carrying (carrying.py) adds the same difference to the neighbours of a slice, whatever they show. This network sees what
they show: the image, the model's scores, and the corrected outlines on both sides. It was trained on simulated
corrections of labelled cases (Testing/Benchmarks/propagation.py), knows nothing of any structure, and does not learn
here. Each label is looked at alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from ..errors import Cancelled
from ..inference.outputs import Outputs
from ..models.parts import SIGMOID
from ..networks.propagation import Propagation
from .lesson import Lesson, Shown, away_from
from .propagation_features import FEATURES, Told, see

WEIGHTS = Path(__file__).with_name("propagation.safetensors")
POSSIBLE = -3.0  # log odds from which on a voxel may yet become the label's
MARGIN = 12  # voxels around what may
LEAST = 0.01  # of a change, below which it is not looked for
TILE, HALO = 64, 24  # voxels: the sides of what is computed at once, and how much of a neighbour it sees
REACH = 10.0  # voxels from the nearest corrected slice, at which 1/e of the change is left, and soon nothing


@cache
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
        should_stop: Callable[[], bool] | None = None,
    ) -> Propagated:
        """Of what a network says of the whole of the data.

        Args:
            scores: by label, (a, b, c) its calibrated log odds.
            shown: the corrected slices, all along one axis; may be none.
            planes: those that are wanted, along that axis; None: all.

        Raises:
            Cancelled: ``should_stop`` said so.
        """
        if not shown:
            return cls(())
        parts, axis = [], shown[0].axis
        image = np.moveaxis(lesson.data[0], axis, 0)
        labels = np.moveaxis(lesson.labels, axis, 0)
        for value, score in scores.items():
            score = np.moveaxis(score, axis, 0)
            told = [Told(one.planes, labels[one.planes] == value) for one in shown]
            if not any(((score[one.planes] > 0) != one.label).any() for one in told):
                continue  # he left this label as it was
            box = box_of(score, told)
            rows = tuple(row for row, its in enumerate(outputs.values) if its == value)
            told = [Told(one.planes - box[0].start, one.label[:, box[1], box[2]]) for one in told]
            wanted = slice(0, box[0].stop - box[0].start)
            if planes is not None:
                wanted = slice(max(planes.start - box[0].start, 0), min(planes.stop - box[0].start, wanted.stop))
            if wanted.start >= wanted.stop:
                continue
            found = change_of(image[box], score[box].astype(np.float32), told, wanted, should_stop)
            found *= outputs.temperatures[0]
            own = [slice(box[0].start + wanted.start, box[0].start + wanted.stop), *box[1:]]
            own.insert(axis, own.pop(0))
            change = torch.from_numpy(np.ascontiguousarray(np.moveaxis(found, 0, axis)))
            parts.append(Part(rows, tuple(own), change))
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
    should_stop: Callable[[], bool] | None = None,
) -> np.ndarray:
    """float32 (planes, b, c), what is to be added to calibrated logits of one label.

    Args:
        image: (a, b, c) as the model's network sees it.
        score: (a, b, c) the label's log odds.
        wanted: planes of the first axis.

    Raises:
        Cancelled: ``should_stop`` said so.
    """
    image = normalised(image)
    result = np.empty((wanted.stop - wanted.start, *score.shape[1:]), np.float32)
    near = nearness(len(score), told)
    for planes, wide in _cuts(wanted, len(score)):
        if near[planes].max() < LEAST:
            result[planes.start - wanted.start : planes.stop - wanted.start] = 0
            continue
        seen = see(image, score, told, wide.start, wide.stop)
        for rows, wide_rows in _cuts(slice(0, score.shape[1]), score.shape[1]):
            for columns, wide_columns in _cuts(slice(0, score.shape[2]), score.shape[2]):
                if should_stop is not None and should_stop():
                    raise Cancelled("Propagating the corrections was stopped.")
                around = (slice(None), wide_rows, wide_columns)
                features = torch.from_numpy(np.ascontiguousarray(seen.features[(slice(None), *around)]))
                kept, added = (its[0, 0].numpy() for its in network()(features[None]))
                change = near[wide] * ((kept - 1) * score[(wide, *around[1:])] + added) + seen.carried[around]
                pairs = ((planes, wide), (rows, wide_rows), (columns, wide_columns))
                inner = tuple(slice(own.start - its.start, own.stop - its.start) for own, its in pairs)
                result[planes.start - wanted.start : planes.stop - wanted.start, rows, columns] = change[inner]
    return result


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
