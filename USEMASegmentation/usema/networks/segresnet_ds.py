"""SegResNetDS: MONAI's residual U-Net that adds its skips, behind the Auto3DSeg models. 3D only.

Source: Myronenko 2018 (arXiv 1810.11654) in MONAI's form, ``monai.networks.nets.SegResNetDS``; logits equal its own. Of
its heads for deep supervision only the last is kept: inference uses no other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from ..errors import InputError
from .config import NetworkConfig

NORMS = {"instance": nn.InstanceNorm3d, "batch": nn.BatchNorm3d}
Axes = tuple[int, int, int]


@dataclass(frozen=True)
class SegResNetDSConfig(NetworkConfig):
    """Everything that defines a SegResNetDS.

    Attributes:
        in_channels: image channels.
        num_classes: channels of the logits.
        filters: channels of the first level; each further one has twice as many.
        blocks_down: residual blocks of each encoder level, the finest first.
        blocks_up: residual blocks of each decoder level, the coarsest first; one fewer than ``blocks_down``.
        resolution: spacing of the images along the network's axes, where it is anisotropic: the first levels leave the
            coarse axes alone. None: every level halves every axis.
        norm: "instance" or "batch", with scale and shift.
    """

    architecture: ClassVar[str] = "SegResNetDS"
    axes: ClassVar[int] = 3

    in_channels: int
    num_classes: int
    filters: int = 32
    blocks_down: tuple[int, ...] = (1, 2, 2, 4, 4)
    blocks_up: tuple[int, ...] = (1, 1, 1, 1)
    resolution: tuple[float, float, float] | None = None
    norm: str = "instance"

    def __post_init__(self):
        numbers = (self.in_channels, self.num_classes, self.filters, *self.blocks_down, *self.blocks_up)
        if not all(isinstance(value, int) and 0 < value <= 4096 for value in numbers):
            raise InputError(f"The sizes {numbers} of a SegResNetDS are not positive whole numbers up to 4096.")
        if not 1 < len(self.blocks_down) == len(self.blocks_up) + 1 <= 8:
            raise InputError(
                f"A SegResNetDS needs 2 to 8 levels and one fewer on the way up, not {len(self.blocks_down)} and "
                f"{len(self.blocks_up)}."
            )
        if self.resolution is not None and not (
            len(self.resolution) == 3 and all(0 < value < math.inf for value in self.resolution)
        ):
            raise InputError(f"The resolution {self.resolution} is not three positive numbers.")
        if self.norm not in NORMS:
            raise InputError(f"The norm {self.norm!r} of a SegResNetDS is not one of {', '.join(NORMS)}.")

    @property
    def scales(self) -> tuple[Axes, ...]:
        """By how much each level but the last is coarsened along each axis on its way down."""
        levels = len(self.blocks_down)
        if self.resolution is None:
            return ((2, 2, 2),) * levels
        # How often an axis is halved until it is as coarse as the coarsest.
        alone = [math.floor(math.log2(max(self.resolution) / value)) for value in self.resolution]
        first = [tuple(2 if 2**level < 2**count else 1 for count in alone) for level in range(max(alone))]
        return tuple([*first, *[(2, 2, 2)] * levels][:levels])

    @property
    def divisors(self) -> Axes:
        """Of the sides of its images."""
        return tuple(math.prod(scale[axis] for scale in self.scales[:-1]) for axis in range(3))


class SegResNetDS(nn.Module):
    """See the file's head. Parameters have the names that MONAI gives them.

    ``forward`` takes (B, in_channels, a, b, c), each side a multiple of ``config.divisors``, and returns the logits
    (B, num_classes, a, b, c).
    """

    def __init__(self, config: SegResNetDSConfig):
        super().__init__()
        self.config = config
        self.encoder = _Encoder(config)
        scales = config.scales
        top = len(config.blocks_up)
        self.up_layers = nn.ModuleList()
        for index, blocks in enumerate(config.blocks_up):
            scale = scales[top - 1 - index]
            channels = config.filters * 2 ** (top - 1 - index)
            level = {"upsample": _Upsample(channels, scale), "blocks": _blocks(blocks, channels, scale, config.norm)}
            if index == top - 1:
                level["head"] = nn.Conv3d(channels, config.num_classes, 1)
            self.up_layers.append(nn.ModuleDict(level))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        *skips, features = self.encoder(image)
        for level in self.up_layers:
            features = level["blocks"](level["upsample"](features).add_(skips.pop()))
        return self.up_layers[-1]["head"](features)


class _Encoder(nn.Module):
    def __init__(self, config: SegResNetDSConfig):
        super().__init__()
        scales = config.scales
        self.conv_init = _convolution(config.in_channels, config.filters, scales[0])
        self.layers = nn.ModuleList()
        for index, blocks in enumerate(config.blocks_down):
            channels, scale = config.filters * 2**index, scales[index]
            level = {"blocks": _blocks(blocks, channels, scale, config.norm)}
            if index < len(config.blocks_down) - 1:
                level["downsample"] = _convolution(channels, 2 * channels, scale, stride=scale)
            self.layers.append(nn.ModuleDict(level))

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """The features of every level, the finest first."""
        features, levels = self.conv_init(image), []
        for level in self.layers:
            features = level["blocks"](features)
            levels.append(features)
            features = level["downsample"](features) if "downsample" in level else features
        return levels


class _Upsample(nn.Module):
    def __init__(self, channels: int, scale: Axes):
        super().__init__()
        kernel = _kernel(scale)
        self.deconv = nn.ConvTranspose3d(
            2 * channels,
            channels,
            kernel,
            stride=scale,
            padding=_halves(kernel),
            output_padding=tuple(factor - 1 for factor in scale),
            bias=False,
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.deconv(features)


class _Block(nn.Module):
    def __init__(self, channels: int, scale: Axes, norm: str):
        super().__init__()
        self.norm1 = NORMS[norm](channels, affine=True)
        self.conv1 = _convolution(channels, channels, scale)
        self.norm2 = NORMS[norm](channels, affine=True)
        self.conv2 = _convolution(channels, channels, scale)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        inside = self.conv1(self.norm1(features).relu_())
        return self.conv2(self.norm2(inside).relu_()).add_(features)


def _blocks(count: int, channels: int, scale: Axes, norm: str) -> nn.Sequential:
    return nn.Sequential(*(_Block(channels, scale, norm) for _ in range(count)))


def _convolution(inputs: int, outputs: int, scale: Axes, stride: Axes = (1, 1, 1)) -> nn.Conv3d:
    kernel = _kernel(scale)
    return nn.Conv3d(inputs, outputs, kernel, stride=stride, padding=_halves(kernel), bias=False)


def _kernel(scale: Axes) -> Axes:
    """Axes that a level leaves alone are not looked along either."""
    return tuple(3 if factor > 1 else 1 for factor in scale)


def _halves(kernel: Axes) -> Axes:
    return tuple(side // 2 for side in kernel)
