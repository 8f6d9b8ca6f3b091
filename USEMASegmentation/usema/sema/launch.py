"""What the fused kernels are launched with: the same for Triton and for PTX. Knows torch, not Triton.

A launcher is a module with two functions, :mod:`.triton_backend` or :mod:`.aot`:

    properties(device) -> Properties
    launch(kernel, grid, arguments, constants, num_warps, num_stages); LaunchError if it cannot
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from types import ModuleType

import torch

from .rope import rope_table

HEAD_DIMS = (16, 32, 64)
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
MEAN_SIZES = {"ROWS": 64, "COLUMNS": 32}  # more rows would spill; 32 channels of float16 are a memory transaction
BEYOND = 128  # the kernels number tokens up to a block beyond the window
MEAN_OPTIONS = {"num_warps": 4, "num_stages": 1}


OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY


class LaunchError(Exception):
    """A kernel that cannot be launched here; the message says why, in plain words. PyTorch computes instead.

    Attributes:
        code: the driver's, where it refused.
    """

    def __init__(self, message: str, code: int | None = None):
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Properties:
    """What decides about block sizes.

    Attributes:
        matrix_units: whether Triton uses this GPU's matrix units: compute capability 8.0 and newer.
        tf32: whether float32 may be multiplied on them, with 10 bits of mantissa.
    """

    matrix_units: bool
    tf32: bool

    def on_matrix_units(self, dtype: torch.dtype) -> bool:
        """Whether products of this type are computed there."""
        return self.matrix_units and (self.tf32 or dtype != torch.float32)


def why_not(dtype: torch.dtype, window: Sequence[int], head_dim: int) -> str | None:
    """Why no fused kernel computes such a layer; None if one does."""
    if dtype not in DTYPES:
        return f"no fused kernel for {str(dtype).removeprefix('torch.')}"
    if head_dim not in HEAD_DIMS:
        return f"no fused kernel for heads of {head_dim} channels"
    sides = three(window)
    divisors = (sides[2],) if sides[0] == 1 else (sides[2], sides[1] * sides[2])
    if not all(_divides_exactly(prod(sides) + BEYOND, divisor) for divisor in divisors):
        return f"no fused kernel for windows of {prod(sides)} tokens, {' x '.join(map(str, window))}"
    return None


def _divides_exactly(numbers: int, divisor: int) -> bool:
    """Whether t * ceil(2**20 / divisor) >> 20, in signed 32 bits, is t // divisor for all t below ``numbers``.

    That is how the kernels divide. With ceil(2**20 / divisor) = (2**20 + e) / divisor, e < divisor, the quotient is too
    large by t * e / divisor / 2**20: less than 1 / divisor, hence not at all, if t * divisor < 2**20. And the product
    must not overflow, as it would where the divisor is small.
    """
    return numbers * divisor < 2**20 and numbers * -(-(2**20) // divisor) < 2**31


def fits_grid(shape: Sequence[int], window: Sequence[int]) -> bool:
    """Whether a GPU takes all windows of a map (B, *map, C) at once: 65535 along all axes but the last."""
    down = -(-shape[-3] // window[-2])
    layers = -(-shape[1] // window[0]) if len(window) == 3 else 1
    return down <= 65535 and layers * shape[0] <= 65535


def three(sides: Sequence[int]) -> tuple[int, ...]:
    """Sides of a map or window as the kernels see them: a 2D map is a 3D map of depth one."""
    return (1,) * (3 - len(sides)) + tuple(sides)


def window_sizes(kernel: str, tokens: int, head_dim: int, dtype: torch.dtype, properties: Properties) -> dict[str, int]:
    """Tokens per block (M, N) and warps per program of a window kernel.

    Chosen by what the assembler reports (`python -m usema.sema.aot.build --report`), not by timing: no spills; then few
    instructions per window, since in 2D a program moves but 12 KB (float16, head_dim 32), for which one multiprocessor
    of an H200 has 0.39 us, the time to issue 3,000 instructions; then few registers, for many programs at once.
    For 2D, float16, head_dim 32 and sm_80: 2 warps issue 2,450 instructions, 4 warps 2,900.
    """
    block = 16 if tokens <= 16 else 32 if tokens <= 32 else 64
    half = dtype != torch.float32
    if not properties.on_matrix_units(dtype):
        # Products on the ordinary units are unrolled into registers: small blocks and more warps keep from spilling.
        block = min(block, 32)
        return {"M": block, "N": block, "num_warps": head_dim // 8 if block == 32 else 1, "num_stages": 1}
    if tokens <= block:
        few = half and kernel == "window_attention"
        return {"M": block, "N": block, "num_warps": max(1, block // (32 if few else 16)), "num_stages": 1}
    # Windows of several blocks: many queries share each rotation of the keys, and small blocks of keys take few
    # registers and leave little of the last one empty (the 343 tokens of 7 x 7 x 7 fill 11 of 32, but 6 of 64).
    many = half and head_dim <= 32 and kernel == "window_attention"
    return {"M": 128 if many else 64, "N": 32, "num_warps": 4, "num_stages": 2}


def window_constants(
    kernel: str,
    window: Sequence[int],
    head_dim: int,
    dtype: torch.dtype,
    properties: Properties,
    rope: bool,
    mean: bool,
) -> tuple[dict[str, int | bool | str], dict[str, int]]:
    """A window kernel's compile-time constants, and its options num_warps and num_stages."""
    sides = three(window)
    options = window_sizes(kernel, prod(sides), head_dim, dtype, properties)
    constants = dict(zip(("WD", "WH", "WW"), sides, strict=True))
    constants |= {"HEAD_DIM": head_dim, "M": options.pop("M"), "N": options.pop("N"), "ROPE": rope, "MEAN": mean}
    tf32 = dtype == torch.float32 and properties.on_matrix_units(dtype)
    return constants | {"PRECISION": "tf32" if tf32 else "ieee"}, options


