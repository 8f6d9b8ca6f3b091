"""The networks, by name. They see tensors alone: nothing here knows what a volume is."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

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
    "without_values",
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


def without_values(architecture: dict[str, Any]) -> nn.Module:
    """As ``build``, on the device "meta": shapes alone, no memory and no initial values; for weights to be assigned."""
    with torch.device("meta"), _NoInitialValues():
        return build(architecture)


class _NoInitialValues(TorchFunctionMode):
    """Random values of tensors of the device "meta" would have PyTorch load its compiler, a third of a run's start."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if getattr(function, "__name__", "") in ("normal_", "uniform_"):
            return args[0] if args else kwargs["tensor"]
        return function(*args, **(kwargs or {}))
