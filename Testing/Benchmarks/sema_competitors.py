"""What the fused kernels are timed beside: the same attention in other ways, and full attention on the same tokens.

Each entry of SEMA and OTHER takes a Shape and gives a function of q, k, v, each (B, *map, C), or raises Unavailable.
What SEMA lists is checked against the definition before it is timed; OTHER computes something else, and says what the
same tokens cost there.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import torch
from torch.nn.functional import pad, scaled_dot_product_attention
from usema.errors import InputError
from usema.sema import Layer, choose, eager, operators, rope


@dataclass(frozen=True)
class Shape:
    """An attention layer's map. Channels divide into heads of head_dim."""

    name: str
    batch: int
    map: tuple[int, ...]
    channels: int
    window: int = 7
    head_dim: int = 32

    @property
    def heads(self) -> int:
        return self.channels // self.head_dim

    @property
    def windows(self) -> tuple[int, ...]:
        return (self.window,) * len(self.map)

    @property
    def tokens(self) -> int:
        """Of the whole batch."""
        return self.batch * prod(self.map)

    @property
    def settings(self) -> dict:
        return {"heads": self.heads, "window": self.windows, "rope": True, "mean": True}


class Unavailable(Exception):
    """A competitor that this machine or this shape does not allow; the message says why."""


Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def fused(launcher: str) -> Callable[[Shape], Attention]:
    def make(shape: Shape) -> Attention:
        settings = (shape.heads, list(shape.windows), True, True, launcher)

        def compute(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            # The operator takes PyTorch's way where PTX fails, silently: that must not be timed in its name.
            try:
                choose(v.device, launcher, Layer(v.dtype, shape.windows, shape.head_dim))
            except InputError as reason:
                raise Unavailable(str(reason)) from None
            return operators.window_attention(q, k, v, *settings)

        return compute

    return make


def eager_pytorch(shape: Shape) -> Attention:
    return lambda q, k, v: eager.sema_attention(q, k, v, **shape.settings, local=True)


def compiled(function: Attention) -> Attention:
    # On a CPU only the tracing is tried: no C++ compiler is asked for.
    backend = "inductor" if torch.cuda.is_available() else "aot_eager"
    return torch.compile(function, backend=backend, dynamic=False, fullgraph=True)


_rope_table = rope.rope_table


@torch.compiler.assume_constant_result
def _constant_rope_table(shape, channels, device, dtype):
    return _rope_table(shape, channels, device, dtype)


def compiled_pytorch(shape: Shape) -> Attention:
    # Rotation tables as constants, as the fused kernels have them, rather than computed in every call.
    rope.rope_table = _constant_rope_table
    return compiled(eager_pytorch(shape))


def flex_attention(shape: Shape) -> Attention:
    """FlexAttention over tokens in window order, with the mask that keeps windows apart.

    In row order a block of 128 queries would meet keys of seven rows, 14 blocks for the 49 keys that count; sorting
    into windows costs copies, but leaves two or three.
    """
    from torch.nn.attention.flex_attention import BlockMask
    from torch.nn.attention.flex_attention import flex_attention as attend

    sides, size = shape.windows, prod(shape.windows)
    counts = [-(-extent // side) for extent, side in zip(shape.map, sides, strict=True)]
    padding = [n * side - extent for n, side, extent in zip(counts, sides, shape.map, strict=True)]
    tokens, axes, block = prod(counts) * size, len(sides), 128
    device = "cuda" if torch.cuda.is_available() else "cpu"
    order = [0, *range(1, 2 * axes, 2), *range(2, 2 * axes + 1, 2), 2 * axes + 1]
    pad_by = [0, 0, *(x for after in reversed(padding) for x in (0, after))]
    split = [-1, *(x for pair in zip(counts, sides, strict=True) for x in pair)]

    def into_windows(x: torch.Tensor) -> torch.Tensor:
        x = pad(x, pad_by) if any(padding) else x
        return x.reshape(*split, x.shape[-1]).permute(order)

    def heads_first(x: torch.Tensor) -> torch.Tensor:
        return x.reshape(x.shape[0], tokens, shape.heads, shape.head_dim).transpose(1, 2)

    on_map = into_windows(torch.ones(1, *shape.map, 1, device=device)).flatten().bool()

    def same_window(b, h, query, key):
        return (query // size == key // size) & on_map[key]

    # The blocks of keys that each block of queries meets, from arithmetic: to ask the mask for all pairs is quadratic.
    first = torch.arange(0, tokens, block, device=device)
    last = (first + block).clamp_max(tokens) - 1
    low, high = first // size * size // block, ((last // size + 1) * size - 1).clamp_max(tokens - 1) // block
    number = (high - low + 1).int()[None, None]
    indices = ((low[:, None] + torch.arange(len(first), device=device)) % len(first)).int()[None, None]
    mask = BlockMask.from_kv_blocks(
        number, indices, BLOCK_SIZE=block, mask_mod=same_window, seq_lengths=(tokens, tokens)
    )
    cos, sin = rope.rope_table(sides, shape.channels, torch.device(device), torch.float32)
    inverse = [0, *(x for axis in range(axes) for x in (1 + axis, 1 + axes + axis)), 2 * axes + 1]
    inside = (slice(None), *(slice(extent) for extent in shape.map))

    def turn(x: torch.Tensor) -> torch.Tensor:
        even, odd = x[..., 0::2].float(), x[..., 1::2].float()
        return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2).to(x.dtype)

    def compute(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        q, k = (heads_first(turn(into_windows(x))) for x in (q, k))
        out = attend(q, k, heads_first(into_windows(v)), block_mask=mask)
        out = out.transpose(1, 2).reshape(-1, *counts, *sides, shape.channels).permute(inverse)
        out = out.reshape(-1, *(n * side for n, side in zip(counts, sides, strict=True)), shape.channels)[inside]
        average = v.flatten(1, -2).mean(dim=1)
        return out + average.view(-1, *[1] * axes, shape.channels)

    return compiled(compute) if torch.cuda.is_available() else compute


def full_attention(shape: Shape) -> Attention:
    """Softmax over all tokens of an image, by PyTorch's fastest kernel: quadratic."""
    if prod(shape.map) > 400_000:
        raise Unavailable("quadratic: seconds")

    def compute(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        q, k, v = (x.flatten(1, -2).unflatten(-1, (shape.heads, -1)).transpose(1, 2) for x in (q, k, v))
        return scaled_dot_product_attention(q, k, v).transpose(1, 2)

    return compute


def selective_scan(shape: Shape) -> Attention:
    """Mamba's selective scan of mamba-ssm over the same tokens, 16 states a channel."""
    if importlib.util.find_spec("mamba_ssm") is None:
        raise Unavailable("mamba-ssm is not installed")
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    decay = -torch.rand(shape.channels, 16, device="cuda")

    def compute(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        u, delta = (x.flatten(1, -2).transpose(1, 2) for x in (v, q))
        b, c = (k.flatten(1, -2).transpose(1, 2)[:, n : n + 16] for n in (0, 16))
        return selective_scan_fn(u, delta, decay, b, c, delta_softplus=True)

    return compute


SEMA: dict[str, Callable[[Shape], Attention]] = {
    "triton": fused("triton"),
    "ptx": fused("ptx"),
    "eager": eager_pytorch,
    "compile": compiled_pytorch,
    "flex": flex_attention,
}
OTHER: dict[str, Callable[[Shape], Attention]] = {"full": full_attention, "mamba": selective_scan}
