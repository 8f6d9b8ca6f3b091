"""SEMA attention in fast PyTorch: for CPUs, Apple GPUs, and wherever no fused kernel runs.

Windows are ragged where the map ends. Instead of padding the map and masking the padded keys, the map is split along
each axis into the part that whole windows fill and the remainder: at most four groups in 2D, eight in 3D, each of
windows of one size. So no token is padded, no mask is needed, and scaled_dot_product_attention takes its fastest path.
"""

from __future__ import annotations

from itertools import product

import torch
from torch.nn.functional import scaled_dot_product_attention

from .rope import apply_rope


def sema_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    heads: int,
    window: tuple[int, ...],
    rope: bool,
    mean: bool,
    local: bool,
) -> torch.Tensor:
    """See :func:`usema.sema.sema_attention`."""
    shape = v.shape[1:-1]
    # The mean of all values acts on each channel alone, so heads do not matter to it.
    average = v.flatten(1, -2).mean(dim=1).view(v.shape[0], *[1] * len(shape), v.shape[-1]) if mean else None
    if not local:
        return torch.zeros_like(v) if average is None else average.expand_as(v)

    groups = list(product(*(_axis_groups(extent, side) for extent, side in zip(shape, window, strict=True))))
    if len(groups) == 1:
        out = _attend(q, k, v, heads, groups[0], rope)
    else:
        out = torch.empty_like(v)
        for group in groups:
            block = (slice(None), *(slice(start, start + length) for start, length, _ in group))
            out[block] = _attend(q[block], k[block], v[block], heads, group, rope)
    return out if average is None else out + average


def _axis_groups(extent: int, side: int) -> list[tuple[int, int, int]]:
    """Split one axis into (start, length, window side): whole windows first, then the ragged remainder."""
    whole = extent - extent % side
    groups = [(0, whole, side)] if whole else []
    return groups + ([(whole, extent - whole, extent - whole)] if whole < extent else [])


def _attend(q, k, v, heads: int, group, rope: bool) -> torch.Tensor:
    """Window attention where windows of one size fill the map exactly. q, k, v and result: (B, *lengths, C)."""
    lengths = [length for _, length, _ in group]
    sides = [side for *_, side in group]
    axes = len(sides)
    channels = v.shape[-1]
    # (B, n1, s1, n2, s2, ..., C) -> (B, n1, n2, ..., s1, s2, ..., C): window index first, position inside it second
    split = [v.shape[0], *(x for length, side in zip(lengths, sides, strict=True) for x in (length // side, side)), -1]
    order = [0, *range(1, 2 * axes, 2), *range(2, 2 * axes + 1, 2), 2 * axes + 1]

    def windows(x: torch.Tensor, rotate: bool) -> torch.Tensor:
        x = x.reshape(split).permute(order)
        if rotate:
            # Scores depend on the difference of positions alone, so positions inside the window serve as well as those
            # on the whole map: the table stays as small as one window.
            x = apply_rope(x, sides)
        return x.reshape(-1, _product(sides), heads, channels // heads).transpose(1, 2)

    out = scaled_dot_product_attention(windows(q, rope), windows(k, rope), windows(v, False))
    counts = [length // side for length, side in zip(lengths, sides, strict=True)]
    inverse = [0, *(x for axis in range(axes) for x in (1 + axis, 1 + axes + axis)), 2 * axes + 1]
    out = out.transpose(1, 2).reshape(v.shape[0], *counts, *sides, channels)
    return out.permute(inverse).reshape(v.shape[0], *lengths, channels)


def _product(values) -> int:
    result = 1
    for value in values:
        result *= value
    return result
