"""The networks, by name. They see tensors alone: nothing here knows what a volume is."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..errors import InputError
from .attention_mamba import AttentionMamba, AttentionMambaConfig
from .meshnet import MeshNet, MeshNetConfig
from .mlla_unet import MLLAUNet, MLLAUNetConfig
from .plain_conv_unet import PlainConvUNet, PlainConvUNetConfig
from .residual_encoder_unet import ResidualEncoderUNet, ResidualEncoderUNetConfig
from .segresnet_ds import SegResNetDS, SegResNetDSConfig
from .usema import USEMA, USEMAConfig

__all__ = [
    "ARCHITECTURES",
    "USEMA",
    "AttentionMamba",
    "AttentionMambaConfig",
    "MLLAUNet",
    "MLLAUNetConfig",
    "MeshNet",
    "MeshNetConfig",
    "PlainConvUNet",
    "PlainConvUNetConfig",
    "ResidualEncoderUNet",
    "ResidualEncoderUNetConfig",
    "SegResNetDS",
    "SegResNetDSConfig",
    "USEMAConfig",
    "build",
]

ARCHITECTURES = {
    "USEMA": (USEMA, USEMAConfig),
    "MLLA-UNet": (MLLAUNet, MLLAUNetConfig),
    "Attention-Mamba": (AttentionMamba, AttentionMambaConfig),
    "PlainConvUNet": (PlainConvUNet, PlainConvUNetConfig),
    "MeshNet": (MeshNet, MeshNetConfig),
    "ResidualEncoderUNet": (ResidualEncoderUNet, ResidualEncoderUNetConfig),
    "SegResNetDS": (SegResNetDS, SegResNetDSConfig),
}


def build(architecture: dict[str, Any], **options: Any) -> nn.Module:
    """Build a network from its description in a bundle.

    Args:
        architecture: {"name": one of ARCHITECTURES, "config": its configuration}.
        options: given to the network beside its configuration, e.g. deep_supervision=True.

    Raises:
        InputError: an unknown architecture, or a configuration that does not fit it.
    """
    name = architecture.get("name")
    if name not in ARCHITECTURES:
        raise InputError(f"Unknown architecture '{name}'.", f"This version knows: {', '.join(ARCHITECTURES)}.")
    network, config = ARCHITECTURES[name]
    return network(config.from_dict(architecture.get("config", {})), **options)
