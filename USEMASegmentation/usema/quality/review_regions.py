"""Where a result is most likely wrong: regions, the largest expected error first. Without torch.

The chance that a voxel has another label than the likeliest one, one minus that one's calibrated probability, adds up
to the expected error in millilitres. The shell around each surface, where every model doubts, counts a quarter. A
region is a box where the most doubt is left, found one after the other; for their order doubt counts with its square,
so that few voxels in much doubt come before many in little. Detached pieces, and slices that a label leaves out, are
regions of their own. What a model overlooks without any doubt is in none of them.

The size of the boxes and the square were chosen on 20 training cases of hippocampus-mr.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy import ndimage

from ..volumes.margins import BACKGROUND, LOWEST, STEP, Margins
from ..volumes.masks import Box, box_around, common_box, relative
from ..volumes.segments import millilitres

SHELL = 0.25  # what doubt within a voxel of a surface counts
SIZE, SMALLEST_MM, LARGEST_MM = 0.75, 10.0, 30.0  # a box's side, of the cube root of a label's mean volume; its limits
LEAST_VOXELS, LEAST_ML = 8, 0.01
COVERED = 0.95  # of all doubt, after which no more regions are looked for
MOST_LEFT_OUT = 2  # slices between two that have a label
SURE = 0.9  # mean probability from which on a detached piece is not doubted
MOST_REGIONS = 20
_ABOUT_EQUAL = 0.8  # of two regions as good as equal the nearer one comes first

DOUBT, PIECE, GAP = "doubt", "piece", "gap"  # why a region is one
_EVERY_NEIGHBOUR = np.ones((3, 3, 3), bool)


@dataclass(frozen=True)
class Region:
    """A place to look at.

    Attributes:
        low, high: first and last index (z, y, x) of its box.
        middle: index of the place to show.
        axis: of the array, across which its slice shows the most.
        ml: the expected error.
        why: DOUBT, PIECE or GAP.
        values: the labels that are in question.
    """

    low: tuple[int, int, int]
    high: tuple[int, int, int]
    middle: tuple[int, int, int]
    axis: int
    ml: float
    why: str
    values: tuple[int, ...]

    @property
    def box(self) -> Box:
        return tuple(slice(one, other + 1) for one, other in zip(self.low, self.high, strict=True))

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, document: dict) -> Region:
        """The inverse; also from JSON, which knows no tuples.

        Raises:
            KeyError, TypeError, ValueError: it is no region.
        """
        places = {name: tuple(int(one) for one in document[name]) for name in ("low", "high", "middle", "values")}
        if any(len(places[name]) != 3 for name in ("low", "high", "middle")):
            raise ValueError("a place has three indices")
        return cls(**places, axis=int(document["axis"]), ml=float(document["ml"]), why=str(document["why"]))


def doubts(margins: Margins) -> tuple[np.ndarray, np.ndarray, Box]:
    """What the model made of each voxel near a label.

    Returns:
        float32 (z, y, x), the chance that another label is right; the label; and the box that both are of.
    """
    box = box_around(*(one.box for value, one in margins.of.items() if value != BACKGROUND))
    shape = tuple(part.stop - part.start for part in box)
    labels, sums = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
    steps = np.arange(LOWEST, -LOWEST)
    if margins.order is not None:
        chance = 1 / (1 + np.exp((np.abs(steps + 0.5)) * STEP))
    else:  # relative to the likeliest label, which counts 1
        chance = np.where(steps >= 0, 1.0, np.exp((steps + 0.5) * STEP))
    table = chance.astype(np.float32)
    for value in margins.order or margins.of:
        if value not in margins.of:
            continue
        one = margins.of[value]
        inner = common_box(one.box, box)
        if inner is None:
            continue
        part = one.array[relative(inner, one.box)]
        place = relative(inner, box)
        found = table[part.view(np.uint8) ^ 128]
        if margins.order is not None:
            np.maximum(sums[place], found, out=sums[place])
        else:
            sums[place] += found
        if value != BACKGROUND:
            labels[place][part >= 0] = value
    if margins.order is None:
        sums = 1 - 1 / np.maximum(sums, 1)
    return sums, labels, box


def find(margins: Margins, spacing: Sequence[float]) -> list[Region]:
    """The regions of a result.

    Args:
        spacing: along z, y, x, in millimetres.

    Returns:
        no more than MOST_REGIONS, the largest expected error first; of about equal ones the nearest to the one before.
    """
    if all(value == BACKGROUND or not one.array.size for value, one in margins.of.items()):
        return []
    doubt, labels, box = doubts(margins)
    start = tuple(part.start for part in box)
    counted = doubt * np.where(surface_of(labels), np.float32(SHELL), np.float32(1))
    voxel = millilitres(1, tuple(spacing))
    regions = []
    for mask, place, why in [*_pieces(doubt, labels), *_gaps(labels)]:
        size = int(np.count_nonzero(mask))
        if size >= LEAST_VOXELS and size * voxel >= LEAST_ML:
            regions.append((size, _region(place, mask, doubt, labels, size * voxel, why, start)))
            counted[place][mask] = 0
    for place in _boxes(counted, _sides(labels, spacing)):
        ml = float(counted[place].sum()) * voxel
        if ml >= LEAST_ML:
            everywhere = np.ones(counted[place].shape, bool)
            score = float((counted[place] ** 2).sum())
            regions.append((score, _region(place, everywhere, counted, labels, ml, DOUBT, start)))
        counted[place] = 0
    return _ordered(regions, spacing)[:MOST_REGIONS]


def _sides(labels: np.ndarray, spacing: Sequence[float]) -> tuple[int, ...]:
    """Voxels along each axis of a box."""
    count = max(1, len(np.unique(labels[labels > 0])))
    volume = float(np.count_nonzero(labels)) * math.prod(spacing) / count
    side = min(max(SIZE * volume ** (1 / 3), SMALLEST_MM), LARGEST_MM)
    return tuple(min(length, max(1, round(side / mm))) for length, mm in zip(labels.shape, spacing, strict=True))


def _boxes(counted: np.ndarray, sides: Sequence[int]):
    """Where the most doubt is, again and again, each voxel once."""
    left = counted.astype(np.float32) ** 2
    total, covered = float(left.sum()), 0.0
    sums = _sums(left, sides)
    for _ in range(MOST_REGIONS):
        if not total or covered >= COVERED * total:
            return
        middle = np.unravel_index(int(sums.argmax()), sums.shape)
        axes = list(zip(middle, sides, left.shape, strict=True))
        starts = [min(max(0, int(one) - side // 2), length - side) for one, side, length in axes]
        box = tuple(slice(one, one + side) for one, side in zip(starts, sides, strict=True))
        covered += float(left[box].sum())
        yield box
        left[box] = 0
        wide = tuple(
            slice(max(0, part.start - 2 * side), part.stop + 2 * side) for part, side in zip(box, sides, strict=True)
        )
        near = tuple(slice(max(0, part.start - side), part.stop + side) for part, side in zip(box, sides, strict=True))
        sums[near] = _sums(left[wide], sides)[relative(near, wide)]


def _sums(values: np.ndarray, sides: Sequence[int]) -> np.ndarray:
    """The sum in the box around each voxel."""
    for axis, side in enumerate(sides):
        values = ndimage.uniform_filter1d(values, side, axis=axis, mode="constant") * side
    return values


def surface_of(labels: np.ndarray) -> np.ndarray:
    """Voxels that touch one of another label."""
    shell = np.zeros(labels.shape, bool)
    for axis in range(3):
        one, other = [slice(None)] * 3, [slice(None)] * 3
        one[axis], other[axis] = slice(None, -1), slice(1, None)
        different = labels[tuple(one)] != labels[tuple(other)]
        shell[tuple(one)] |= different
        shell[tuple(other)] |= different
    return shell


def _pieces(doubt, labels):
    """What lies apart from the largest piece of its label, where the model was not sure of it."""
    for value in np.unique(labels[labels > 0]):
        components, count = ndimage.label(labels == value, _EVERY_NEIGHBOUR)
        if count < 2:
            continue
        sizes = np.bincount(components.ravel())[1:]
        for number, place in enumerate(ndimage.find_objects(components), 1):
            own = components[place] == number
            if number != int(sizes.argmax()) + 1 and 1 - doubt[place][own].mean() < SURE:
                yield own, place, PIECE


def _gaps(labels):
    """One or two slices without a label between slices that have it in the same place."""
    for value in np.unique(labels[labels > 0]):
        own = labels == value
        filled = own.any(axis=(1, 2))
        planes = np.flatnonzero(filled)
        for index in range(int(planes[0]) + 1, int(planes[-1])):
            if filled[index]:
                continue
            before, after = planes[planes < index][-1], planes[planes > index][0]
            both = (own[before] & own[after])[None]
            if after - before <= 1 + MOST_LEFT_OUT and both.any():
                (place,) = ndimage.find_objects(both.astype(np.uint8))
                yield both[place], (slice(index, index + 1), *place[1:]), GAP


def _region(place: Box, mask, doubt, labels, ml: float, why: str, start) -> Region:
    weight = doubt[place] * mask
    middle, axis, most = [], 0, -math.inf
    for one in range(3):
        profile = weight.sum(axis=tuple({0, 1, 2} - {one}))
        middle.append(int(profile.argmax()) + place[one].start + start[one])
        if profile.max() > most:
            axis, most = one, float(profile.max())
    low = tuple(part.start + by for part, by in zip(place, start, strict=True))
    high = tuple(part.stop - 1 + by for part, by in zip(place, start, strict=True))
    around = tuple(slice(max(0, part.start - 1), part.stop + 1) for part in place)
    values = tuple(int(value) for value in np.unique(labels[around]) if value != BACKGROUND)
    return Region(low, high, tuple(middle), axis, round(ml, 4), why, values)


def _ordered(scored: list[tuple[float, Region]], spacing: Sequence[float]) -> list[Region]:
    left, ordered = sorted(scored, key=lambda one: -one[0]), []
    while left:
        good = [one for one in left if one[0] >= _ABOUT_EQUAL * left[0][0]]
        if ordered:
            good.sort(key=lambda one: _distance(one[1].middle, ordered[-1].middle, spacing))
        ordered.append(good[0][1])
        left.remove(good[0])
    return ordered


def _distance(one, other, spacing) -> float:
    return math.dist(*([index * mm for index, mm in zip(place, spacing, strict=True)] for place in (one, other)))
