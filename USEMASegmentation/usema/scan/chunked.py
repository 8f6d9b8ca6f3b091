"""The selective scan in fast PyTorch: for CPUs, Apple GPUs, and wherever mamba-ssm is not installed.

The states of all positions, (batch, channels, N, L), are N times as large as the input. So positions go chunk by chunk:
what a chunk needs is computed for all its positions at once, then its states follow from each other, and the last one
starts the next chunk. Only the states at the chunks' borders are kept for the backward pass, which computes the others
again. Everything is products and sums of decays exp(delta A): nothing is divided, so nothing can overflow that does not
overflow in the definition.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from functools import wraps

import torch
from torch.autograd.function import once_differentiable

# Numbers in the states of one chunk, and of one position in it. On a CPU, what a chunk needs then stays in the
# second-level cache, and a position is still worth a call; a GPU wants much at once. Measured: 2^17 and 2^14 on a Xeon
# with 2 MiB of cache a core. Where shapes alone are computed, chunks would only be counted.
CHUNK = {"cpu": 2**17, "meta": 2**62}
POSITION = {"cpu": 2**14, "meta": 2**62}
CHUNK_ELSEWHERE = 2**25
# A CPU steps through positions whose states have this many numbers or more; where they have fewer, and on GPUs, calls
# cost more than arithmetic, and doubling takes fewer calls.
STEPPING = 2**10
SHORTEST_CHUNK = 8


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
    """See :func:`usema.scan.selective_scan`. B and C: (batch, groups, N, L)."""
    if delta_bias is not None:
        delta = delta + delta_bias[:, None]
    if delta_softplus:
        delta = torch.nn.functional.softplus(delta)
    groups = B.shape[1]

    def positions_first(x: torch.Tensor) -> torch.Tensor:
        """(batch, channels, L) to (L, batch, groups, channels of a group)."""
        return x.permute(2, 0, 1).unflatten(-1, (groups, -1)).contiguous()

    # N before channels: the innermost axis is then long, and sums over N are matrix products.
    decay_rates = A.unflatten(0, (groups, -1)).transpose(1, 2).contiguous()
    B, C = (x.permute(3, 0, 1, 2).contiguous() for x in (B, C))
    y = _Scan.apply(positions_first(delta), positions_first(delta * u), decay_rates, B, C)
    y = y.flatten(2).permute(1, 2, 0)
    return y if D is None else y + D[:, None] * u


def _without_autocast(function):
    """Autocast would turn the matrix products to half precision; the backward pass may run under it, too."""

    @wraps(function)
    def wrapped(ctx, first, *others):
        device = first.device.type
        with torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext():
            return function(ctx, first, *others)

    return wrapped


class _Scan(torch.autograd.Function):
    """y_t = C_t h_t with h_t = exp(delta_t A) h_{t-1} + B_t x_t.

    Shapes: delta, x and y (L, batch, groups, channels); A (groups, N, channels); B and C (L, batch, groups, N);
    states (L, batch, groups, N, channels).
    """

    @staticmethod
    @_without_autocast
    def forward(ctx, delta, x, A, B, C):
        y = torch.empty_like(x)
        training = any(ctx.needs_input_grad)
        borders = []  # the states before each chunk, for the backward pass
        decays_memory, states_memory = _memory(x, A, 2)
        for part, chunks in _blocks(x, A):
            state = x.new_zeros(x[0, part].shape[0], *A.shape)
            for chunk in chunks:
                here = chunk, part
                if training:
                    borders.append(state)
                decays = _decays(delta[here], A, decays_memory)
                states = _states(decays, x[here], B[here], state, states_memory)
                y[here] = (C[here].unsqueeze(-2) @ states).squeeze(-2)
                state = states[-1].clone()
        if training:
            ctx.save_for_backward(delta, x, A, B, C, *borders)
        return y

    @staticmethod
    @once_differentiable
    @_without_autocast
    def backward(ctx, grad):
        delta, x, A, B, C, *borders = ctx.saved_tensors
        grad_delta, grad_x, grad_B, grad_C = (torch.empty_like(tensor) for tensor in (delta, x, B, C))
        grad_A = torch.zeros_like(A)
        decays_memory, states_memory, adjoint_memory = _memory(x, A, 3)
        first = 0
        for part, chunks in _blocks(x, A):
            following = torch.zeros_like(borders[first])  # what the positions behind a chunk add to its last gradient
            for number in reversed(range(len(chunks))):
                here, border = (chunks[number], part), borders[first + number]
                decays = _decays(delta[here], A, decays_memory)
                states = _states(decays, x[here], B[here], border, states_memory)
                # The gradient of a state: from its own output, and by the same recurrence from the next state.
                adjoint = _outer(grad[here], C[here], adjoint_memory)
                adjoint[-1] += following
                _recur_(decays[1:], adjoint, backwards=True)
                following = decays[0] * adjoint[0]
                grad_x[here] = (B[here].unsqueeze(-2) @ adjoint).squeeze(-2)
                grad_B[here] = (x[here].unsqueeze(-2) @ adjoint.mT).squeeze(-2)
                grad_C[here] = (grad[here].unsqueeze(-2) @ states.mT).squeeze(-2)
                # That of delta A: the decay times the state before it times the gradient, in the decays' memory.
                decays.mul_(adjoint)
                decays[0].mul_(border)
                decays[1:].mul_(states[:-1])
                grad_delta[here] = torch.mul(decays, A, out=states).sum(dim=-2)
                grad_A += decays.mul_(delta[here].unsqueeze(-2)).sum(dim=(0, 1))
            first += len(chunks)
        return grad_delta, grad_x, grad_A, grad_B, grad_C


def _sizes(x: torch.Tensor, A: torch.Tensor) -> tuple[int, int]:
    """Positions in a chunk and samples in a part of the batch."""
    together = min(x.shape[1], max(1, POSITION.get(x.device.type, CHUNK_ELSEWHERE) // A.numel()))
    chunk = max(SHORTEST_CHUNK, CHUNK.get(x.device.type, CHUNK_ELSEWHERE) // (together * A.numel()))
    return min(chunk, x.shape[0]), together


def _blocks(x: torch.Tensor, A: torch.Tensor) -> Iterator[tuple[slice, list[slice]]]:
    """Parts of the batch, each with its chunks of positions in order."""
    chunk, together = _sizes(x, A)
    length, batch = x.shape[:2]
    chunks = [slice(start, min(start + chunk, length)) for start in range(0, length, chunk)]
    for start in range(0, batch, together):
        yield slice(start, min(start + together, batch)), chunks


def _memory(x: torch.Tensor, A: torch.Tensor, count: int) -> Iterable[torch.Tensor]:
    """Memory for one chunk's tensors, used again for each: to ask the system for it takes longer than to fill it."""
    return x.new_empty(count, *_sizes(x, A), *A.shape).unbind()


