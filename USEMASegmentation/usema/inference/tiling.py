"""Where the tiles of sliding-window inference lie, and how much each of their voxels counts.

Positions, Gaussian importance and padding are those of nnU-Net 2.5 (``sliding_window_prediction.py``,
``nnUNetPredictor``, and ``pad_nd_image`` of acvl_utils).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch

Tile = tuple[int, int, int]  # the number of its start along each axis


def tile_starts(size: int, tile: int, overlap: float) -> list[int]:
    """First voxel of each tile along one axis of ``size`` >= ``tile``: evenly spread, the last one ends at the border.

    As nnU-Net's ``compute_steps_for_sliding_window``; where steps are below one voxel, a start may come twice.
    """
    # Rounded, because 1 - 0.9 is a little below 0.1, which is enough for one tile more than nnU-Net has.
    step = tile * round(1 - overlap, 9)
    count = math.ceil((size - tile) / step) + 1
    return [round((size - tile) / (count - 1) * i) for i in range(count)] if count > 1 else [0]


def importance(tile: int) -> np.ndarray:
    """Gaussian importance along one axis, float64: 1 at voxel tile // 2, sigma an eighth of the tile.

    The product over the axes is nnU-Net's ``compute_gaussian``. Nothing is zero that would have to be replaced: the
    border is at most four sigmas away, where it is exp(-8).
    """
    return np.exp(-0.5 * ((np.arange(tile) - tile // 2) / (tile / 8)) ** 2)


def tile_weights(starts: Sequence[int], tile: int, size: int) -> list[torch.Tensor]:
    """Share of each tile in the result along one axis: float32 (tile,) for each start, summing to 1 in every voxel.

    The importance map is a product over the axes and the tiles are a full grid, so its sum over all tiles is a
    product too, and the normalisation can be done axis by axis, here. That needs no volume of weights, and no
    division of tiny numbers by tiny numbers at the border of the volume.
    """
    profile = importance(tile)
    total = np.zeros(size)
    for start in starts:
        total[start : start + tile] += profile
    return [torch.from_numpy((profile / total[start : start + tile]).astype(np.float32)) for start in starts]


@dataclass(frozen=True)
class Tiling:
    """The grid of tiles over a volume. Coordinates are those of the padded volume.

    Attributes:
        size: of the volume.
        padded: size once zeros make it at least as large as a tile.
        tile: size of a tile; one plane high for a 2D network.
        starts: first voxel of the tiles, for each axis.
        weights: share of these tiles in the result, for each axis.
    """

    sums_to_one: ClassVar[bool] = True  # the weights of all tiles, in every voxel

    size: tuple[int, int, int]
    padded: tuple[int, int, int]
    tile: tuple[int, int, int]
    starts: tuple[list[int], ...]
    weights: tuple[list[torch.Tensor], ...]

    @classmethod
    def of(cls, size: Sequence[int], patch_size: Sequence[int], overlap: float) -> Tiling:
        """Tiles over a volume of ``size``; with two numbers in ``patch_size``, over each plane of the first axis."""
        flat = len(patch_size) == 2
        tile = (1, *patch_size) if flat else tuple(patch_size)
        padded = tuple(map(max, size, tile))
        starts = [tile_starts(s, t, overlap) for s, t in zip(padded, tile, strict=True)]
        if flat:
            starts[0] = list(range(size[0]))  # planes do not overlap
        weights = tuple(tile_weights(*axis) for axis in zip(starts, tile, padded, strict=True))
        return cls(tuple(size), padded, tile, tuple(starts), weights)

    @property
    def count(self) -> int:
        """How many tiles there are."""
        return math.prod(map(len, self.starts))

    @property
    def tiles(self) -> list[Tile]:
        """All tiles in the order in which they run: row by row along the first axis."""
        return list(itertools.product(*(range(len(starts)) for starts in self.starts)))

    @property
    def crop(self) -> tuple[slice, slice, slice]:
        """Where the volume lies in the padded volume: in the middle, an odd voxel of padding behind it."""
        below = [(p - s) // 2 for p, s in zip(self.padded, self.size, strict=True)]
        return tuple(slice(b, b + s) for b, s in zip(below, self.size, strict=True))

    @property
    def open_voxels(self) -> int:
        """Voxels of the planes that unfinished tiles touch, at most: a row of tiles and the step to the next row."""
        steps = [b - a for a, b in itertools.pairwise(self.starts[0])]
        return (self.tile[0] + max(steps, default=0)) * self.padded[1] * self.padded[2]

    def pad(self, data: np.ndarray) -> np.ndarray:
        """(C, *size) -> (C, *padded), with zeros; not copied if nothing is missing."""
        if self.padded == self.size:
            return data
        pads = [(c.start, p - c.stop) for c, p in zip(self.crop, self.padded, strict=True)]
        return np.pad(data, [(0, 0), *pads])

    def slices(self, tile: Tile) -> tuple[slice, slice, slice]:
        """Where a tile lies."""
        first = [starts[i] for starts, i in zip(self.starts, tile, strict=True)]
        return tuple(slice(f, f + t) for f, t in zip(first, self.tile, strict=True))

    def weight(self, tile: Tile) -> torch.Tensor:
        """Share of a tile in the result: float32, shape of the tile."""
        first, second, third = (weights[i] for weights, i in zip(self.weights, tile, strict=True))
        return first[:, None, None] * second[:, None] * third

    def on(self, device: str) -> Tiling:
        """The same, with its weights on a device."""
        return replace(self, weights=tuple([weight.to(device) for weight in axis] for axis in self.weights))

    def finished_planes(self, done: int) -> int:
        """How many planes no tile touches any more once the first ``done`` tiles have run."""
        row = done // (len(self.starts[1]) * len(self.starts[2]))
        return self.starts[0][row] if row < len(self.starts[0]) else self.padded[0]
