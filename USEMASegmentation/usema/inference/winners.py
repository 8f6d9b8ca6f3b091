"""Which of many classes can win anywhere in some planes of logits: the others need not be resampled and compared."""

from __future__ import annotations

import torch
from torch.nn import functional

_FEW = 10  # classes; with fewer, looking for those that cannot win takes as long as comparing all
_PAYS = 0.8  # of the classes: with more, picking them out costs what it saves
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
        their indices, rising, with class 0 in any case; None: all, or nearly.
    """
    classes = len(parts[0])
    if classes < _FEW or parts[0].device.type != "cpu":
        return None
    extremes = [part.aminmax(dim=1) for part in parts]
    largest = _pooled(torch.stack([one.max for one in extremes]).amax(dim=0).float())
    least = _pooled(torch.stack([one.min for one in extremes]).amin(dim=0).float().neg_())
    bound = least.neg_().amax(dim=0) - (slack + _ROUNDING)  # the largest of the least
    there = (largest >= bound).flatten(1).any(dim=1)
    there[0] = True
    return there.nonzero()[:, 0] if there.sum() < _PAYS * classes else None


def _pooled(planes: torch.Tensor) -> torch.Tensor:
    """(K, b, c) to the largest value in each block and its next neighbours, between which voxels may be asked for."""
    blocks = functional.max_pool2d(planes[None], _SIDE, ceil_mode=True)
    kernel = [min(2, length) for length in blocks.shape[2:]]
    return functional.max_pool2d(blocks, kernel, stride=1)[0]
