"""nnU-Net's plain U-Net: convolutions alone, in 2D and 3D.

Source: nnU-Net (Isensee et al. 2021), PlainConvUNet of dynamic_network_architectures; logits equal its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from .unet_parts import Decoder, StackedConvs, UNet, UNetConfig


@dataclass(frozen=True)
class PlainConvUNetConfig(UNetConfig):
    """See :class:`UNetConfig`.

    Attributes:
        activation_first: each convolution is followed by the activation, then by the normalisation.
    """

    architecture: ClassVar[str] = "PlainConvUNet"

    activation_first: bool = False


class PlainConvUNet(UNet):
    """The network; see :class:`UNet`."""

    def __init__(self, config: PlainConvUNetConfig, deep_supervision: bool = False):
        options = {"activation_first": config.activation_first}
        inputs = (config.in_channels, *config.features)
        stages = zip(inputs, config.features, config.kernels, config.strides, config.convs, strict=False)
        # A Sequential of one, as in nnU-Net, for the names of its weights.
        encoder = nn.ModuleList(nn.Sequential(StackedConvs(*stage, config, **options)) for stage in stages)
        super().__init__(config, deep_supervision, {"stages": encoder}, Decoder(config, **options))
