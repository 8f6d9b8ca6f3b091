"""The logits of sliding-window inference while tiles still add to them."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence

import torch

from .tiling import Tile, Tiling


def _zeros(shape: tuple[int, ...], device: str) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.float32, device=device)


class RollingLogits:
    """Weighted logits of the planes that unfinished tiles touch; where the tiles' weights do not sum to one, their sum,
    too, by which finished logits are divided.

    Planes are kept in blocks, cut wherever a row of tiles starts or ends. So a tile covers whole blocks, and a
    finished block is handed over as it is: nothing is shifted or copied.

    ``allocate`` makes zeros of a shape on a device; tests limit it.
    """

    def __init__(self, tiling: Tiling, num_classes: int, allocate: Callable[..., torch.Tensor] = _zeros):
        self.tiling = tiling
        self._num_classes = num_classes
        self._channels = num_classes + (not tiling.sums_to_one)  # the last one is the sum of weights
        self._allocate = allocate
        self._cuts = sorted({cut for start in tiling.starts[0] for cut in (start, start + tiling.tile[0])})
        self._weighing: dict[str, Tiling] = {}  # by device: a tile's weights are made where they are used
        self._blocks: dict[int, torch.Tensor] = {}  # by first plane, (channels, planes, b, c)

    @property
    def planes(self) -> int:
        """How many planes are held."""
        return sum(block.shape[1] for block in self._blocks.values())

    def open(self, tiles: Sequence[Tile], device: str) -> None:
        """Provides the blocks that ``tiles`` cover on ``device``, where the others move too."""
        self._blocks = {start: block.to(device) for start, block in self._blocks.items()}
        for start, stop in sorted({span for tile in tiles for span in self._spans(tile)}):
            if start not in self._blocks:
                shape = (self._channels, stop - start, *self.tiling.padded[1:])
                self._blocks[start] = self._allocate(shape, device)

    @torch.inference_mode()
    def add(self, tiles: Sequence[Tile], logits: torch.Tensor) -> None:
        """Adds the logits (B, K, *tile) of ``tiles``, which are open: all of them, or none if memory is short."""
        device = next(iter(self._blocks.values())).device
        logits = logits.to(device)
        if str(device) not in self._weighing:
            self._weighing[str(device)] = self.tiling.on(str(device))
        weights = [self._weighing[str(device)].weight(tile) for tile in tiles]
        # From here on nothing is allocated.
        for tile, tile_logits, weight in zip(tiles, logits, weights, strict=True):
            rows, b, c = self.tiling.slices(tile)
            for start, stop in self._spans(tile):
                part = slice(start - rows.start, stop - rows.start)
                block = self._blocks[start][:, :, b, c]
                block[: self._num_classes].addcmul_(tile_logits[:, part], weight[part])
                if self._channels > self._num_classes:
                    block[-1] += weight[part]

    def finished(self, planes: int) -> Iterator[tuple[int, torch.Tensor]]:
        """Hands over the blocks among the first ``planes``, without the padding."""
        for start in sorted(self._blocks):
            if start < planes:
                # Where the first axis is padded there is a single block; else its crop is the identity.
                block = self._blocks.pop(start)[(slice(None), *self.tiling.crop)]
                if self._channels > self._num_classes:
                    block[:-1] /= block[-1]
                yield start, block[: self._num_classes]

    def _spans(self, tile: Tile) -> list[tuple[int, int]]:
        """(first plane, behind the last) of the blocks that a tile covers."""
        rows = self.tiling.slices(tile)[0]
        first, last = bisect_left(self._cuts, rows.start), bisect_left(self._cuts, rows.stop)
        return list(itertools.pairwise(self._cuts[first : last + 1]))
