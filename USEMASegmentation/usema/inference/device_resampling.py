"""Image resampling on a GPU: the same matrices as on the CPU (``resampling.py``), applied as dense matrix products.

A volume of 512 x 512 x 512 voxels takes some 70 billion multiplications an axis that way, of which a GPU does several
thousand billion a second; and every device knows them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from .memory import free_memory, is_out_of_memory

Matrix = Any  # scipy.sparse.csr_array (new, old) of one axis, or None: nothing changes along it

_SPARED = 0.9  # of what is free may be asked for: memory is fragmented


def resampled_on(
    device: torch.device,
    volume: np.ndarray,
    matrices: Sequence[Matrix],
    nearest: np.ndarray | None,
    out: np.ndarray,
    free: Callable[[str], int | None] = free_memory,
) -> bool:
    """Resample one channel by a matrix for each axis, and clip it to its own range.

    Args:
        device: where to compute.
        volume: (a, b, c) float32.
        matrices: of the three axes, in order.
        nearest: instead of the first matrix: which slice becomes each new one; each is clipped to its own range.
        out: float32, receives the result.
        free: bytes free on a device, None if unknown.

    Returns:
        whether that was done; False where the device has too little memory.
    """
    if 4 * _most_values(volume.shape, matrices, nearest) > _SPARED * (free(str(device)) or math.inf):
        return False
    try:
        torch.from_numpy(out).copy_(_resampled(device, volume, matrices, nearest))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


def _most_values(shape: Sequence[int], matrices: Sequence[Matrix], nearest: np.ndarray | None) -> int:
    """How many numbers there are at once, at the most: what goes into a product and what comes out of it."""
    steps = [list(shape)]
    for axis in (2, 1, 0):
        if matrices[axis] is not None:
            steps.append([*steps[-1][:axis], matrices[axis].shape[0], *steps[-1][axis + 1 :]])
    if nearest is not None:
        steps.append([len(nearest), *steps[-1][1:]])
    sizes = [math.prod(step) for step in [*steps, steps[-1]]]  # clipping makes a copy
    return max(map(sum, itertools.pairwise(sizes)))


@torch.inference_mode()
def _resampled(
    device: torch.device, volume: np.ndarray, matrices: Sequence[Matrix], nearest: np.ndarray | None
) -> torch.Tensor:
    x = torch.from_numpy(np.ascontiguousarray(volume, np.float32)).to(device)
    low, high = torch.aminmax(x) if nearest is None else (x.amin((1, 2), True), x.amax((1, 2), True))
    along, rows, columns = (None if one is None else torch.from_numpy(one.toarray()).to(device) for one in matrices)
    if columns is not None:
        x = x @ columns.T
    if rows is not None:
        x = rows @ x
    if along is not None:
        x = (along @ x.flatten(1)).unflatten(1, x.shape[1:])
    x = x.clamp(low, high)
    if nearest is not None:
        x = x[torch.from_numpy(nearest).to(device)]
    return x
