"""Logits from the network's grid to the cropped volume's, slab by slab, as nnU-Net resamples them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from .resampling import linear_taps, nearest_indices
from .winners import can_win

if TYPE_CHECKING:
    from .nnunet_recipe import Preprocessed

# Logits (outputs x voxels) worked on at once. A million is 4 MB: with 20 classes on a grid twice as fine 16 MB, which
# fall out of a processor's cache, took 1.7 times as long, and 2 MB as long.
CHUNK = 2**20
_ON_A_GPU = 16  # times as many: each step costs a launch there, whatever its size
_TOGETHER = 8  # slices of logits in which it is asked which outputs can win


def chunk_of(device: torch.device) -> int:
    """How many logits are worked on at once on a device."""
    return CHUNK if device.type == "cpu" else _ON_A_GPU * CHUNK


class SlabResampler:
    """Takes slabs of logits and gives chunks of them on the grid of the cropped volume, each as soon as it can be made.

    Resampling along the first axis needs two neighbouring slices at most, so beside the slab itself one slice of
    logits is held, and chunks of some 4 MB or one slice of all outputs, on the device that the logits come from.

    Attributes:
        keeps_grid: both grids are one; chunks are views of the slabs then.
    """

    def __init__(self, preprocessed: Preprocessed, outputs: int):
        self._network_shape = (outputs, *preprocessed.data.shape[1:])
        self._separate, self._exact = preprocessed.separate, preprocessed.exact
        length, *self._plane = preprocessed.cropped_shape
        self.keeps_grid = self._network_shape[1:] == tuple(preprocessed.cropped_shape)
        if self._separate == 0 or self.keeps_grid:
            nearest = nearest_indices(self._network_shape[1], length, self._exact)
            self._taps = list(zip(nearest, nearest, [0.0] * length, strict=True))
        else:
            self._taps = list(zip(*linear_taps(self._network_shape[1], length), strict=True))
        # Else the comparison that is saved costs less than to find out: 100 classes, 0.2 against 0.4 s.
        self._grows = math.prod(preprocessed.cropped_shape) > 1.5 * math.prod(self._network_shape[1:])
        self._received = 0  # slices of logits
        self._given = 0  # slices of the result
        self._last: torch.Tensor | None = None  # the last slice of logits of the slab before

    def push(self, start: int, logits: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """Take the next slab; to be iterated over to its end.

        Args:
            start: its first slice along the network's first axis; slabs follow each other without gap or overlap.
            logits: (outputs, d, b, c), finite, of any floating type, on any device.

        Yields:
            (start, logits): float32 (outputs, n, b, c) of the slices start to start + n of the cropped volume, in
            order.

        Raises:
            ValueError: the slab is not the one that follows, or not of the volume's shape.
        """
        return ((begin, chunk) for begin, chunk, _ in self.push_winners(start, logits, None))

    @torch.inference_mode()
    def push_winners(
        self, start: int, logits: torch.Tensor, slack: float | None
    ) -> Iterator[tuple[int, torch.Tensor, torch.Tensor | None]]:
        """As ``push``, but of each chunk only the outputs that may be the largest somewhere in it, and which they are.

        Args:
            slack: see ``winners.can_win``; None: all outputs.

        Yields:
            (start, logits, outputs): the outputs' indices; None: all.
        """
        outputs, depth, *plane = logits.shape
        expected = (self._network_shape[0], *self._network_shape[2:])
        if start != self._received or (outputs, *plane) != expected or start + depth > self._network_shape[1]:
            raise ValueError(
                f"slab of shape {tuple(logits.shape)} at {start}: {self._received} slices of the shape "
                f"{self._network_shape} were received"
            )
        self._received += depth
        ready = self._given
        while ready < len(self._taps) and self._taps[ready][1] < self._received:
            ready += 1
        for begin, end in self._groups(ready):
            part, kept = self._sources(begin, end, start, logits), None
            if slack is not None and self._grows:
                kept = can_win(part, slack)
            count = outputs if kept is None else len(kept)
            step = max(1, chunk_of(logits.device) // (count * max(math.prod(plane), math.prod(self._plane))))
            for at in range(begin, end, step):
                yield at, self._chunk(at, min(at + step, end), start, logits, kept), kept
        self._given = ready
        self._last = logits[:, -1].clone()  # a copy, so that the slab can be freed

    def _groups(self, ready: int) -> Iterator[tuple[int, int]]:
        """(begin, end) of slices of the result, up to ``ready``, that are made of a few slices of logits."""
        begin = self._given
        while begin < ready:
            end = begin + 1
            while end < ready and self._taps[end][1] - self._taps[begin][0] < _TOGETHER:
                end += 1
            yield begin, end
            begin = end

    def check_complete(self) -> None:
        """Raises ValueError where slabs are missing."""
        if self._received != self._network_shape[1]:
            raise ValueError(f"{self._received} of {self._network_shape[1]} slices of logits were received")

    def _sources(self, begin: int, end: int, start: int, logits: torch.Tensor) -> list[torch.Tensor]:
        """What the slices ``begin`` to ``end`` of the result are made of, (outputs, n, b, c) each, in order."""
        first, last = self._taps[begin][0], self._taps[end - 1][1]
        before = [] if first >= start else [self._last[:, None]]
        return [*before, logits[:, max(first, start) - start : last + 1 - start]]

    def _chunk(self, begin: int, end: int, start: int, logits: torch.Tensor, kept: torch.Tensor | None) -> torch.Tensor:
        """The slices ``begin`` to ``end`` of the result from the slab that starts at slice ``start``."""
        if self.keeps_grid:
            return logits[:, begin - start : end - start].float()
        planes = [
            plane.float() if kept is None else plane[kept].float()
            for part in self._sources(begin, end, start, logits)
            for plane in part.unbind(1)
        ]
        first, slices = self._taps[begin][0], []
        for lower, upper, weight in self._taps[begin:end]:
            one, other = planes[lower - first], planes[upper - first]
            slices.append(torch.lerp(one, other, float(weight)) if weight else one)
        return self._resample_in_plane(torch.stack(slices, dim=1))

    def _resample_in_plane(self, chunk: torch.Tensor) -> torch.Tensor:
        """(K, n, b, c) on the network's grid to the input's; nearest along the separate axis, linear otherwise."""
        if self._separate in (1, 2):
            dim = self._separate + 1
            nearest = nearest_indices(chunk.shape[dim], self._plane[self._separate - 1], self._exact)
            chunk = chunk.index_select(dim, torch.from_numpy(nearest).to(chunk.device))
        if list(chunk.shape[2:]) != self._plane:
            chunk = functional.interpolate(chunk, size=self._plane, mode="bilinear", align_corners=False)
        return chunk
