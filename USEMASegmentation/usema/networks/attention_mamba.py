"""Attention-Mamba: a small pyramid network that weighs its levels' scores with Mamba. 2D only.

Source: Attention-Mamba (arXiv 2402.02286, version 4). A ResNet-18 gives four levels; two paths exchange what they see;
all levels are aligned with the finest; Mamba looks over each whole map; and Mamba weighs, by class and by place, what
each level says. The paper starts from a backbone that learnt ImageNet; here the network is always trained from scratch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn.functional import grid_sample, interpolate

from ..errors import InputError
from .blocks import ConvBatchNorm, channels_first, channels_last
from .config import NetworkConfig
from .mamba import SS2D, Mamba

LEVELS = 4
SCORE_STRIDE = 4  # of the finest level, at which all classes are scored
REDUCTION = 16  # of the channels between the two layers that turn channels into weights of classes


@dataclass(frozen=True)
class AttentionMambaConfig(NetworkConfig):
    """Everything that defines an Attention-Mamba network.

    Attributes:
        in_channels: image channels; a single one is copied to three, as the paper does.
        num_classes: output classes, background included.
        features: channels of the backbone's four levels, at strides 4, 8, 16, 32.
        width: channels of each level behind the backbone.
        blocks: SS2D blocks of each level.
        states: numbers in the state of one channel of Mamba.
        expand: Mamba's inner channels over its outer ones.
    """

    architecture: ClassVar[str] = "Attention-Mamba"

    in_channels: int
    num_classes: int
    features: tuple[int, ...] = (64, 128, 256, 512)
    width: int = 128
    blocks: int = 2
    states: int = 16
    expand: int = 2

    def __post_init__(self):
        if len(self.features) != LEVELS:
            raise InputError(f"features must name the channels of {LEVELS} levels, but has {len(self.features)}.")
        if self.width < REDUCTION:
            raise InputError(f"A width of {self.width} channels is too small.", f"Choose {REDUCTION} or more.")


class AttentionMamba(nn.Module):
    """Attention-Mamba network.

    ``forward`` takes images (B, in_channels, H, W) of any size and returns logits (B, num_classes, H, W). Images whose
    sides 4 does not divide are continued with zeros after the last row and column, and the logits there cut off.

    In training, with ``deep_supervision`` on, it returns a list of nine such logits instead: the final ones; the four
    levels' scores, finest first; and those of the four aligned levels before Mamba ("in" supervision), whose heads
    serve nothing else. The paper weighs their losses 1, 1, 1, 1, 1 and four times 1/4.
    """

    def __init__(self, config: AttentionMambaConfig, deep_supervision: bool = False):
        super().__init__()
        self.config = config
        self.deep_supervision = deep_supervision
        width, classes = config.width, config.num_classes
        self.backbone = Backbone(3 if config.in_channels == 1 else config.in_channels, config.features)
        self.lateral = nn.ModuleList(ConvBatchNorm(channels, width, 1) for channels in config.features)
        self.paths = DualPath(width)
        self.alignment = Alignment(width)
        self.branches = nn.ModuleList(
            nn.Sequential(*(SS2DBlock(config) for _ in range(config.blocks))) for _ in range(LEVELS)
        )
        self.scores = nn.ModuleList(nn.Conv2d(width, classes, 1) for _ in range(LEVELS))
        self.in_heads = nn.ModuleList(nn.Conv2d(width, classes, 1) for _ in range(LEVELS))
        self.channel_attention = ChannelAttention(config)
        self.spatial_attention = SpatialAttention(config)
        self.apply(_initialise)

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        height, width = x.shape[2:]
        x = nn.functional.pad(x, (0, -width % SCORE_STRIDE, 0, -height % SCORE_STRIDE))
        if self.config.in_channels == 1:
            x = x.expand(-1, 3, -1, -1)
        levels = self.backbone(x.contiguous(memory_format=torch.channels_last))
        levels = [convolution(level) for convolution, level in zip(self.lateral, levels, strict=True)]
        aligned = self.alignment(self.paths(levels))
        seen = [branch(level) for branch, level in zip(self.branches, aligned, strict=True)]
        scores = [head(level) for head, level in zip(self.scores, seen, strict=True)]
        weights = zip(scores, self.channel_attention(seen), self.spatial_attention(seen), strict=True)
        outputs = [sum(score * by_class * by_place for score, by_class, by_place in weights)]
        if self.training and self.deep_supervision:
            outputs += scores
            outputs += [head(level) for head, level in zip(self.in_heads, aligned, strict=True)]
        outputs = [resize(output, x.shape[2:])[..., :height, :width] for output in outputs]
        return outputs if self.training and self.deep_supervision else outputs[0]


def resize(x: torch.Tensor, size) -> torch.Tensor:
    return interpolate(x, size, mode="bilinear", align_corners=True)


def _initialise(module: nn.Module) -> None:
    """Initial weights: He for convolutions that ReLU follows, as ResNet has them; all others keep PyTorch's."""
    if isinstance(module, ConvBatchNorm):
        nn.init.kaiming_normal_(module[0].weight, mode="fan_out", nonlinearity="relu")


