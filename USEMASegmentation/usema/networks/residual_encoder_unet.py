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
from .unet_parts import Decoder, ResidualUnit, StackedConvs, UNet, UNetConfig


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


class ResidualEncoderUNet(UNet):
    """The network; see :class:`UNet`."""

    def __init__(self, config: ResidualEncoderUNetConfig, deep_supervision: bool = False):
        stem = config.stem_channels or config.features[0]
        inputs = (stem, *config.features)
        stages = zip(inputs, config.features, config.kernels, config.strides, config.convs, strict=False)
        encoder = {
            "stem": StackedConvs(config.in_channels, stem, config.kernels[0], config.ones, 1, config),
            "stages": nn.ModuleList(_ResidualStage(*stage, config) for stage in stages),
        }
        super().__init__(config, deep_supervision, encoder, Decoder(config))


class _ResidualStage(nn.Module):
    """Residual blocks one after another, the first of them strided."""

    def __init__(self, inputs: int, outputs: int, kernel, stride, count: int, config: UNetConfig):
        super().__init__()
        first = ResidualUnit(inputs, outputs, kernel, stride, config)
        others = (ResidualUnit(outputs, outputs, kernel, config.ones, config) for _ in range(count - 1))
        self.blocks = nn.Sequential(first, *others)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(x)
