"""nnU-Net's plain U-Net: convolutions alone, in 2D and 3D.

Source: nnU-Net (Isensee et al. 2021), PlainConvUNet of dynamic_network_architectures; logits equal its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from .unet_parts import Decoder, StackedConvs, UNetConfig


@dataclass(frozen=True)
class PlainConvUNetConfig(UNetConfig):
    """See :class:`UNetConfig`.

    Attributes:
        activation_first: each convolution is followed by the activation, then by the normalisation.
    """

    architecture: ClassVar[str] = "PlainConvUNet"

    activation_first: bool = False


class PlainConvUNet(nn.Module):
    """The network.

    ``forward`` takes images (B, in_channels, *spatial), each side divisible by the product of its strides, and returns
    logits (B, num_classes, *spatial); with ``deep_supervision`` on, a list of logits, full resolution first, one per
    decoder level. Its initial weights are PyTorch's: it is there to run what was trained.
    """

    def __init__(self, config: PlainConvUNetConfig, deep_supervision: bool = False):
        super().__init__()
        self.config = config
        self.deep_supervision = deep_supervision
        options = {"activation_first": config.activation_first}
        inputs = (config.in_channels, *config.features)
        stages = zip(inputs, config.features, config.kernels, config.strides, config.convs, strict=False)
        self.encoder = nn.ModuleDict(
            {"stages": nn.ModuleList(nn.Sequential(StackedConvs(*stage, config, **options)) for stage in stages)}
        )
        self.decoder = Decoder(config, **options)

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        skips = []
        for stage in self.encoder["stages"]:
            x = stage(x)
            skips.append(x)
        return self.decoder(skips, self.deep_supervision)
