"""MeshNet: a chain of dilated convolutions at full resolution, small enough for a whole head on a processor. 3D only.

Source: Fedorov et al. 2017, "End-to-end learning of brain tissue segmentation from imperfect labeling" (IJCNN, arXiv
1612.00940), as brainchop's networks have it (Masoud et al. 2023, JOSS 8(83):5098): no skips, no pooling, each layer a
3x3x3 convolution with its own dilation, perhaps a norm, an activation; the last one is 1x1x1.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
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
_MOST_RING_BYTES = 520_000_000  # with all else, a whole head then takes about a gigabyte


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

    def strips(self, shape: Sequence[int]) -> list[tuple[int, int]]:
        """Where to cut an image along its second axis so that the planes of `slabs` take little memory.

        Each strip is computed with a margin that shrinks from layer to layer, so the result stays exact; two strips of
        a whole head take 0.6 times the memory and 1.2 times the time of one.

        Args:
            shape: (a, b, c) of the image.

        Returns:
            (begin, end) of each, in order; one where nothing has to be cut, or nothing can be.
        """
        rows = shape[1]
        if self.norms:
            return [(0, rows)]
        most = max(1, rows // self.config.radius)  # narrower ones are margin for the larger part
        cuts = [[(rows * n // count, rows * (n + 1) // count) for n in range(count)] for count in range(1, most + 1)]
        sizes = [max(self._ring_bytes(strip, shape) for strip in strips) for strips in cuts]
        return next((cut for cut, size in zip(cuts, sizes, strict=True) if size <= _MOST_RING_BYTES), cuts[-1])

    def slabs(self, image: torch.Tensor, strip: tuple[int, int] | None = None) -> Iterator[tuple[int, torch.Tensor]]:
        """The logits of `forward`, plane by plane along the first axis, in a fraction of its memory.

        Each layer keeps only the planes that its own dilation still reaches back to, so nothing is computed twice and
        the result is exact. A network with a norm needs all voxels of a layer at once: those of one layer alone.

        Args:
            image: (1, in_channels, a, b, c).
            strip: one of `strips`; None: the whole second axis.

        Yields:
            (start, logits): (num_classes, planes, rows of the strip, c) of the planes from start on, in order and
            without gap.
        """
        strip = strip or (0, image.shape[3])
        planes = image.contiguous(memory_format=torch.channels_last_3d).split(1, dim=2)
        if self.norms:
            planes = self._normed(planes).split(1, dim=2)
        else:
            rows = self._rows(strip, image.shape[3])
            planes = _cut(planes, (0, image.shape[3]), rows[0])
            for index, (before, after) in enumerate(itertools.pairwise(rows)):
                planes = _cut(self._rolling(planes, index), before, after)
        for start, features in enumerate(planes):
            yield start, self._logits(features)[0]

    def _normed(self, planes: Sequence[torch.Tensor]) -> torch.Tensor:
        """All layers of a network with norms, each written over the one before."""
        shape = (1, self.config.channels + -self.config.channels % _CHANNEL_BLOCK, len(planes), *planes[0].shape[3:])
        features = torch.empty(shape, dtype=planes[0].dtype, device=planes[0].device)
        features = features.contiguous(memory_format=torch.channels_last_3d)
        for index in range(len(self.convolutions)):
            # A plane is written when no later one needs it any more: what does, holds a copy.
            for start, plane in enumerate(self._rolling(iter(planes), index)):
                features[:, :, start] = plane[:, :, 0]
            planes = features.split(1, dim=2)
            scale, shift = _scale_and_shift(features, self.norms[index])
            for plane in planes:
                plane.copy_(self._activation(plane.mul_(scale).add_(shift)))
        return features

    def _rows(self, strip: tuple[int, int], rows: int) -> list[tuple[int, int]]:
        """(begin, end) of what each layer has to see of the second axis, and, last, of the strip itself."""
        margins = [*itertools.accumulate(reversed(self.config.dilations), initial=0)]
        return [(max(0, strip[0] - margin), min(rows, strip[1] + margin)) for margin in reversed(margins)]

    def _ring_bytes(self, strip: tuple[int, int], shape: Sequence[int]) -> int:
        """What the planes take that all layers but the first hold at a time, in single precision."""
        channels = self.config.channels + -self.config.channels % _CHANNEL_BLOCK
        rows = [end - begin for begin, end in self._rows(strip, shape[1])[1:]]
        planes = sum((2 * dilation + 1) * n for dilation, n in zip(self.config.dilations[1:], rows, strict=False))
        return 4 * channels * shape[2] * planes

    def _rolling(self, planes: Iterator[torch.Tensor], index: int) -> Iterator[torch.Tensor]:
        """One layer without its norm, plane by plane, over what comes in with zeros before and after it.

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
        return (features if self.norms else self._activation(features)).split(1, dim=2)

    def _activated(self, features: torch.Tensor, index: int) -> torch.Tensor:
        if self.norms:
            scale, shift = _scale_and_shift(features, self.norms[index])
            features = features.mul_(scale).add_(shift)
        return self._activation(features)

    def _activation(self, features: torch.Tensor) -> torch.Tensor:
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


def _scale_and_shift(features: torch.Tensor, norm: nn.InstanceNorm3d) -> tuple[torch.Tensor, torch.Tensor]:
    """What to multiply each channel by, and then to add, for the norm; channels may have been padded.

    nn.InstanceNorm3d makes a copy with channels first.
    """
    variance, mean = torch.var_mean(features, dim=(2, 3, 4), correction=0, keepdim=True)
    scale = (variance + norm.eps).rsqrt_()
    shift = -mean * scale
    if norm.affine:
        more = features.shape[1] - norm.weight.shape[0]
        weight, bias = (functional.pad(one, (0, more)).view(1, -1, 1, 1, 1) for one in (norm.weight, norm.bias))
        scale, shift = scale * weight, shift * weight + bias
    return scale, shift


def _cut(planes: Iterable[torch.Tensor], rows: tuple[int, int], wanted: tuple[int, int]) -> Iterator[torch.Tensor]:
    """Of planes that hold these rows, those that are wanted."""
    return (plane[:, :, :, wanted[0] - rows[0] : wanted[1] - rows[0]] for plane in planes)


def _planes_at_once(plane: torch.Tensor) -> int:
    """How many planes to compute together: PyTorch leaves smaller convolutions to a loop that is ten times slower than
    oneDNN's (``use_mkldnn`` in aten/src/ATen/native/Convolution.cpp: more than 20480 rows).
    """
    channels = -(-plane.shape[1] // _CHANNEL_BLOCK) * _CHANNEL_BLOCK
    return 20480 // (3 * channels * plane.shape[3]) + 1
