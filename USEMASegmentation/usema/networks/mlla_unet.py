"""MLLA-UNet: a U-Net of Mamba-like blocks with linear attention. 2D only.

Source: MLLA-UNet (arXiv 2410.23738). Its encoder is the classifier MILA (Han et al. 2024, "Demystify Mamba in vision",
formerly MLLA); its decoder mirrors it, with two blocks per level. The paper starts from weights that MILA learnt on
ImageNet; here the network is always trained from scratch.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import nn

from ..errors import InputError
from ..sema.rope import apply_rope
from .blocks import ConvBatchNorm, MambaLikeBlock, channels_first, channels_last, initialise_linear
from .config import NetworkConfig

STEM_STRIDE = 4
EPSILON = 1e-6

# MILA's sizes, as MLLAUNetConfig's fields: 28.5, 47.1 and 105.6 million parameters with 14 classes.
PRESETS: dict[str, dict[str, Any]] = {
    "T": {"embed": 64, "depths": (2, 4, 8, 4), "heads": (2, 4, 8, 16), "drop_path": 0.2},
    "S": {"embed": 64, "depths": (3, 6, 21, 6), "heads": (2, 4, 8, 16), "drop_path": 0.3},
    "B": {"embed": 96, "depths": (3, 6, 21, 6), "heads": (3, 6, 12, 24), "drop_path": 0.5},
}


def linear_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, heads: int) -> torch.Tensor:
    """MILA's linear attention on a 2D map, in time linear in the number of tokens n.

    With q and k through ELU + 1, and R the rotation by position (:mod:`usema.sema.rope`), for each head

        out_i = sum_j (R q_i . R k_j) v_j / n  /  (q_i . mean_j(k_j) + 1e-6)

    where (R k)^T v, d x d, is summed first. The normaliser has the vectors that are not rotated, which keeps it
    positive. R turns all C channels before they are split into heads.

    Source: Han et al. 2024 (MILA), whose code splits 1/n between both factors for float16's sake. Here everything is
    computed in float32 or better, also under autocast: float16 has no 1e-6, and its sums over tokens overflow.

    Args:
        q, k, v: (B, H, W, C), channels last.
        heads: number of heads, contiguous channels.

    Returns:
        (B, H, W, C), in v's dtype.
    """
    shape = v.shape[1:-1]
    tokens = shape.numel()
    dtype = torch.promote_types(v.dtype, torch.float32)

    def split(x: torch.Tensor) -> torch.Tensor:
        """(B, H, W, C) to (B, heads, n, C / heads)."""
        return x.flatten(1, -2).unflatten(-1, (heads, -1)).transpose(1, 2)

    device = v.device.type
    with torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext():
        q, k = nn.functional.elu(q.to(dtype)) + 1, nn.functional.elu(k.to(dtype)) + 1
        normaliser = split(q) @ split(k).mean(dim=-2).unsqueeze(-1) + EPSILON
        summed = split(apply_rope(k, shape)).transpose(-2, -1) @ split(v.to(dtype)) / tokens
        out = split(apply_rope(q, shape)) @ summed / normaliser
    return out.transpose(1, 2).reshape(v.shape).to(v.dtype)


@dataclass(frozen=True)
class MLLAUNetConfig(NetworkConfig):
    """Everything that defines an MLLA-UNet. Per-stage values go from the finest stage down to the bottleneck.

    Attributes:
        in_channels: image channels; a single one is copied to three, as the paper does.
        num_classes: output classes, background included.
        embed: channels of the first stage; each further stage has twice as many.
        depths: blocks of each encoder stage.
        heads: attention heads of each stage, in the encoder and in the decoder.
        decoder_depths: blocks of each decoder level: all stages but the bottleneck.
        mlp_ratio: hidden width of the blocks' MLP over their channels.
        drop_path: probability of leaving out a residual branch in training, in the last encoder block; it rises
            linearly from 0 in the first. The decoder leaves none out.
    """

    architecture: ClassVar[str] = "MLLA-UNet"

    in_channels: int
    num_classes: int
    embed: int = 64
    depths: tuple[int, ...] = (2, 4, 8, 4)
    heads: tuple[int, ...] = (2, 4, 8, 16)
    decoder_depths: tuple[int, ...] = (2, 2, 2)
    mlp_ratio: float = 4.0
    drop_path: float = 0.2

    def __post_init__(self):
        stages = len(self.depths)
        if not (len(self.heads) == len(self.decoder_depths) + 1 == stages >= 2):
            raise InputError(
                f"depths, heads and decoder_depths must name the same stages, two at least, the decoder all but the "
                f"last, but have {stages}, {len(self.heads)} and {len(self.decoder_depths)}."
            )
        for channels, heads in zip(self.features, self.heads, strict=True):
            if channels % 4 or heads < 1 or channels % heads:
                raise InputError(
                    f"A stage of {channels} channels with {heads} heads cannot be built.",
                    "Choose an embed of which 4 and the heads of the stages are divisors.",
                )

    @property
    def features(self) -> tuple[int, ...]:
        """Channels of each stage."""
        return tuple(self.embed * 2**stage for stage in range(len(self.depths)))


class MLLAUNet(nn.Module):
    """MLLA-UNet network.

    ``forward`` takes images (B, in_channels, H, W) of any size and returns logits (B, num_classes, H, W). The network
    itself needs sides that the bottleneck's stride (32) divides: zeros are added after the last row and column, as
    the sliding window pads small images, and the logits there are cut off.

    Args:
        config: see MLLAUNetConfig.
        deep_supervision: return a list, as losses over several decoder levels want it. This network has one output,
            so the list is [logits].
    """

    def __init__(self, config: MLLAUNetConfig, deep_supervision: bool = False):
        super().__init__()
        self.config = config
        self.deep_supervision = deep_supervision
        features = config.features
        last = len(features) - 1
        self.stem = Stem(3 if config.in_channels == 1 else config.in_channels, features[0])
        # Real numbers also where the network is built on the meta device.
        probabilities = iter(torch.linspace(0, config.drop_path, sum(config.depths), device="cpu").tolist())
        self.encoder = nn.ModuleList(
            nn.Sequential(*(_block(config, stage, next(probabilities)) for _ in range(config.depths[stage])))
            for stage in range(last + 1)
        )
        self.down = nn.ModuleList(downsampling(features[stage]) for stage in range(last))
        self.norm = LayerNorm(features[last])
        # The decoder goes from the deepest level up.
        levels = range(last - 1, -1, -1)
        self.up = nn.ModuleList(upsampling(features[level + 1]) for level in levels)
        self.merge = nn.ModuleList(nn.Linear(2 * features[level], features[level]) for level in levels)
        self.decoder = nn.ModuleList(
            nn.Sequential(*(_block(config, level, 0.0) for _ in range(config.decoder_depths[level])))
            for level in levels
        )
        self.decoder_norm = LayerNorm(features[0])
        self.expand = FinalExpansion(features[0])
        self.head = nn.Conv2d(features[0], config.num_classes, 1, bias=False)
        self.apply(initialise_linear)

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        height, width = x.shape[2:]
        stride = STEM_STRIDE * 2 ** len(self.down)
        x = nn.functional.pad(x, (0, -width % stride, 0, -height % stride))
        if self.config.in_channels == 1:
            x = x.expand(-1, 3, -1, -1)
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        skips = []
        for stage, down in zip(self.encoder, self.down, strict=False):
            skips.append(x)  # what goes into a stage, not what comes out
            x = down(stage(x))
        x = self.norm(self.encoder[-1](x))
        for up, merge, stage in zip(self.up, self.merge, self.decoder, strict=True):
            x = torch.cat((up(x), skips.pop()), dim=1)
            x = stage(channels_first(merge(channels_last(x))))
        logits = self.head(self.expand(self.decoder_norm(x)))[..., :height, :width]
        return [logits] if self.deep_supervision else logits


def _block(config: MLLAUNetConfig, stage: int, drop_path: float) -> MambaLikeBlock:
    return MambaLikeBlock(
        config.features[stage],
        (3, 3),
        partial(linear_attention, heads=config.heads[stage]),
        value_projection=False,
        mlp_ratio=config.mlp_ratio,
        drop_path=drop_path,
    )


class LayerNorm(nn.LayerNorm):
    """Layer normalisation over the channels of a channels-first map."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return channels_first(super().forward(channels_last(x)))


