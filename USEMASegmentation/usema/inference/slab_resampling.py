"""Logits from the network's grid to the cropped volume's, slab by slab, as nnU-Net resamples them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from .resampling import linear_taps, nearest_indices

if TYPE_CHECKING:
    from .nnunet_recipe import Preprocessed

# Logits (outputs x voxels) worked on at once. 4 million is 16 MB: larger chunks fall out of a processor's cache and
# took 1.5 times as long, smaller ones are a slice or less.
CHUNK = 2**22


class SlabResampler:
    """Takes slabs of logits and gives chunks of them on the grid of the cropped volume, each as soon as it can be made.

    Resampling along the first axis needs two neighbouring slices at most, so beside the slab itself one slice of
    logits is held, and chunks of some 16 MB or one slice of all outputs, on the device that the logits come from.
    """

    def __init__(self, preprocessed: Preprocessed, outputs: int):
        self._network_shape = (outputs, *preprocessed.data.shape[1:])
        self._separate, self._exact = preprocessed.separate, preprocessed.exact
        length, *self._plane = preprocessed.cropped_shape
        if self._separate == 0:
            nearest = nearest_indices(self._network_shape[1], length, self._exact)
            self._taps = list(zip(nearest, nearest, [0.0] * length, strict=True))
        else:
            self._taps = list(zip(*linear_taps(self._network_shape[1], length), strict=True))
        self._received = 0  # slices of logits
        self._given = 0  # slices of the result
        self._last: torch.Tensor | None = None  # the last slice of logits of the slab before

    @torch.inference_mode()
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
        step = max(1, CHUNK // (outputs * max(math.prod(plane), math.prod(self._plane))))
        for begin in range(self._given, ready, step):
            yield begin, self._chunk(begin, min(begin + step, ready), start, logits)
        self._given = ready
        self._last = logits[:, -1].clone()  # a copy, so that the slab can be freed

    def check_complete(self) -> None:
        """Raises ValueError where slabs are missing."""
        if self._received != self._network_shape[1]:
            raise ValueError(f"{self._received} of {self._network_shape[1]} slices of logits were received")

    def _chunk(self, begin: int, end: int, start: int, logits: torch.Tensor) -> torch.Tensor:
        """The slices ``begin`` to ``end`` of the result from the slab that starts at slice ``start``."""

        def source(index: int) -> torch.Tensor:
            return (self._last if index < start else logits[:, index - start]).float()

        slices = []
        for lower, upper, weight in self._taps[begin:end]:
            slices.append(torch.lerp(source(lower), source(upper), float(weight)) if weight else source(lower))
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
