"""The pieces that the networks share. Maps are channels first, (B, C, *spatial), in 2D or 3D."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

from ..sema import sema_attention

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED_CONV = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
INSTANCE_NORM = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
AVERAGE_POOL = {2: nn.AvgPool2d, 3: nn.AvgPool3d}


def _padding(kernel: Sequence[int]) -> tuple[int, ...]:
    return tuple(side // 2 for side in kernel)


class ConvNorm(nn.Sequential):
    """Convolution, instance normalisation and, unless it is left to the caller, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel, stride=1, *, bias: bool = True, activation: bool = True):
        axes = len(kernel)
        layers = [
            CONV[axes](inputs, outputs, tuple(kernel), stride, _padding(kernel), bias=bias),
            INSTANCE_NORM[axes](outputs, eps=1e-5, affine=True),
        ]
        super().__init__(*layers, *([nn.LeakyReLU(0.01, inplace=True)] if activation else []))


class ConvBatchNorm(nn.Sequential):
    """Convolution without bias, batch normalisation and, if asked for, ReLU."""

    def __init__(self, inputs: int, outputs: int, side: int, stride: int = 1, *, activation: bool = True):
        convolution = nn.Conv2d(inputs, outputs, side, stride, side // 2, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(outputs), *([nn.ReLU(inplace=True)] if activation else []))


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut: average pooling where strided, 1x1 convolution where channels change.

    Source: nnU-Net's residual encoder (Isensee et al. 2024), as U-Mamba (arXiv 2401.04722) uses it.
    """

    def __init__(self, inputs: int, outputs: int, kernel: Sequence[int], stride: Sequence[int] | None = None):
        super().__init__()
        axes = len(kernel)
        stride = tuple(stride) if stride is not None else (1,) * axes
        self.conv1 = ConvNorm(inputs, outputs, kernel, stride)
        self.conv2 = ConvNorm(outputs, outputs, kernel, activation=False)
        shortcut: list[nn.Module] = []
        if max(stride) > 1:
            shortcut.append(AVERAGE_POOL[axes](stride, stride))
        if inputs != outputs:
            shortcut.append(ConvNorm(inputs, outputs, (1,) * axes, bias=False, activation=False))
        self.shortcut = nn.Sequential(*shortcut)
        self.activation = nn.LeakyReLU(0.01, inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.conv2(self.conv1(x)) + self.shortcut(x))


class DepthwiseConv(nn.Module):
    """Depthwise convolution of a channels-first map: the CPE and LePE of the attention blocks."""

    def __init__(self, channels: int, kernel: Sequence[int]):
        super().__init__()
        self.conv = CONV[len(kernel)](channels, channels, tuple(kernel), padding=_padding(kernel), groups=channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


class Mlp(nn.Sequential):
    """Linear, GELU, Linear on channels-last tokens."""

    def __init__(self, channels: int, ratio: float):
        hidden = int(channels * ratio)
        super().__init__(nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels))


class DropPath(nn.Module):
    """Leave a residual branch out for some samples of a batch in training (stochastic depth, Huang et al. 2016)."""

    def __init__(self, probability: float = 0.0):
        super().__init__()
        self.probability = probability

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.probability == 0:
            return x
        keep = 1 - self.probability
        mask = x.new_empty(x.shape[0], *[1] * (x.dim() - 1)).bernoulli_(keep)
        return x * mask / keep


class MambaLikeBlock(nn.Module):
    """MILA's Mamba-like block (Han et al. 2024) around any attention, on a channels-first map.

    x += CPE(x); s = x; x = LN(x); g = SiLU(Linear(x)); u = SiLU(DWConv(Linear(x))); q, k, v = Linear(u);
    x = s + Linear((attend(q, k, v) + LePE(v)) * g); x += CPE(x); x += MLP(LN(x)).

    Args:
        channels: C.
        kernel: kernel of the depthwise convolutions, one side per axis.
        attend: the attention, from q, k, v, each (B, *map, C), to (B, *map, C); it has no parameters.
        value_projection: v = Linear(u); otherwise v = u, as in MILA.
        mlp_ratio: hidden width of the MLP over C; 0 leaves out the MLP and the second CPE.
        lepe, cpe: position encodings by depthwise convolutions, on or off.
        drop_path: probability of leaving out a residual branch in training.
    """

    def __init__(
        self,
        channels: int,
        kernel: Sequence[int],
        attend: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
        *,
        value_projection: bool,
        mlp_ratio: float = 4.0,
        lepe: bool = True,
        cpe: bool = True,
        drop_path: float = 0.0,
    ):
        super().__init__()
        self.attend = attend
        self.value_projection = value_projection
        self.cpe1 = DepthwiseConv(channels, kernel) if cpe else None
        self.norm1 = nn.LayerNorm(channels)
        self.gate = nn.Linear(channels, channels)
        self.inner = nn.Linear(channels, channels)
        self.inner_conv = DepthwiseConv(channels, kernel)
        self.qkv = nn.Linear(channels, channels * (3 if value_projection else 2))
        self.lepe = DepthwiseConv(channels, kernel) if lepe else None
        self.out = nn.Linear(channels, channels)
        self.drop_path = DropPath(drop_path)
        self.cpe2 = DepthwiseConv(channels, kernel) if cpe and mlp_ratio else None
        self.norm2 = nn.LayerNorm(channels) if mlp_ratio else None
        self.mlp = Mlp(channels, mlp_ratio) if mlp_ratio else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.cpe1 is not None:
            x = x + self.cpe1(x)
        x = x + channels_first(self.drop_path(self._attention(channels_last(x))))
        if self.mlp is not None:
            if self.cpe2 is not None:
                x = x + self.cpe2(x)
            x = x + channels_first(self.drop_path(self.mlp(self.norm2(channels_last(x)))))
        return x

    def _attention(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, *map, C) to (B, *map, C)."""
        tokens = self.norm1(tokens)
        gate = nn.functional.silu(self.gate(tokens))
        u = nn.functional.silu(self.inner_conv(channels_first(self.inner(tokens))))
        channels = u.shape[1]
        weight, bias = self.qkv.weight, self.qkv.bias
        # The weights of q, k, v stay one linear layer, as published models have them. v alone is computed channels
        # first, where LePE's convolution reads it: OpenVINO gives that convolution a wrong layout of a part of q, k, v.
        q, k = nn.functional.linear(channels_last(u), weight[: 2 * channels], bias[: 2 * channels]).chunk(2, dim=-1)
        v = pointwise(u, weight[2 * channels :], bias[2 * channels :]) if self.value_projection else u
        attended = self.attend(q, k, channels_last(v))
        if self.lepe is not None:
            attended = attended + channels_last(self.lepe(v))
        return self.out(attended * gate)


class SEMABlock(MambaLikeBlock):
    """SEMA attention in the Mamba-like block.

    Args:
        channels: C, divisible by heads.
        kernel: see MambaLikeBlock.
        heads: attention heads.
        window: side of the attention windows.
        rope: rotate q and k by their position.
        mean, local: the two halves of SEMA; off only to study what each gives.
        value_projection, switches: see MambaLikeBlock.
    """

    def __init__(
        self,
        channels: int,
        kernel: Sequence[int],
        *,
        heads: int,
        window: int,
        rope: bool = True,
        mean: bool = True,
        local: bool = True,
        value_projection: bool = True,
        **switches,
    ):
        attend = partial(sema_attention, heads=heads, window=window, rope=rope, mean=mean, local=local)
        super().__init__(channels, kernel, attend, value_projection=value_projection, **switches)
        self.heads, self.window, self.rope, self.mean, self.local = heads, window, rope, mean, local


def pointwise(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """A linear layer's weight (outputs, C) and bias on a channels-first map (B, C, *map)."""
    convolve = nn.functional.conv2d if x.dim() == 4 else nn.functional.conv3d
    return convolve(x, weight.reshape(*weight.shape, *[1] * (x.dim() - 2)), bias)


def up_beside(up: nn.Module, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
    """``torch.cat((up(x), skip), dim=1)``, for ``up`` a transposed convolution.

    Where its kernel is its stride, no two inputs meet in an output: it is a matrix product whose result is written in
    its place. On a CPU core 64 channels of 32^3 voxels to 32 of 64^3 take 0.07 s so, and 0.18 s by PyTorch.
    """
    stride, channels = tuple(up.stride), up.out_channels
    plain = up.kernel_size == stride and up.groups == 1 and not any((*up.padding, *up.output_padding))
    # What traces or differentiates knows the convolution better.
    here = x.device.type == "cpu" and x.dtype == up.weight.dtype == skip.dtype and not torch.is_grad_enabled()
    if not plain or not here or torch.jit.is_tracing() or torch.compiler.is_compiling():
        return torch.cat((up(x), skip), dim=1)
    fine = [length * step for length, step in zip(x.shape[2:], stride, strict=True)]
    if list(skip.shape[2:]) != fine or torch.is_autocast_enabled("cpu"):
        return torch.cat((up(x), skip), dim=1)
    axes = len(stride)
    both = x.new_empty(len(x), channels + skip.shape[1], *fine)
    both[:, channels:] = skip
    weight = up.weight.flatten(1).t()  # (outputs and places, inputs)
    bias = 0.0 if up.bias is None else up.bias.view(-1, *[1] * (2 * axes))
    order = [0, *(n for axis in range(axes) for n in (1 + axes + axis, 1 + axis))]
    places = [n for length, step in zip(x.shape[2:], stride, strict=True) for n in (length, step)]
    for image, target in zip(x, both[:, :channels], strict=True):
        found = torch.mm(weight, image.flatten(1)).view(channels, *stride, *image.shape[1:])
        torch.add(found.permute(order), bias, out=target.view(channels, *places))
    return both


def channels_last(x: torch.Tensor) -> torch.Tensor:
    return x.movedim(1, -1)


def channels_first(x: torch.Tensor) -> torch.Tensor:
    return x.movedim(-1, 1)


def initialise(module: nn.Module) -> None:
    """Initial weights: He (slope 0.01) for dense convolutions, and those of :func:`initialise_linear`."""
    if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d) and module.groups == 1:
        nn.init.kaiming_normal_(module.weight, a=0.01)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, ResidualBlock):
        # A residual block starts as its shortcut (U-Mamba, after Goyal et al. 2017).
        nn.init.zeros_(module.conv2[1].weight)
    initialise_linear(module)


def initialise_linear(module: nn.Module) -> None:
    """Initial weights of Linear: truncated normal 0.02, as in MILA; all others keep PyTorch's."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