class Stem(nn.Module):
    """MILA's convolutions from the image to the first stage, at a quarter of its resolution."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.first = ConvBatchNorm(inputs, outputs // 2, 3, stride=2)
        self.residual = nn.Sequential(
            ConvBatchNorm(outputs // 2, outputs // 2, 3), ConvBatchNorm(outputs // 2, outputs // 2, 3, activation=False)
        )
        self.last = nn.Sequential(
            ConvBatchNorm(outputs // 2, 4 * outputs, 3, stride=2),
            ConvBatchNorm(4 * outputs, outputs, 1, activation=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.last(x + self.residual(x))


def downsampling(channels: int) -> nn.Sequential:
    """Half the resolution, twice the channels: MILA's patch merging, by a widened depthwise convolution."""
    wide = 8 * channels
    return nn.Sequential(
        nn.Conv2d(channels, wide, 1),
        nn.ReLU(inplace=True),
        nn.Conv2d(wide, wide, 3, stride=2, padding=1, groups=wide),
        nn.ReLU(inplace=True),
        nn.Conv2d(wide, 2 * channels, 1),
        nn.BatchNorm2d(2 * channels),
    )


def upsampling(channels: int) -> nn.Sequential:
    """Twice the resolution, half the channels: the mirror image of :func:`downsampling`."""
    wide = 4 * channels
    return nn.Sequential(
        nn.Conv2d(channels, wide, 1),
        nn.ReLU(inplace=True),
        nn.ConvTranspose2d(wide, wide, 3, stride=2, padding=1, output_padding=1, groups=wide, bias=False),
        nn.Conv2d(wide, channels // 2, 1),
        nn.BatchNorm2d(channels // 2),
        LayerNorm(channels // 2),
    )


class FinalExpansion(nn.Module):
    """Back to the image's resolution: each token becomes STEM_STRIDE x STEM_STRIDE pixels of as many channels."""

    def __init__(self, channels: int):
        super().__init__()
        self.linear = nn.Linear(channels, STEM_STRIDE**2 * channels, bias=False)
        self.norm = LayerNorm(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = channels_first(self.linear(channels_last(x)))
        return self.norm(nn.functional.pixel_shuffle(x, STEM_STRIDE))
