"""Rotary position embedding of a channels-last map, as MILA builds it, for 2D and 3D.

Source: Su et al. 2021 (RoFormer) for the rotation; Han et al. 2024 (MILA) for its layout on a map: all C channels
form C/2 complex pairs of neighbouring channels (2i, 2i+1). The first K pairs rotate with the position along the first
axis, the next K with the second, and so on, at angles ``position * 10000 ** (-k / K)``, k = 0..K-1, where
``K = C // 2 // axes``. In 3D, C/2 need not divide by three: the pairs left over are not rotated.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch

BASE = 10000.0


@lru_cache(maxsize=64)
def rope_table(
    shape: tuple[int, ...], channels: int, device: torch.device, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine of every token's rotation angles.

    Args:
        shape: extent of the map along each axis.
        channels: C, even.

    Returns:
        two tensors (*shape, C/2).
    """
    pairs = channels // 2
    per_axis = pairs // len(shape)
    # Inference mode must not leak into a cached tensor: training may use it next.
    with torch.inference_mode(False):
        frequencies = BASE ** (-torch.arange(per_axis, dtype=torch.float64) / max(per_axis, 1))
        angles = torch.zeros(*shape, pairs, dtype=torch.float64)
        for axis, extent in enumerate(shape):
            along = torch.arange(extent, dtype=torch.float64).unsqueeze(1) * frequencies
            view = [1] * len(shape) + [per_axis]
            view[axis] = extent
            angles[..., axis * per_axis : (axis + 1) * per_axis] = along.view(view)
        return angles.cos().to(device, dtype), angles.sin().to(device, dtype)


@lru_cache(maxsize=64)
def _complex_table(shape: tuple[int, ...], channels: int, dtype: torch.dtype) -> torch.Tensor:
    """``rope_table`` on a CPU as complex numbers."""
    with torch.inference_mode(False):
        return torch.complex(*rope_table(shape, channels, torch.device("cpu"), dtype))


def apply_rope(x: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Rotate ``x`` (..., *shape, C) by its position. Computed in float32 or better, returned in x's own dtype."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    # To the last bit the same: half of the rotation's time, up to two fifths of SEMA's, for whoever knows such numbers.
    if x.device.type == "cpu" and not torch.jit.is_tracing() and not torch.compiler.is_compiling():
        numbers = _as_complex(x.to(dtype)) * _complex_table(tuple(shape), x.shape[-1], dtype)
        return torch.view_as_real(numbers).flatten(-2).to(x.dtype)
    cos, sin = rope_table(tuple(shape), x.shape[-1], x.device, dtype)
    even, odd = x[..., 0::2].to(dtype), x[..., 1::2].to(dtype)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2).to(x.dtype)


def _as_complex(x: torch.Tensor) -> torch.Tensor:
    """(..., C) as (..., C/2); a copy where a pair may begin at an odd place of the memory."""
    if x.stride(-1) != 1 or x.storage_offset() % 2 or any(step % 2 for step in x.stride()[:-1]):
        x = x.contiguous()
        x = x.clone() if x.storage_offset() % 2 else x
    return torch.view_as_complex(x.unflatten(-1, (-1, 2)))
