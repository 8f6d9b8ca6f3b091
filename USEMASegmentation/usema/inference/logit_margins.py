"""Margins from logits, slab by slab, without ever holding the logits of a volume; see ``usema.volumes.margins``."""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence

import numpy as np
import torch

from ..models.parts import SIGMOID
from ..volumes.geometry import Geometry
from ..volumes.margins import BACKGROUND, FURTHEST, HIGHEST, LOWEST, NEAR, STEP, Margins, PlacedMargins
from ..volumes.masks import Box, box_around, relative
from ..volumes.volume import moves_between
from .outputs import FirstLargest, Outputs
from .pre_resampling import back_to

# What all boxes together may take. Where that is not enough, the labels with the largest boxes go without.
MOST_BYTES = 768 * 2**20
_BLOCK = 2**20  # bytes that are asked for at a time
_LEAST_PROBABILITY = 1e-6  # so that a mean of probabilities has a logarithm
_MANY = 10  # labels; of fewer, looking for those that are near nowhere takes as long as their margins
_PAYS = 0.7  # of them: with more, leaving out the others costs what it saves


def margins_of(
    outputs: Outputs, scores: torch.Tensor, boundary: float = 0.0, first: FirstLargest | None = None
) -> tuple[list[int], torch.Tensor]:
    """The margins of labels, in 8 bits.

    Args:
        scores: (outputs, ...) logits, or with the boundary 0.5 probabilities.
        first: their ``Outputs.first_largest``, if that is known.

    Returns:
        the labels in the order in which later ones are written over earlier ones, without background for regions, and
        of many classes perhaps without some whose margin is LOWEST everywhere; int8 (labels, ...).
    """
    if outputs.activation == SIGMOID:
        positive = scores > boundary
        margins = (
            scores.clamp(_LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY).logit() if boundary else outputs.scaled(scores)
        )
        return list(outputs.values), _in_steps(margins, positive)
    values = list(dict.fromkeys(outputs.values))
    if len(values) < outputs.count:  # classes that share a label: the likeliest counts
        rows = torch.tensor([values.index(value) for value in outputs.values], device=scores.device)
        shape = (len(values), *scores.shape[1:])
        merged = torch.full(shape, -math.inf, device=scores.device, dtype=scores.dtype)
        for row, one in zip(rows.tolist(), scores, strict=True):
            torch.maximum(merged[row], one, out=merged[row])
        scores, first = merged, None
    if boundary:
        scores, first = scores.clamp_min(_LEAST_PROBABILITY).log(), None
    scores = scores.float()
    chosen, best = first or outputs.first_largest(scores)
    margins, winner, temperature = scores - best[None], chosen.long(), 1.0 if boundary else outputs.temperatures[0]
    if len(values) >= _MANY and scores.device.type == "cpu":
        near = margins.flatten(1).amax(dim=1) >= -FURTHEST * temperature
        if near.sum() < _PAYS * len(values):
            values = [value for value, is_near in zip(values, near.tolist(), strict=True) if is_near]
            margins, winner = margins[near], (near.cumsum(dim=0) - 1)[winner]
    winner = winner[None]
    margins.scatter_(0, winner, -math.inf)
    lead = margins.amax(dim=0, keepdim=True).neg_()  # of the winner over the second
    if temperature != 1:
        margins /= temperature
        lead /= temperature
    # All behind but the winner, which is one of many: the others are computed as if there were none.
    steps = margins.div_(STEP).floor_().clamp_(LOWEST, -1).to(torch.int8)
    return values, steps.scatter_(0, winner, lead.div_(STEP).floor_().clamp_(0, HIGHEST).to(torch.int8))


def _in_steps(margins: torch.Tensor, positive: torch.Tensor) -> torch.Tensor:
    steps = (margins / STEP).floor_()
    won, lost = steps.clamp(0, HIGHEST), steps.clamp_(LOWEST, -1)
    return torch.where(positive, won, lost).to(torch.int8)


def margins_on(margins: Margins, geometry: Geometry, input_geometry: Geometry) -> Margins:
    """Margins as the network gave them, on the input's grid.

    Args:
        geometry: the input's grid with its axes as the model wants them; where they are not on it, it was resampled.
    """
    if margins.shape != geometry.shape:
        margins = margins.through(lambda values: back_to(values, geometry.shape))
    return margins.moved(moves_between(geometry, input_geometry))


