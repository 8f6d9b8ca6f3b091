"""What nnU-Net's two U-Nets share: their configuration, their convolutions and their decoder, in 2D and 3D.

Source: dynamic_network_architectures (Isensee et al., nnU-Net). Parameters are called as there, each once: a trained
network's weights are then those of its file, without the copies that file holds under other names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ..errors import InputError
from .blocks import AVERAGE_POOL, CONV, INSTANCE_NORM, TRANSPOSED_CONV, up_beside
from .config import NetworkConfig

BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
NORMS = {"instance": INSTANCE_NORM, "batch": BATCH_NORM, "none": None}
ACTIVATIONS = ("leaky_relu", "relu")


@dataclass(frozen=True)
class UNetConfig(NetworkConfig):
    """Everything that defines one of the two. Per-stage values go from full resolution down to the bottleneck.

    Attributes:
        in_channels: image channels.
        num_classes: channels of the logits.
        features: channels of each stage.
        kernels: convolution kernel of each stage, one side per axis; their number of axes makes the network 2D or 3D.
        strides: stride of each stage's first convolution.
        convs: convolutions, or residual blocks, of each encoder stage.
        decoder_convs: convolutions of each decoder stage, from the deepest up; one fewer than ``convs``.
        conv_bias: whether convolutions have a bias; that of the logits always has one.
        norm: "instance", "batch" or "none".
        norm_eps, norm_affine: of the normalisation.
        activation: "leaky_relu" or "relu".
        negative_slope: of the leaky one.
    """

    in_channels: int
    num_classes: int
    features: tuple[int, ...]
    kernels: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]
    convs: tuple[int, ...]
    decoder_convs: tuple[int, ...]
    conv_bias: bool = True
    norm: str = "instance"
    norm_eps: float = 1e-5
    norm_affine: bool = True
    activation: str = "leaky_relu"
    negative_slope: float = 0.01

    def __post_init__(self):
        stages = len(self.features)
        lengths = [len(self.kernels), len(self.strides), len(self.convs), len(self.decoder_convs) + 1]
        if stages < 2 or lengths != [stages] * 4:
            raise InputError(
                f"features, kernels, strides and convs must name the same stages, two at least, and decoder_convs one "
                f"fewer, but have {stages}, {', '.join(map(str, lengths[:3]))} and {len(self.decoder_convs)}."
            )
        axes = {len(side) for side in (*self.kernels, *self.strides)}
        if axes not in ({2}, {3}):
            raise InputError(f"kernels and strides must be all 2D or all 3D, but have {sorted(axes)} axes.")
        counts = (self.in_channels, self.num_classes, *self.features, *self.convs, *self.decoder_convs)
        for value in (*counts, *sum(self.kernels, ()), *sum(self.strides, ())):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(f"{value!r} is no number of channels, convolutions or voxels: whole, 1 at least.")
        if even := [side for side in sum(self.kernels, ()) if side % 2 == 0]:
            raise InputError(f"A kernel's side is {even[0]}, and should be odd: maps keep their size then.")
        if self.norm not in NORMS:
            raise InputError(f"norm '{self.norm}' is none of: {', '.join(NORMS)}.")
        if self.activation not in ACTIVATIONS:
            raise InputError(f"activation '{self.activation}' is none of: {', '.join(ACTIVATIONS)}.")

    @property
    def axes(self) -> int:
        """2 or 3."""
        return len(self.kernels[0])

    @property
    def ones(self) -> tuple[int, ...]:
        """A kernel, or a stride, of one voxel."""
        return (1,) * self.axes


class ConvBlock(nn.Module):
    """Convolution, normalisation, activation.

    Args:
        inputs, outputs: channels.
        kernel, stride: one number per axis.
        config: bias, normalisation and activation.
        bias: instead of the configuration's.
        activation: False leaves it to the caller.
        activation_first: before the normalisation.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Sequence[int],
        stride: Sequence[int],
        config: UNetConfig,
        *,
        bias: bool | None = None,
        activation: bool = True,
        activation_first: bool = False,
    ):
        super().__init__()
        bias = config.conv_bias if bias is None else bias
        padding = tuple(side // 2 for side in kernel)
        self.conv = CONV[config.axes](inputs, outputs, tuple(kernel), tuple(stride), padding, bias=bias)
        norm = NORMS[config.norm]
        self.norm = (
            norm[config.axes](outputs, eps=config.norm_eps, affine=config.norm_affine) if norm else nn.Identity()
        )
        self.activation = make_activation(config) if activation else nn.Identity()
        self.activation_first = activation_first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        return self.norm(self.activation(x)) if self.activation_first else self.activation(self.norm(x))


class StackedConvs(nn.Module):
    """Convolutions one after another, the first of them strided."""

    def __init__(self, inputs: int, outputs: int, kernel, stride, count: int, config: UNetConfig, **options):
        super().__init__()
        first = ConvBlock(inputs, outputs, kernel, stride, config, **options)
        others = (ConvBlock(outputs, outputs, kernel, config.ones, config, **options) for _ in range(count - 1))
        self.convs = nn.Sequential(first, *others)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.convs(x)


class ResidualUnit(nn.Module):
    """Two convolutions and a shortcut: average pooling where strided, 1x1 convolution where channels change.

    Source: He et al. 2019 (arXiv 1812.01187), as nnU-Net's residual encoder has it.
    """

    def __init__(self, inputs: int, outputs: int, kernel, stride, config: UNetConfig):
        super().__init__()
        self.conv1 = ConvBlock(inputs, outputs, kernel, stride, config)
        self.conv2 = ConvBlock(outputs, outputs, kernel, config.ones, config, activation=False)
        skip: list[nn.Module] = []
        if max(stride) > 1:
            skip.append(AVERAGE_POOL[config.axes](tuple(stride), tuple(stride)))
        if inputs != outputs:
            skip.append(ConvBlock(inputs, outputs, config.ones, config.ones, config, bias=False, activation=False))
        self.skip = nn.Sequential(*skip)
        self.activation = make_activation(config)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.conv2(self.conv1(x)) + self.skip(x))


