"""Which of many classes can win anywhere in some planes of logits: the others need not be resampled and compared."""

from __future__ import annotations

import torch
from torch.nn import functional

_FEW = 10  # classes; with fewer, looking for those that cannot win takes as long as comparing all
_SIDE = 16  # voxels of a block's side
_ROUNDING = 0.01  # by how much resampling may lift a logit above all that it is made of, with much to spare


def can_win(parts: list[torch.Tensor], slack: float) -> torch.Tensor | None:
    """The classes that may be the largest somewhere, once the planes are resampled linearly, or by the nearest voxel.

    Whatever a voxel between others becomes lies between the least and the largest of them. So a class whose largest
    logit in a block of voxels is below the least of another one wins nowhere there.

    Args:
        parts: planes of logits (K, n, b, c), next to each other, on one device.
        slack: also those that are less than this below the largest; 0 or more.

    Returns:
        their indices, rising, with class 0 in any case; None: all, or it does not pay to ask.
    """
    classes = len(parts[0])
    if classes < _FEW or parts[0].device.type != "cpu":
        return None
    largest, least = (
        _pooled(torch.stack([extreme(part) for part in parts]).amax(dim=0))
        for extreme in (lambda part: part.amax(dim=1).float(), lambda part: part.amin(dim=1).float().neg_())
    )
    bound = least.neg_().amax(dim=0) - (slack + _ROUNDING)  # the largest of the least
    there = (largest >= bound).flatten(1).any(dim=1)
    there[0] = True
    return None if bool(there.all()) else there.nonzero()[:, 0]


def _pooled(planes: torch.Tensor) -> torch.Tensor:
    """(K, b, c) to the largest value in each block and its next neighbours, between which voxels may be asked for."""
    blocks = functional.max_pool2d(planes[None], _SIDE, ceil_mode=True)
    kernel = [min(2, length) for length in blocks.shape[2:]]
    return functional.max_pool2d(blocks, kernel, stride=1)[0]
