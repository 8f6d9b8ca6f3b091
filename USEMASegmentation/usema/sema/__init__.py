"""SEMA attention: softmax attention in local windows plus the arithmetic mean of all values."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..errors import InputError
from .dispatch import BACKENDS, Choice, Layer, choose

__all__ = ["Choice", "Layer", "choose", "sema_attention"]


def sema_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    heads: int,
    window: int | Sequence[int],
    rope: bool = True,
    mean: bool = True,
    local: bool = True,
    backend: str | None = None,
) -> torch.Tensor:
    """SEMA attention on a 2D or 3D map. Definition and source: :mod:`usema.sema.reference`.

    Args:
        q, k, v: (B, *map, C), channels last, the map 2D (H, W) or 3D (D, H, W); all of one dtype.
        heads: number of heads; C / heads is the head dimension. Heads are contiguous channels.
        window: side of the non-overlapping windows, one number or one per axis. Border windows are ragged; a map
            smaller than a window is one window.
        rope: rotate q and k by their position (:mod:`usema.sema.rope`).
        mean: add the mean of all values. Off only to study what it gives.
        local: compute the window attention. Off only to study what it gives.
        backend: force a backend by name; by default :func:`choose` picks.

    Returns:
        (B, *map, C), in v's dtype.

    Raises:
        InputError: shapes that do not fit each other, or an unknown backend.
    """
    axes = v.dim() - 2
    if axes not in (2, 3) or q.shape != v.shape or k.shape != v.shape:
        shapes = [tuple(x.shape) for x in (q, k, v)]
        raise InputError(f"q, k, v must all be (B, H, W, C) or (B, D, H, W, C), but are {shapes}.")
    if v.shape[-1] % heads:
        raise InputError(f"{v.shape[-1]} channels do not divide into {heads} heads.")
    sides = (window,) * axes if isinstance(window, int) else tuple(window)
    if len(sides) != axes or min(sides) < 1:
        raise InputError(f"window {window!r} does not fit a {axes}D map: give one positive side, or {axes} of them.")
    layer = Layer(
        dtype=torch.get_autocast_dtype("cuda") if v.is_cuda and torch.is_autocast_enabled("cuda") else v.dtype,
        window=sides,
        head_dim=v.shape[-1] // heads,
        rope=rope,
        mean=mean,
        training=torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad),
    )
    function = BACKENDS[choose(v.device, backend, layer).name]
    return function(q, k, v, heads=heads, window=sides, rope=rope, mean=mean, local=local)