class BasicBlock(nn.Module):
    """ResNet's block of two convolutions and a shortcut (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        self.convolutions = nn.Sequential(
            ConvBatchNorm(inputs, outputs, 3, stride), ConvBatchNorm(outputs, outputs, 3, activation=False)
        )
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else ConvBatchNorm(inputs, outputs, 1, stride, activation=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.relu(self.convolutions(x) + self.shortcut(x))


class Backbone(nn.Module):
    """ResNet-18 whose first convolution of side 7 is three of side 3 ("deep stem"); gives its four levels."""

    def __init__(self, inputs: int, features: tuple[int, ...]):
        super().__init__()
        first = features[0]
        self.stem = nn.Sequential(
            ConvBatchNorm(inputs, first, 3, stride=2),
            ConvBatchNorm(first, first, 3),
            ConvBatchNorm(first, 2 * first, 3),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        before = (2 * first, *features)
        self.stages = nn.ModuleList(
            nn.Sequential(
                BasicBlock(before[level], features[level], stride=2 if level else 1),
                BasicBlock(features[level], features[level]),
            )
            for level in range(LEVELS)
        )

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = self.stem(x)
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        return levels


class DualPath(nn.Module):
    """One path from the deepest level up and one from the finest down, side by side; the middle levels have their sum.

    Takes and returns four maps of ``width`` channels, finest first.
    """

    def __init__(self, width: int):
        super().__init__()
        self.up = nn.ModuleList(ConvBatchNorm(width, width, 3) for _ in range(LEVELS - 1))
        self.down = nn.ModuleList(ConvBatchNorm(width, width, 3) for _ in range(LEVELS - 1))
        self.merge = nn.ModuleList(ConvBatchNorm(width, width, 3) for _ in range(LEVELS - 2))

    def forward(self, levels: list[torch.Tensor]) -> list[torch.Tensor]:
        up = self._walk(self.up, levels[::-1])[::-1]
        down = self._walk(self.down, levels)
        middle = [merge(a + b) for merge, a, b in zip(self.merge, up[1:-1], down[1:-1], strict=True)]
        return [up[0], *middle, down[-1]]

    @staticmethod
    def _walk(convolutions: nn.ModuleList, levels: list[torch.Tensor]) -> list[torch.Tensor]:
        walked = levels[:1]
        for convolution, level in zip(convolutions, levels[1:], strict=True):
            walked.append(convolution(resize(walked[-1], level.shape[2:]) + level))
        return walked


class Alignment(nn.Module):
    """Brings all levels to the finest one's resolution, step by step along learnt flows ("RAM").

    A flow between two neighbouring levels says, for each place of the finer one, where to look in the coarser one.
    """

    def __init__(self, width: int):
        super().__init__()
        self.flows = nn.ModuleList(Flow(width) for _ in range(LEVELS - 1))

    def forward(self, levels: list[torch.Tensor]) -> list[torch.Tensor]:
        grids = [flow(fine, coarse) for flow, fine, coarse in zip(self.flows, levels, levels[1:], strict=False)]
        aligned = []
        for number, level in enumerate(levels):
            for grid in reversed(grids[:number]):
                level = grid_sample(level, grid.to(level.dtype), align_corners=True)
            aligned.append(level)
        return aligned


class Flow(nn.Module):
    """Sampling grid (B, H, W, 2), for grid_sample, from a fine level (B, C, H, W) into its coarser neighbour.

    Source: semantic flow (SFNet, Li et al. 2020, arXiv 2002.10120).
    """

    def __init__(self, width: int):
        super().__init__()
        self.fine = nn.Conv2d(width, width // 2, 1, bias=False)
        self.coarse = nn.Conv2d(width, width // 2, 1, bias=False)
        self.flow = nn.Conv2d(2 * (width // 2), 2, 3, padding=1, bias=False)

    def forward(self, fine: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        height, width = fine.shape[2:]
        flow = self.flow(torch.cat((self.fine(fine), resize(self.coarse(coarse), (height, width))), dim=1))
        # Float32: under autocast, places of a large map would fall together.
        flow = channels_last(flow).float() / flow.new_tensor([width, height]).float()
        rows = torch.linspace(-1, 1, height, device=flow.device)
        columns = torch.linspace(-1, 1, width, device=flow.device)
        here = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)
        return here + flow


class SS2DBlock(nn.Module):
    """x + SS2D(LayerNorm(x)) on a channels-first map."""

    def __init__(self, config: AttentionMambaConfig):
        super().__init__()
        self.norm = nn.LayerNorm(config.width)
        self.ss2d = SS2D(config.width, config.states, config.expand)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + channels_first(self.ss2d(self.norm(channels_last(x))))


class BidirectionalMamba(nn.Module):
    """The sum of two Mamba layers on sequences (B, L, C), one of which reads them backwards."""

    def __init__(self, channels: int, config: AttentionMambaConfig):
        super().__init__()
        self.forwards = Mamba(channels, config.states, expand=config.expand)
        self.backwards = Mamba(channels, config.states, expand=config.expand)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.forwards(tokens) + self.backwards(tokens.flip(1)).flip(1)


class ChannelAttention(nn.Module):
    """A weight for each level and class, (B, num_classes, 1, 1) a level.

    Every channel of every level, as its mean plus its maximum, is one token of one number.
    """

    def __init__(self, config: AttentionMambaConfig):
        super().__init__()
        self.mamba = BidirectionalMamba(1, config)
        self.weigh = nn.Sequential(
            nn.Linear(LEVELS * config.width, config.width // REDUCTION, bias=False),
            nn.ReLU(inplace=True),
            nn.Linear(config.width // REDUCTION, LEVELS * config.num_classes, bias=False),
        )

    def forward(self, levels: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        tokens = torch.cat([level.mean(dim=(2, 3)) + level.amax(dim=(2, 3)) for level in levels], dim=1)
        weights = torch.sigmoid(self.weigh(self.mamba(tokens.unsqueeze(-1)).squeeze(-1)))
        return weights[..., None, None].chunk(LEVELS, dim=1)


class SpatialAttention(nn.Module):
    """A weight for each level and place, (B, 1, H, W) a level.

    Every place of every level, as mean and maximum of its channels, is one token of two numbers.
    """

    def __init__(self, config: AttentionMambaConfig):
        super().__init__()
        self.mamba = BidirectionalMamba(2, config)
        self.weigh = nn.Linear(2, 1)

    def forward(self, levels: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        size = levels[0].shape[2:]
        tokens = torch.cat(
            [torch.stack((level.mean(dim=1), level.amax(dim=1)), dim=-1).flatten(1, 2) for level in levels], dim=1
        )
        weights = torch.sigmoid(self.weigh(self.mamba(tokens))).squeeze(-1).unflatten(1, (LEVELS, *size))
        return weights.split(1, dim=1)
