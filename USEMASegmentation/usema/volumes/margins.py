"""Margins: how far each label is from winning or losing a voxel, in 8 bits, kept where that is in doubt.

The margin of a label is its logit minus that of the best other one, background included, both divided by the model's
temperature; of a region that may lie in others, it is the region's own logit. It is kept in steps of 1/16, rounded down
and cut off at 8, so that the label of a voxel is the one whose margin is not negative. That is what a threshold, a
measure of doubt and a local correction need of the probabilities, in an eighth of the room that these take, or less.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from .masks import Box, box_around, common_box, relative

STEP = 1 / 16
LOWEST, HIGHEST = -128, 127
FURTHEST = -LOWEST * STEP  # a label that is this far behind has the margin LOWEST
# Of a label whose probability is above 0.005 the margin is above -5.3: kept are boxes around those.
NEAR = math.floor(math.log(0.005 / 0.995) / STEP)
BACKGROUND = 0
MOST_VOXELS = 2**31  # of a box in a text: one from a damaged file must not fill the memory
_VERSION = 1
_NUMBERS = 200  # characters, in which the numbers of a line end


@dataclass(frozen=True, eq=False)
class PlacedMargins:
    """The margins of one label in a box; everywhere else they are LOWEST.

    Attributes:
        array: int8 (z, y, x).
        start: index (z, y, x) of its first voxel.
    """

    array: np.ndarray
    start: tuple[int, int, int]

    @property
    def box(self) -> Box:
        """The indices that ``array`` covers."""
        return tuple(slice(one, one + size) for one, size in zip(self.start, self.array.shape, strict=True))

    def on(self, box: Box) -> np.ndarray:
        """A copy of what of it lies in another box."""
        window = np.full([part.stop - part.start for part in box], LOWEST, np.int8)
        inner = common_box(self.box, box)
        if inner is not None:
            window[relative(inner, box)] = self.array[relative(inner, self.box)]
        return window

    def trimmed(self) -> PlacedMargins:
        """Without the rims in which all is far away."""
        near, box = self.array > NEAR, []
        for axis in range(3):
            lines = np.flatnonzero(near.any(axis=tuple({0, 1, 2} - {axis})))
            if not len(lines):
                return PlacedMargins(np.zeros((0, 0, 0), np.int8), (0, 0, 0))
            box.append(slice(int(lines[0]), int(lines[-1]) + 1))
        start = tuple(part.start + one for part, one in zip(box, self.start, strict=True))
        return PlacedMargins(np.ascontiguousarray(self.array[tuple(box)]), start)


@dataclass(frozen=True, eq=False)
class Margins:
    """Those of a model's labels on one grid.

    Attributes:
        shape: (z, y, x) of the grid.
        of: by the value of the label; BACKGROUND is one of them where labels exclude each other.
        order: of regions that may lie in each other: in which order they are written, later ones over earlier ones.
            None: labels exclude each other.
    """

    shape: tuple[int, int, int]
    of: Mapping[int, PlacedMargins]
    order: tuple[int, ...] | None = None

    def transposed(self, axes: Sequence[int]) -> Margins:
        """As ``numpy.transpose`` of the grid."""
        parts = {
            value: PlacedMargins(one.array.transpose(axes), tuple(one.start[axis] for axis in axes))
            for value, one in self.of.items()
        }
        return replace(self, shape=tuple(self.shape[axis] for axis in axes), of=parts)

    def moved(self, moves: Sequence[tuple[int, bool]]) -> Margins:
        """On a grid whose axes are this one's in another order and direction.

        Args:
            moves: for x, y and z of the new grid the axis of this one (0 is x), and whether it is turned round.
        """
        turned = self.transposed([2 - source for source, _ in reversed(moves)])
        flips = [flipped for _, flipped in reversed(moves)]
        parts = {}
        for value, one in turned.of.items():
            axes = zip(one.start, one.array.shape, turned.shape, flips, strict=True)
            start = tuple(length - first - size if flip else first for first, size, length, flip in axes)
            array = one.array[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
            parts[value] = PlacedMargins(np.ascontiguousarray(array), start)
        return replace(turned, of=parts)

    def pasted(self, start: Sequence[int], shape: Sequence[int]) -> Margins:
        """On a larger grid, in which this one begins at the index ``start``."""
        parts = {
            value: PlacedMargins(one.array, tuple(first + by for first, by in zip(one.start, start, strict=True)))
            for value, one in self.of.items()
        }
        return replace(self, shape=tuple(shape), of=parts)

    def through(self, way: Callable[[np.ndarray], np.ndarray]) -> Margins:
        """On another grid.

        Args:
            way: brings whole arrays of uint8 there; 0 is what lies outside. One array at a time is made.
        """
        parts, shape = {}, self.shape
        for value, one in self.of.items():
            whole = np.zeros(self.shape, np.uint8)
            whole[one.box] = one.array.view(np.uint8) ^ 128  # which adds 128: LOWEST is 0
            moved = way(whole)
            shape = moved.shape
            del whole
            parts[value] = PlacedMargins((moved ^ 128).view(np.int8), (0, 0, 0)).trimmed()
        return replace(self, shape=tuple(shape), of=parts)

    def only(self, values: Sequence[int]) -> Margins:
        """Of these labels, and of background."""
        return replace(self, of={value: one for value, one in self.of.items() if value in (BACKGROUND, *values)})

    def renamed(self, values: Mapping[int, int]) -> Margins:
        """Of labels that have become others."""
        parts = {values.get(value, value): one for value, one in self.of.items()}
        return replace(self, of=parts, order=self.order and tuple(values.get(value, value) for value in self.order))

    @staticmethod
    def joined(several: Sequence[Margins]) -> Margins:
        """Those of different labels in different places of one grid; between the places there is background."""
        parts = {value: one for margins in several for value, one in margins.of.items() if value != BACKGROUND}
        grounds = [margins.of[BACKGROUND] for margins in several if BACKGROUND in margins.of]
        if grounds:
            box = box_around(*(one.box for one in grounds))
            ground = np.full([part.stop - part.start for part in box], HIGHEST, np.int8)
            for one in grounds:
                place = ground[relative(one.box, box)]
                np.minimum(place, one.array, out=place)
            parts[BACKGROUND] = PlacedMargins(ground, tuple(part.start for part in box))
        orders = [value for margins in several for value in margins.order or ()]
        return replace(several[0], of=parts, order=None if several[0].order is None else tuple(orders))

    def agreeing(self, labels: np.ndarray) -> Margins:
        """Changed so that the label of each voxel is the one of the label map: steps after the network, such as leaving
        out islands, change labels and not logits. A label that was taken away can not come back; one that was put there
        is in doubt.

        Args:
            labels: (z, y, x) of the grid.
        """
        parts, order = {}, self.order or ()
        for value, one in self.of.items():
            found, array = labels[one.box], one.array
            positive, own = array >= 0, found == value
            # an earlier region may well lie under the one that is seen
            seen = own if self.order is None else np.isin(found, order[order.index(value) :])
            wrong, missing = positive & ~seen, own & ~positive
            if wrong.any() or missing.any():
                array = np.where(wrong, np.int8(LOWEST), np.where(missing, np.int8(0), array))
            parts[value] = PlacedMargins(array, one.start)
        return replace(self, of=parts)

    def to_text(self) -> str:
        """A line that says what it is, and one for each label; compressed, so that a scene can hold it."""
        head = {"version": _VERSION, "shape": self.shape, "order": self.order}
        lines = [json.dumps(head)]
        for value, one in self.of.items():
            data = zlib.compress(np.ascontiguousarray(one.array).data, 1) if one.array.size else b""
            numbers = " ".join(map(str, (value, *one.start, *one.array.shape)))
            lines.append(f"{numbers} {base64.b64encode(data).decode()}")
        return "\n".join(lines)

    def under(self, newer: Margins, box: Box) -> Margins:
        """These, and the newer ones in the box that those are of; of the labels that both have."""
        return replace(self, of=_Layered(self.of, newer.of, box))

    @classmethod
    def from_text(cls, text: str, start: Sequence[int] = (0, 0, 0), whole: Sequence[int] | None = None) -> Margins:
        """The inverse of :meth:`to_text`; each label is unpacked when it is asked for.

        Args:
            start, whole: paste them into a grid of the shape ``whole`` as :meth:`pasted` does.

        Raises:
            ValueError: it is no such text, or of a newer USEMA.
        """
        # Without copies of the lines: in a large volume the text is, too.
        ends = [*(found.start() for found in re.finditer("\n", text)), len(text)]
        try:
            document = json.loads(text[: ends[0]])
            if document["version"] != _VERSION:
                raise ValueError("these margins are of another version")
            shape = tuple(int(one) for one in document["shape"])
            order = None if document["order"] is None else tuple(int(one) for one in document["order"])
            lines = [(first + 1, last) for first, last in pairwise(ends) if last > first + 1]
            packed = dict(_parsed(text, place, shape, start) for place in lines)
        except (TypeError, KeyError, IndexError, AttributeError) as error:
            raise ValueError(f"these are no margins: {error}") from error
        return cls(tuple(whole or shape), _Packed(text, packed), order)


class _Packed(Mapping):
    """Unpacks what is asked for, and keeps it."""

    def __init__(self, text: str, packed: dict[int, tuple[tuple[int, ...], tuple[int, ...], slice]]):
        self._text, self._packed = text, packed
        self._unpacked: dict[int, PlacedMargins] = {}

    def __getitem__(self, value: int) -> PlacedMargins:
        if value not in self._unpacked:
            start, size, place = self._packed[value]
            self._unpacked[value] = PlacedMargins(_unpacked(self._text[place], size), start)
        return self._unpacked[value]

    def __contains__(self, value):
        return value in self._packed  # else it would be unpacked to see that it is there

    def __iter__(self):
        return iter(self._packed)

    def __len__(self):
        return len(self._packed)


class _Layered(Mapping):
    """Margins of one run in a box, and of an earlier one around it; made when they are asked for, and kept."""

    def __init__(self, older: Mapping[int, PlacedMargins], newer: Mapping[int, PlacedMargins], box: Box):
        self._older, self._newer, self._box = older, newer, box
        self._made: dict[int, PlacedMargins] = {}

    def __getitem__(self, value: int) -> PlacedMargins:
        if value not in self._made:
            older, newer = self._older[value], self._newer[value]
            around = box_around(older.box, newer.box)
            array = older.on(around)
            inner = common_box(around, self._box)
            if inner is not None:
                array[relative(inner, around)] = newer.on(inner)
            self._made[value] = PlacedMargins(array, tuple(part.start for part in around))
        return self._made[value]

    def __contains__(self, value):
        return value in self._older and value in self._newer  # else it would be made to see that it is there

    def __iter__(self):
        return (value for value in self._older if value in self._newer)

    def __len__(self):
        return sum(1 for _ in self)


def _parsed(text: str, line: tuple[int, int], shape: Sequence[int], offset: Sequence[int]) -> tuple[int, tuple]:
    first, last = line
    *numbers, _ = text[first : min(last, first + _NUMBERS)].split(" ", 7)  # what follows them is long
    if len(numbers) != 7:
        raise ValueError("these are no margins")
    value, *place = (int(one) for one in numbers)
    start, size = tuple(place[:3]), tuple(place[3:])
    ends = [one + length for one, length in zip(start, size, strict=True)]
    inside = all(end <= length for end, length in zip(ends, shape, strict=True))
    if min(place) < 0 or not inside or math.prod(size) > MOST_VOXELS:
        raise ValueError("these margins lie nowhere")
    packed = slice(first + len(" ".join(numbers)) + 1, last)
    return value, (tuple(one + by for one, by in zip(start, offset, strict=True)), size, packed)


def _unpacked(text: str, size: Sequence[int]) -> np.ndarray:
    count = math.prod(size)
    try:
        data = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), count + 1) if count else b""
    except (binascii.Error, zlib.error) as error:
        raise ValueError(f"these margins are damaged: {error}") from error
    if len(data) != count:
        raise ValueError("these margins are damaged")
    return np.frombuffer(data, np.int8).reshape(size)
