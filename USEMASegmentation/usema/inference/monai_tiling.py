"""Where the tiles of MONAI's sliding window lie, and how much each of their voxels counts.

Positions and importance are those of MONAI 1.5 (``monai.inferers.sliding_window_inference`` with the mode "gaussian").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import torch

from .tiling import Tile, Tiling

_SIGMA = 0.125  # of a tile's side
_LEAST = 0.001


class MonaiTiling(Tiling):
    """Tiles follow each other at one distance, and the last is moved back to the border.

    Their importance is a Gaussian that is clamped below, hence no product over the axes: the sum over all tiles cannot
    be known axis by axis, and is collected beside the logits. ``weights`` is the one map that all tiles have.
    """

    sums_to_one: ClassVar[bool] = False

    @classmethod
    def of(cls, size: Sequence[int], patch_size: Sequence[int], overlap: float) -> MonaiTiling:
        """Tiles over a volume of ``size``; ``patch_size`` has three numbers."""
        tile = tuple(patch_size)
        padded = tuple(map(max, size, tile))
        starts = tuple(monai_starts(s, t, overlap) for s, t in zip(padded, tile, strict=True))
        return cls(tuple(size), padded, tile, starts, monai_importance(tile))

    def weight(self, tile: Tile) -> torch.Tensor:
        """Importance of each voxel of a tile: float32, shape of the tile."""
        return self.weights

    def on(self, device: str) -> MonaiTiling:
        return replace(self, weights=self.weights.to(device))


def monai_starts(size: int, tile: int, overlap: float) -> list[int]:
    """First voxel of each tile along one axis of ``size`` >= ``tile``."""
    step = max(1, int(tile * (1 - overlap)))
    return [*range(0, size - tile, step), size - tile]


def monai_importance(tile: Sequence[int]) -> torch.Tensor:
    """Float32, of the shape ``tile``: 1 in its middle, nowhere below a thousandth."""
    result = torch.ones(())
    for side in tile:
        distance = torch.arange(side, dtype=torch.float32) - (side - 1) / 2
        result = result[..., None] * torch.exp(-0.5 * (distance / (_SIGMA * side)) ** 2)
    return result.clamp(min=max(_LEAST, result.min().item()))
