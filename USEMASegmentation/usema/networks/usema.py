"""The USEMA network: a U-Net whose encoder stages pair convolutions with SEMA attention, in 2D and 3D.

Source: USEMA (arXiv 2605.11131). Its code is not public; this is our reconstruction: nnU-Net's residual encoder and
decoder as U-Mamba (arXiv 2401.04722) arranges them, with one SEMA block after each encoder stage. What had to be
inferred is a switch of :class:`USEMAConfig`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from ..errors import InputError
from .blocks import CONV, TRANSPOSED_CONV, ConvNorm, ResidualBlock, SEMABlock, initialise, up_beside
from .config import NetworkConfig

SEMA_STAGES = ("all", "bottleneck", "alternate", "skip_full_resolution", "none")


@dataclass(frozen=True)
class USEMAConfig(NetworkConfig):
    """Everything that defines a USEMA network. Per-stage values go from full resolution down to the bottleneck.

    Attributes:
        in_channels: image channels.
        num_classes: output classes, background included.
        features: channels of each stage.
        kernels: convolution kernel of each stage, one side per axis; their number of axes makes the network 2D or 3D.
        strides: stride of each stage's first block; the first is all ones.
        blocks: residual blocks per stage, in the encoder and in the decoder.
        sema_stages: which encoder stages have a SEMA block. "none" is the attention-free control network;
            "alternate" counts back from the bottleneck.
        window: side of the attention windows.
        head_dim: channels per attention head; a stage with fewer channels has one head.
        value_projection, mlp_ratio, rope, lepe, cpe, mean, local, drop_path: see SEMABlock.
    """

    architecture: ClassVar[str] = "USEMA"

    in_channels: int
    num_classes: int
    features: tuple[int, ...]
    kernels: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]
    blocks: int = 2
    sema_stages: str = "all"
    window: int = 7
    head_dim: int = 32
    value_projection: bool = True
    mlp_ratio: float = 4.0
    rope: bool = True
    lepe: bool = True
    cpe: bool = True
    mean: bool = True
    local: bool = True
    drop_path: float = 0.0

    def __post_init__(self):
        stages = len(self.features)
        if not (len(self.kernels) == len(self.strides) == stages >= 2):
            raise InputError(
                f"features, kernels and strides must name the same stages, two at least, but have "
                f"{stages}, {len(self.kernels)} and {len(self.strides)}."
            )
        axes = {len(side) for side in (*self.kernels, *self.strides)}
        if axes not in ({2}, {3}):
            raise InputError(f"kernels and strides must be all 2D or all 3D, but have {sorted(axes)} axes.")
        if self.sema_stages not in SEMA_STAGES:
            raise InputError(f"sema_stages '{self.sema_stages}' is none of: {', '.join(SEMA_STAGES)}.")
        for channels in self.features:
            if channels % self.heads(channels) or channels % 2:
                raise InputError(f"{channels} features do not divide into heads of {self.head_dim} channels.")

    @property
    def axes(self) -> int:
        """2 or 3."""
        return len(self.kernels[0])

    def heads(self, channels: int) -> int:
        """Attention heads of a stage with this many channels."""
        return max(1, channels // self.head_dim)

    def has_sema(self, stage: int) -> bool:
        """Whether encoder stage ``stage`` ends with a SEMA block."""
        last = len(self.features) - 1
        return {
            "all": True,
            "bottleneck": stage == last,
            "alternate": (last - stage) % 2 == 0,
            "skip_full_resolution": stage > 0,
            "none": False,
        }[self.sema_stages]


class USEMA(nn.Module):
    """USEMA network.

    ``forward`` takes images (B, in_channels, *spatial), each side divisible by the product of its strides, and returns
    logits (B, num_classes, *spatial); with ``deep_supervision`` on, a list of logits, full resolution first, one per
    decoder level.
    """

    def __init__(self, config: USEMAConfig, deep_supervision: bool = False):
        super().__init__()
        self.config = config
        self.deep_supervision = deep_supervision
        axes, features = config.axes, config.features
        self.stem = ConvNorm(config.in_channels, features[0], config.kernels[0])
        self.encoder = nn.ModuleList(
            _stage(features[max(stage - 1, 0)], features[stage], config.kernels[stage], config.strides[stage], config)
            for stage in range(len(features))
        )
        self.attention = nn.ModuleList(
            self._sema_block(stage) if config.has_sema(stage) else nn.Identity() for stage in range(len(features))
        )
        # The decoder goes from the deepest level up; level 0 is full resolution.
        levels = range(len(features) - 2, -1, -1)
        self.up = nn.ModuleList(
            TRANSPOSED_CONV[axes](
                features[level + 1], features[level], config.strides[level + 1], config.strides[level + 1]
            )
            for level in levels
        )
        self.decoder = nn.ModuleList(
            _stage(2 * features[level], features[level], config.kernels[level], None, config) for level in levels
        )
        self.heads = nn.ModuleList(CONV[axes](features[level], config.num_classes, 1) for level in levels)
        self.apply(initialise)

    def _sema_block(self, stage: int) -> SEMABlock:
        config = self.config
        channels = config.features[stage]
        return SEMABlock(
            channels,
            config.kernels[stage],
            heads=config.heads(channels),
            window=config.window,
            value_projection=config.value_projection,
            mlp_ratio=config.mlp_ratio,
            rope=config.rope,
            lepe=config.lepe,
            cpe=config.cpe,
            mean=config.mean,
            local=config.local,
            drop_path=config.drop_path,
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        x = self.stem(x)
        skips = []
        for convolutions, attention in zip(self.encoder, self.attention, strict=True):
            x = attention(convolutions(x))
            skips.append(x)
        skips.pop()
        outputs = []
        for up, convolutions, head in zip(self.up, self.decoder, self.heads, strict=True):
            x = convolutions(up_beside(up, x, skips.pop()))
            if self.deep_supervision or not skips:
                outputs.append(head(x))
        return outputs[::-1] if self.deep_supervision else outputs[-1]


def _stage(inputs: int, outputs: int, kernel, stride, config: USEMAConfig) -> nn.Sequential:
    first = ResidualBlock(inputs, outputs, kernel, stride)
    return nn.Sequential(first, *(ResidualBlock(outputs, outputs, kernel) for _ in range(config.blocks - 1)))
