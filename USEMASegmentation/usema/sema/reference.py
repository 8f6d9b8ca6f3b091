"""SEMA attention by its definition: what every other backend is compared with.

    SEMA(Q, K, V)_i = sum_{j in w(i)} softmax_j(scale * rope(q_i) . rope(k_j)) v_j  +  (1/n) sum_{j=1..n} v_j

w(i) is the non-overlapping window that holds token i, ragged where the map ends; n is the number of tokens of the map;
scale = head_dim ** -0.5. Source: SEMA (arXiv 2506.08297), restated in VideoSEMA (arXiv 2607.14711, equations 1-3, 9).
"""

from __future__ import annotations

from itertools import product

import torch

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
    """See :func:`usema.sema.sema_attention`. One window at a time, any float dtype, any device."""
    shape = v.shape[1:-1]
    channels = v.shape[-1]
    scale = (channels // heads) ** -0.5
    if rope:
        q, k = apply_rope(q, shape), apply_rope(k, shape)

    out = torch.zeros_like(v)
    if local:
        corners = product(*(range(0, extent, side) for extent, side in zip(shape, window, strict=True)))
        for corner in corners:
            block = (slice(None), *(slice(start, start + side) for start, side in zip(corner, window, strict=True)))
            # (B, tokens of this window, heads, head_dim) -> (B, heads, tokens, head_dim)
            qw, kw, vw = (x[block].flatten(1, -2).unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
            weights = torch.softmax(scale * qw @ kw.transpose(-1, -2), dim=-1)
            out[block] = (weights @ vw).transpose(1, 2).reshape(v[block].shape)
    if mean:
        out = out + v.flatten(1, -2).mean(dim=1).view(v.shape[0], *[1] * len(shape), channels)
    return out