def _fit(memory: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return memory[: x.shape[0], : x.shape[1]]


def _decays(delta: torch.Tensor, A: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
    return torch.mul(delta.unsqueeze(-2), A, out=_fit(memory, delta)).exp_()


def _outer(channels: torch.Tensor, states: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
    return torch.mul(channels.unsqueeze(-2), states.unsqueeze(-1), out=_fit(memory, channels))


def _states(
    decays: torch.Tensor, x: torch.Tensor, B: torch.Tensor, before: torch.Tensor, memory: torch.Tensor
) -> torch.Tensor:
    """The states of a chunk's positions, from the state before it."""
    states = _outer(x, B, memory)
    states[0].addcmul_(decays[0], before)
    _recur_(decays[1:], states)
    return states


def _recur_(links: torch.Tensor, states: torch.Tensor, backwards: bool = False) -> None:
    """states[t + 1] += links[t] * states[t] from first to last, in place.

    Backwards it is states[t] += links[t] * states[t + 1] from last to first.
    """
    length = len(states)
    if states.device.type == "cpu" and states[0].numel() >= STEPPING:
        links, states = links.unbind(), states.unbind()
        for t in reversed(range(length - 1)) if backwards else range(length - 1):
            target, source = (t, t + 1) if backwards else (t + 1, t)
            states[target].addcmul_(links[t], states[source])
        return
    # Doubling (Hillis & Steele 1986): after each round a state holds what twice as many positions give to it, and a
    # link spans twice as many.
    span = 1
    while span < length:
        early, late = states[:-span], states[span:]
        if backwards:
            early += links * late
        else:
            late += links * early
        links = links[span:] * links[:-span]
        span *= 2
