"""The selective scan by its definition: what every faster version is compared with.

    h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t,    h_0 = 0
    y_t = C_t h_t + D u_t

for every channel by itself, with a state h of N numbers. Input u, step delta, B and C change with the position t, which
makes the scan selective; channels of one group share B and C. The state space model h' = A h + B u is made discrete
with a zero-order hold for A and Euler's rule for B.

Source: Mamba (Gu & Dao 2023, arXiv 2312.00752, equations 1-4 and section 3), discretised as its code does it.
"""

from __future__ import annotations

import torch


def selective_scan(
    u: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None,
    delta_bias: torch.Tensor | None,
    delta_softplus: bool,
) -> torch.Tensor:
    """See :func:`usema.scan.selective_scan`; B and C are (batch, groups, N, L). One position at a time."""
    if delta_bias is not None:
        delta = delta + delta_bias[:, None]
    if delta_softplus:
        delta = torch.nn.functional.softplus(delta)
    # (batch, groups, N, L) -> (batch, channels, N, L): each group's channels are contiguous
    B, C = (x.repeat_interleave(u.shape[1] // x.shape[1], dim=1) for x in (B, C))

    state = torch.zeros_like(B[..., 0])
    outputs = []
    # The slices of unbind, unlike those of an index, have gradients of their own size, not of the whole sequence's.
    for u_t, delta_t, B_t, C_t in zip(*(x.unbind(-1) for x in (u, delta, B, C)), strict=True):
        u_t, delta_t = u_t.unsqueeze(-1), delta_t.unsqueeze(-1)
        state = torch.exp(delta_t * A) * state + delta_t * B_t * u_t
        outputs.append((C_t * state).sum(dim=-1))
    y = torch.stack(outputs, dim=-1)
    return y if D is None else y + D[:, None] * u