class Decoder(nn.Module):
    """From the encoder's maps, full resolution first, to logits; with logits of every level for deep supervision."""

    def __init__(self, config: UNetConfig, **options):
        super().__init__()
        features, strides, axes = config.features, config.strides, config.axes
        levels = range(len(features) - 2, -1, -1)  # from the deepest up; level 0 is full resolution
        self.transpconvs = nn.ModuleList(
            TRANSPOSED_CONV[axes](
                features[level + 1], features[level], strides[level + 1], strides[level + 1], bias=config.conv_bias
            )
            for level in levels
        )
        self.stages = nn.ModuleList(
            StackedConvs(
                2 * features[level], features[level], config.kernels[level], config.ones, count, config, **options
            )
            for level, count in zip(levels, config.decoder_convs, strict=True)
        )
        self.seg_layers = nn.ModuleList(CONV[axes](features[level], config.num_classes, 1) for level in levels)

    def forward(self, skips: list[torch.Tensor], deep_supervision: bool) -> torch.Tensor | list[torch.Tensor]:
        x = skips.pop()
        outputs = []
        for up, stage, head in zip(self.transpconvs, self.stages, self.seg_layers, strict=True):
            x = stage(up_beside(up, x, skips.pop()))
            if deep_supervision or not skips:
                outputs.append(head(x))
        return outputs[::-1] if deep_supervision else outputs[-1]


class UNet(nn.Module):
    """Encoder and decoder.

    ``forward`` takes images (B, in_channels, *spatial), each side divisible by the product of its strides, and returns
    logits (B, num_classes, *spatial); with ``deep_supervision`` on, a list of logits, full resolution first, one per
    decoder level. Initial weights are PyTorch's: these networks are there to run what was trained.

    Args:
        config: of the network.
        deep_supervision: see above.
        encoder: "stages", and perhaps a "stem" before them.
        decoder: takes the stages' maps.
    """

    def __init__(self, config: UNetConfig, deep_supervision: bool, encoder: dict[str, nn.Module], decoder: Decoder):
        super().__init__()
        self.config = config
        self.deep_supervision = deep_supervision
        self.encoder = nn.ModuleDict(encoder)
        self.decoder = decoder

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        if "stem" in self.encoder:
            x = self.encoder["stem"](x)
        skips = []
        for stage in self.encoder["stages"]:
            x = stage(x)
            skips.append(x)
        return self.decoder(skips, self.deep_supervision)


def make_activation(config: UNetConfig) -> nn.Module:
    """The configuration's activation."""
    return nn.ReLU(inplace=True) if config.activation == "relu" else nn.LeakyReLU(config.negative_slope, inplace=True)
