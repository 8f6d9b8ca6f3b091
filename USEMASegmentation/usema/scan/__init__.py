"""The selective scan of Mamba: a recurrence over a sequence whose decay, input and output depend on the input."""

from __future__ import annotations

import torch

from ..errors import InputError
from .dispatch import BACKENDS, choose

__all__ = ["choose", "selective_scan"]


def selective_scan(
    u: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None = None,
    delta_bias: torch.Tensor | None = None,
    delta_softplus: bool = False,
    *,
    backend: str | None = None,
) -> torch.Tensor:
    """Selective scan. Definition and source: :mod:`usema.scan.reference`. Arguments mean what they mean in mamba-ssm.

    It is computed in float32, or in float64 where u is float64, under autocast too: errors would add up along the
    sequence.

    Args:
        u: (batch, channels, L), the input.
        delta: (batch, channels, L), the step sizes.
        A: (channels, N), the decay rates, negative.
        B, C: (batch, N, L), or (batch, groups, N, L) where each of the groups of contiguous channels has its own.
        D: (channels,), weight of the input in the output; None is 0.
        delta_bias: (channels,), added to delta.
        delta_softplus: take softplus(delta), bias included.
        backend: force a backend by name; by default :func:`choose` picks.

    Returns:
        (batch, channels, L), in u's dtype. Where u and delta are views of tensors with L first, it is one too.

    Raises:
        InputError: shapes that do not fit each other, or an unknown backend.
    """
    _check_shapes(u, delta, A, B, C, D, delta_bias)
    exact = torch.float64 if u.dtype == torch.float64 else torch.float32
    B, C = (x.unsqueeze(1) if x.dim() == 3 else x for x in (B, C))
    tensors = [x if x is None else x.to(exact) for x in (u, delta, A, B, C, D, delta_bias)]
    if exact == torch.float64 and backend is None:
        backend = "chunked"  # mamba-ssm's kernel knows float32 at most
    return BACKENDS[choose(u.device, backend).name](*tensors, delta_softplus).to(u.dtype)


def _check_shapes(u, delta, A, B, C, D, delta_bias) -> None:
    shapes = {"u": u, "delta": delta, "A": A, "B": B, "C": C, "D": D, "delta_bias": delta_bias}
    shapes = {name: tuple(x.shape) for name, x in shapes.items() if x is not None}
    if u.dim() != 3 or A.dim() != 2 or B.dim() not in (3, 4):
        raise InputError(
            f"u must be (batch, channels, L), A (channels, N), B (batch, [groups,] N, L), but the shapes are {shapes}."
        )
    batch, channels, length = u.shape
    groups = B.shape[1] if B.dim() == 4 else 1
    states = (batch, *B.shape[1:-2], A.shape[1], length)
    expected = {"delta": u.shape, "A": (channels, A.shape[1]), "B": states, "C": states}
    expected |= {"D": (channels,), "delta_bias": (channels,)}
    for name in shapes.keys() & expected.keys():
        if shapes[name] != tuple(expected[name]):
            raise InputError(f"{name} has the shape {shapes[name]}, but {tuple(expected[name])} fits the others.")
    if channels % groups or not length:
        raise InputError(f"{channels} channels do not divide into {groups} groups, or L = {length} is 0.")
