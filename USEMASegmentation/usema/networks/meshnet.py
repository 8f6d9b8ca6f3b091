"""MeshNet: a chain of dilated convolutions at full resolution, small enough for a whole head on a processor. 3D only.

Source: Fedorov et al. 2017, "End-to-end learning of brain tissue segmentation from imperfect labeling" (IJCNN, arXiv
1612.00940), as brainchop's networks have it (Masoud et al. 2023, JOSS 8(83):5098): no skips, no pooling, each layer a
3x3x3 convolution with its own dilation, perhaps a norm, an activation; the last one is 1x1x1.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from ..errors import InputError
from .config import NetworkConfig

ACTIVATIONS = {"relu": functional.relu_, "elu": functional.elu_, "gelu": functional.gelu}
NORMS = ("none", "instance")
# oneDNN's channels-last convolutions are fastest where channels are a multiple of this: padded with zeros, 15 channels
# take half the time. Zero channels stay zero, because every activation here maps 0 to 0.
_CHANNEL_BLOCK = 8


@dataclass(frozen=True)
class MeshNetConfig(NetworkConfig):
    """Everything that defines a MeshNet.

    Attributes:
        in_channels: image channels.
        num_classes: output classes, background included.
        channels: of every hidden layer.
        dilations: of each hidden layer, in order.
        bias: of the hidden convolutions; the last one always has a bias.
        norm: after each hidden convolution: "none", or "instance" over the whole image.
        affine: whether that norm has a scale and a shift.
        activation: "relu", "elu" or "gelu" (the exact one).
    """

    architecture: ClassVar[str] = "MeshNet"
    axes: ClassVar[int] = 3

    in_channels: int
    num_classes: int
    channels: int
    dilations: tuple[int, ...]
    bias: bool = True
    norm: str = "none"
    affine: bool = False
    activation: str = "elu"

    def __post_init__(self):
        numbers = (self.in_channels, self.num_classes, self.channels, *self.dilations)
        if not self.dilations or not all(isinstance(value, int) and 0 < value <= 4096 for value in numbers):
            raise InputError(f"The sizes and dilations {numbers} of a MeshNet are not positive whole numbers.")
        for name, value, known in (("norm", self.norm, NORMS), ("activation", self.activation, ACTIVATIONS)):
            if value not in known:
                raise InputError(f"The {name} {value!r} of a MeshNet is not one of {', '.join(known)}.")

    @property
    def radius(self) -> int:
        """Voxels on each side that a logit depends on, where there is no norm over the whole image."""
        return sum(self.dilations)


class MeshNet(nn.Module):
    """See the file's head.

    Args:
        config: its definition.
    """

    def __init__(self, config: MeshNetConfig):
        super().__init__()
        self.config = config
        self.convolutions = nn.ModuleList()
        self.norms = nn.ModuleList()
        before = config.in_channels
        for dilation in config.dilations:
            convolution = nn.Conv3d(before, config.channels, 3, padding=dilation, dilation=dilation, bias=config.bias)
            self.convolutions.append(convolution)
            if config.norm == "instance":
                self.norms.append(nn.InstanceNorm3d(config.channels, affine=config.affine))
            before = config.channels
        self.head = nn.Conv3d(before, config.num_classes, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, a, b, c) to logits (B, num_classes, a, b, c)."""
        features = image.contiguous(memory_format=torch.channels_last_3d)
        for index, convolution in enumerate(self.convolutions):
            features = self._activated(
                _convolve(features, convolution, convolution.padding, convolution.dilation), index
            )
        return self._logits(features)

    def slabs(self, image: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """The logits of `forward`, plane by plane along the first axis, in a fraction of its memory.

        Each layer keeps only the planes that its own dilation still reaches back to, so nothing is computed twice and
        the result is exact. A network with a norm needs the whole image at once: one slab.

        Args:
            image: (1, in_channels, a, b, c).

        Yields:
            (start, logits): (num_classes, planes, b, c) of the planes from start on, in order and without gap.
        """
        if self.norms:
            yield 0, self(image)[0]
            return
        planes = iter(image.contiguous(memory_format=torch.channels_last_3d).split(1, dim=2))
        for index in range(len(self.convolutions)):
            planes = self._rolling(planes, index)
        for start, features in enumerate(planes):
            yield start, self._logits(features)[0]

    def _rolling(self, planes: Iterator[torch.Tensor], index: int) -> Iterator[torch.Tensor]:
        """One layer, plane by plane, over what comes in with zeros before and after it.

        The planes that it still needs lie in one ring: a heap of planes that come and go fragments to twice their size.
        """
        reach = self.convolutions[index].dilation[0]
        first = next(planes)
        count = _planes_at_once(first)
        length = 2 * reach + count
        shape = (*first.shape[:2], length, *first.shape[3:])
        ring = torch.zeros(shape, dtype=first.dtype, device=first.device)
        ring = ring.contiguous(memory_format=torch.channels_last_3d)
        ring[:, :, reach] = first[:, :, 0]  # after the zeros before it
        oldest, held = 0, reach + 1
        del first  # each plane that is kept longer than needed counts once a layer
        for plane in itertools.chain(planes, [None] * reach):
            ring[:, :, (oldest + held) % length] = 0 if plane is None else plane[:, :, 0]
            held += 1
            del plane
            if held == length:
                yield from self._planes(ring, oldest, index, count)
                oldest, held = (oldest + count) % length, held - count
        if held > 2 * reach:
            yield from self._planes(ring, oldest, index, held - 2 * reach)

    def _planes(self, ring: torch.Tensor, oldest: int, index: int, count: int) -> tuple[torch.Tensor, ...]:
        """``count`` planes of a layer's output, each from its plane and those a dilation before and after."""
        convolution = self.convolutions[index]
        reach = convolution.dilation[0]
        taps = [(oldest + tap * reach + plane) % ring.shape[2] for tap in range(3) for plane in range(count)]
        inputs = torch.cat([ring[:, :, tap : tap + 1] for tap in taps], dim=2)
        features = _convolve(inputs, convolution, (0, reach, reach), (count, reach, reach))
        return self._activated(features, index).split(1, dim=2)

    def _activated(self, features: torch.Tensor, index: int) -> torch.Tensor:
        if self.norms:
            features = _instance_norm(features, self.norms[index])
        return ACTIVATIONS[self.config.activation](features)

    def _logits(self, features: torch.Tensor) -> torch.Tensor:
        return _convolve(features, self.head, 0, 1)[:, : self.config.num_classes]


def _convolve(features: torch.Tensor, convolution: nn.Conv3d, padding, dilation) -> torch.Tensor:
    """The convolution with channels padded by zeros; ``features`` may have been padded before."""
    weight, bias = convolution.weight, convolution.bias
    more_out = -weight.shape[0] % _CHANNEL_BLOCK
    weight = functional.pad(weight, (0, 0, 0, 0, 0, 0, 0, features.shape[1] - weight.shape[1], 0, more_out))
    bias = None if bias is None else functional.pad(bias, (0, more_out))
    weight = weight.contiguous(memory_format=torch.channels_last_3d)
    return functional.conv3d(features, weight, bias, padding=padding, dilation=dilation)


def _instance_norm(features: torch.Tensor, norm: nn.InstanceNorm3d) -> torch.Tensor:
    """In place and in the layout it comes in: nn.InstanceNorm3d makes a copy with channels first."""
    variance, mean = torch.var_mean(features, dim=(2, 3, 4), correction=0, keepdim=True)
    features = features.sub_(mean).mul_((variance + norm.eps).rsqrt_())
    if norm.affine:
        more = features.shape[1] - norm.weight.shape[0]
        shape = (1, -1, 1, 1, 1)
        features = features.mul_(functional.pad(norm.weight, (0, more)).view(shape))
        features = features.add_(functional.pad(norm.bias, (0, more)).view(shape))
    return features


def _planes_at_once(plane: torch.Tensor) -> int:
    """How many planes to compute together: PyTorch leaves smaller convolutions to a loop that is ten times slower than
    oneDNN's (``use_mkldnn`` in aten/src/ATen/native/Convolution.cpp: more than 20480 rows).
    """
    channels = -(-plane.shape[1] // _CHANNEL_BLOCK) * _CHANNEL_BLOCK
    return 20480 // (3 * channels * plane.shape[3]) + 1