def rows(x: torch.Tensor) -> torch.Tensor:
    """x (B, *map, C) as (B * tokens, C), where it lies if the kernels can read it there, else as a copy.

    The kernels read 16 bytes at a time, from rows at one distance. Slices of a Linear layer's output, as the network
    has them, are such rows.
    """
    flat = x.reshape(-1, x.shape[-1])
    if flat.stride(1) == 1 and flat.stride(0) % 16 == 0 and flat.data_ptr() % 16 == 0:
        return flat
    return flat.clone(memory_format=torch.contiguous_format)


def mean_over_tokens(x: torch.Tensor, images: int, launcher: ModuleType) -> torch.Tensor:
    """Mean over the tokens of each image: rows (images * tokens, C) -> (images, C) float32."""
    tokens, channels = x.shape[0] // images, x.shape[1]
    columns = -(-channels // MEAN_SIZES["COLUMNS"])
    # Enough programs to fill a large GPU, each with some hundred rows; from the shape alone, so that the order of
    # additions, hence every bit, is the same on all GPUs.
    splits = max(1, min(tokens // 256, 2048 // (columns * images)))
    parts = torch.empty(images, splits, channels, dtype=torch.float32, device=x.device)
    arguments = {"x": x, "parts": parts, "stride": x.stride(0)}
    arguments |= {"tokens": tokens, "channels": channels, "splits": splits}
    launcher.launch("mean_over_tokens", (splits, columns, images), arguments, MEAN_SIZES, **MEAN_OPTIONS)
    return parts.sum(1)


class _Windows:
    """Launches window kernels over the windows of a map (B, *map, C)."""

    def __init__(self, like: torch.Tensor, heads: int, window: Sequence[int], rope: bool, launcher: ModuleType):
        self.images, *extents, channels = like.shape
        self.map, self.window, self.heads, self.head_dim = three(extents), three(window), heads, channels // heads
        self.rope, self.launcher, self.dtype = rope, launcher, like.dtype
        self.properties = launcher.properties(like.device)
        self.tables = (None, None)
        if rope:
            self.tables = rope_table(tuple(window), channels, like.device, torch.float32)

    def launch(self, kernel: str, **arguments: torch.Tensor | None) -> None:
        mean = arguments.get("mean", arguments.get("grad_mean")) is not None
        constants, options = window_constants(
            kernel, self.window, self.head_dim, self.dtype, self.properties, self.rope, mean
        )
        layers, down, across = (-(-extent // side) for extent, side in zip(self.map, self.window, strict=True))
        blocks = -(-prod(self.window) // constants["M"])
        grid = (self.heads * blocks * across, down, layers * self.images)
        arguments |= {f"{x}_stride": arguments[x].stride(0) for x in ("q", "k", "v", "grad") if x in arguments}
        arguments |= dict(zip(("cos", "sin"), self.tables, strict=True))
        arguments |= dict(zip(("depth", "height", "width"), self.map, strict=True)) | {"heads": self.heads}
        self.launcher.launch(kernel, grid, arguments, constants, **options)


def forward(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    heads: int,
    window: Sequence[int],
    rope: bool,
    mean: bool,
    launcher: ModuleType,
) -> torch.Tensor:
    """SEMA attention: (B, *map, C), contiguous.

    Raises:
        LaunchError: the launcher cannot.
    """
    windows = _Windows(v, heads, window, rope, launcher)
    out = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    q, k, v = rows(q), rows(k), rows(v)
    average = mean_over_tokens(v, windows.images, launcher) if mean else None
    windows.launch("window_attention", q=q, k=k, v=v, mean=average, out=out)
    return out


def backward(
    grad: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    heads: int,
    window: Sequence[int],
    rope: bool,
    mean: bool,
    launcher: ModuleType,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of q, k and v, each (B, *map, C), contiguous.

    Memory beside them is linear in tokens: two float32 numbers a token and head, where a window is several blocks.
    """
    windows = _Windows(v, heads, window, rope, launcher)
    dq, dk, dv = (torch.empty(v.shape, dtype=v.dtype, device=v.device) for _ in range(3))
    grad, q, k, v = rows(grad), rows(q), rows(k), rows(v)
    average = mean_over_tokens(grad, windows.images, launcher) if mean else None
    given = {"q": q, "k": k, "v": v, "grad": grad}
    if prod(window) <= 64 and windows.properties.on_matrix_units(windows.dtype):
        windows.launch("window_attention_backward", **given, grad_mean=average, dq=dq, dk=dk, dv=dv)
        return dq, dk, dv
    log_total, delta = (torch.empty(len(v), heads, dtype=torch.float32, device=v.device) for _ in range(2))
    given |= {"log_total": log_total, "delta": delta}
    windows.launch("window_attention_backward_q", **given, dq=dq)
    windows.launch("window_attention_backward_kv", **given, grad_mean=average, dk=dk, dv=dv)
    return dq, dk, dv