class _Pieces:
    """Copies of the margins of one label, held apart from where memory is asked for otherwise.

    Whatever small stays between large arrays that come and go with each slab keeps the C library from giving the memory
    of these out again: of 256 x 256 x 350 voxels and 20 classes, 7 GB stayed. So not even arrays are held, but bytes in
    pages of their own.
    """

    def __init__(self):
        self._blocks: list[mmap.mmap] = []
        self._used = 0  # bytes of the last block
        self._places: list[tuple] = []  # start, shape, block, offset
        self.bytes = 0

    def add(self, array: np.ndarray, start: tuple[int, int, int]) -> None:
        if not self._blocks or self._used + array.size > len(self._blocks[-1]):
            self._blocks.append(mmap.mmap(-1, max(array.size, _BLOCK)))
            self._used = 0
        self._places.append((start, array.shape, len(self._blocks) - 1, self._used))
        self._array(self._places[-1])[...] = array
        self._used += array.size
        self.bytes += array.size

    @property
    def box(self) -> Box:
        """Around all of them."""
        starts, shapes = (np.array([place[part] for place in self._places]) for part in (0, 1))
        low, high = starts.min(axis=0), (starts + shapes).max(axis=0)
        return tuple(slice(int(one), int(other)) for one, other in zip(low, high, strict=True))

    def joined(self) -> PlacedMargins:
        """All of them in their box; of a region with two outputs the larger one."""
        box = self.box
        start = tuple(part.start for part in box)
        whole = np.full([part.stop - part.start for part in box], LOWEST, np.int8)
        for place in self._places:
            piece = PlacedMargins(self._array(place), place[0])
            target = whole[relative(piece.box, box)]
            np.maximum(target, piece.array, out=target)
        return PlacedMargins(whole, start)

    def _array(self, place: tuple) -> np.ndarray:
        _, shape, block, offset = place
        return np.frombuffer(self._blocks[block], np.int8, math.prod(shape), offset).reshape(shape)


class MarginCollector:
    """Takes the logits of a volume, slices at a time, and keeps the margins near each label.

    Args:
        shape: (a, b, c) of the grid that the slices are of.
        outputs: what the network's outputs mean.
        most_bytes: what the boxes of all labels may take.

    Attributes:
        left_out: labels that would have taken too much.
    """

    def __init__(self, shape: Sequence[int], outputs: Outputs, most_bytes: int = MOST_BYTES):
        self.left_out: set[int] = set()
        self._shape, self._outputs, self._most = tuple(shape), outputs, most_bytes
        self._pieces: dict[int, _Pieces] = {}
        self._bytes = 0

    @torch.inference_mode()
    def add(
        self,
        begin: int,
        scores: torch.Tensor,
        boundary: float = 0.0,
        row: int = 0,
        outputs: Outputs | None = None,
        first: FirstLargest | None = None,
    ) -> None:
        """Take slices (outputs, n, rows, c) from ``begin`` and ``row`` on; see `margins_of`.

        Args:
            outputs: of the scores, where they are some of all; the others have the least margin.
            first: the scores' ``Outputs.first_largest``, if that is known.
        """
        values, found = margins_of(outputs or self._outputs, scores, boundary, first)
        # The largest of each line and column, then of these: far fewer numbers than voxels, for each label.
        lines, columns = found.amax(dim=3), found.amax(dim=2)
        along = [one.cpu().numpy() > NEAR for one in (lines.amax(dim=2), lines.amax(dim=1), columns.amax(dim=1))]
        first_near = np.stack([near.argmax(axis=1) for near in along], axis=1).tolist()
        behind_near = np.stack([near.shape[1] - near[:, ::-1].argmax(axis=1) for near in along], axis=1).tolist()
        margins, boxes = found.cpu().numpy(), []
        for index in np.flatnonzero(along[0].any(axis=1)).tolist():
            if values[index] != BACKGROUND:
                boxes.append(tuple(map(slice, first_near[index], behind_near[index])))
                self._keep(values[index], (begin, row), margins[index], boxes[-1])
        if boxes and BACKGROUND in values:
            self._keep(BACKGROUND, (begin, row), margins[values.index(BACKGROUND)], box_around(*boxes))

    def finish(self) -> Margins:
        """What was kept, each label in the box around its pieces; what the pieces took is free again."""
        self._leave_out()
        order = None if self._outputs.activation != SIGMOID else tuple(dict.fromkeys(self._outputs.values))
        parts = {}
        for value in sorted(self._pieces):
            parts[value] = self._pieces.pop(value).joined()
        return Margins(self._shape, parts, order)

    def _keep(self, value: int, first: tuple[int, int], margins: np.ndarray, box) -> None:
        if value in self.left_out:
            return
        start = (first[0] + box[0].start, first[1] + box[1].start, box[2].start)
        self._pieces.setdefault(value, _Pieces()).add(margins[box], start)
        self._bytes += math.prod(part.stop - part.start for part in box)
        if self._bytes > self._most:
            self._leave_out()

    def _leave_out(self) -> None:
        """The largest labels, until the boxes around the others are not too much."""

        sizes = {
            value: math.prod(part.stop - part.start for part in pieces.box) for value, pieces in self._pieces.items()
        }
        while sum(sizes.values()) > self._most:
            largest = max(sizes, key=sizes.get)
            self._bytes -= self._pieces.pop(largest).bytes
            del sizes[largest]
            self.left_out.add(largest)
