"""nnU-Net's U-Net with a residual encoder, in 2D and 3D.

Source: Isensee et al. 2024 (arXiv 2404.09556), ResidualEncoderUNet of dynamic_network_architectures; logits equal its
own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from ..errors import InputError
from .unet_parts import Decoder, ResidualUnit, StackedConvs, UNetConfig


@dataclass(frozen=True)
class ResidualEncoderUNetConfig(UNetConfig):
    """See :class:`UNetConfig`; ``convs`` are residual blocks.

    Attributes:
        stem_channels: channels of the convolution before the first stage; 0: as many as that stage has.
    """

    architecture: ClassVar[str] = "ResidualEncoderUNet"

    stem_channels: int = 0

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.stem_channels, int) or self.stem_channels < 0:
            raise InputError(f"stem_channels {self.stem_channels!r} is no number of channels.")


class ResidualEncoderUNet(nn.Module):
    """The network.

    ``forward`` takes images (B, in_channels, *spatial), each side divisible by the product of its strides, and returns
    logits (B, num_classes, *spatial); with ``deep_supervision`` on, a list of logits, full resolution first, one per
    decoder level. Its initial weights are PyTorch's: it is there to run what was trained.
    """

    def __init__(self, config: ResidualEncoderUNetConfig, deep_supervision: bool = False):
        super().__init__()
        self.config = config
        self.deep_supervision = deep_supervision
        stem = config.stem_channels or config.features[0]
        stages = zip(
            (stem, *config.features), config.features, config.kernels, config.strides, config.convs, strict=False
        )
        self.encoder = nn.ModuleDict(
            {
                "stem": StackedConvs(config.in_channels, stem, config.kernels[0], config.ones, 1, config),
                "stages": nn.ModuleList(_ResidualStage(*stage, config) for stage in stages),
            }
        )
        self.decoder = Decoder(config)

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        x = self.encoder["stem"](x)
        skips = []
        for stage in self.encoder["stages"]:
            x = stage(x)
            skips.append(x)
        return self.decoder(skips, self.deep_supervision)


class _ResidualStage(nn.Module):
    """Residual blocks one after another, the first of them strided."""

    def __init__(self, inputs: int, outputs: int, kernel, stride, count: int, config: UNetConfig):
        super().__init__()
        first = ResidualUnit(inputs, outputs, kernel, stride, config)
        others = (ResidualUnit(outputs, outputs, kernel, config.ones, config) for _ in range(count - 1))
        self.blocks = nn.Sequential(first, *others)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(x)
