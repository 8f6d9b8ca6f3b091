"""SEMA attention: softmax attention in local windows plus the arithmetic mean of all values."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..errors import InputError
from .dispatch import BACKENDS, ENVIRONMENT_VARIABLE, Layer, choose

__all__ = ["ENVIRONMENT_VARIABLE", "Layer", "choose", "sema_attention"]


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
        InputError: shapes, types or devices that do not fit each other, settings that no attention has, or an unknown
            backend.
    """
    _check(q, k, v, heads, rope)
    axes = v.dim() - 2
    sides = _sides(window, axes)
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


def _check(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, rope: bool) -> None:
    """What every backend takes for granted, so that a kernel never sees a caller's mistake."""
    shapes = [tuple(x.shape) for x in (q, k, v)]
    if v.dim() not in (4, 5) or q.shape != v.shape or k.shape != v.shape:
        raise InputError(f"q, k, v must all be (B, H, W, C) or (B, D, H, W, C), but are {shapes}.")
    if 0 in v.shape:
        raise InputError(f"q, k, v are empty: their shape is {shapes[0]}.", "Give at least one image, token, channel.")
    if not q.dtype == k.dtype == v.dtype or not v.is_floating_point():
        raise InputError(
            f"q, k, v must be of one floating-point type, but are {q.dtype}, {k.dtype}, {v.dtype}.", "Convert them."
        )
    if not q.device == k.device == v.device:
        raise InputError(f"q, k, v must be on one device, but are on {q.device}, {k.device}, {v.device}.", "Move them.")
    channels = v.shape[-1]
    if not isinstance(heads, int) or heads < 1:
        raise InputError(f"{heads!r} heads are not possible.", "Give a whole number of at least 1.")
    if channels % heads:
        raise InputError(f"{channels} channels do not divide into {heads} heads.")
    if rope and channels % 2:
        raise InputError(
            f"{channels} channels form no pairs, which the rotation by position turns.",
            "Take an even number, or rope=False.",
        )


def _sides(window: int | Sequence[int], axes: int) -> tuple[int, ...]:
    several = tuple(window) if isinstance(window, Sequence) else ()
    sides = (window,) * axes if isinstance(window, int) else several
    if len(sides) != axes or not all(isinstance(side, int) and side > 0 for side in sides):
        raise InputError(
            f"window {window!r} does not fit a {axes}D map: give one positive whole number, or {axes} of them."
        )
    return sides
