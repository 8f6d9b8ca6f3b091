"""What a model says as it is and what it has learned, both in one run: the one fades into the other.

What was learned holds near the slices that it was learned from. So its logits count there, and less the farther away a
voxel is: far from all corrections the result is the model's own.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from .lesson import Lesson, Shown, along, away_from
from .parameters import head_of, networks_of

REACH = 12.0  # voxels of the network, over which what was learned falls to 1/e


class Beside(nn.Module):
    """The outputs of two modules for the same input, one behind the other along the channels."""

    def __init__(self, own: nn.Module, learned: nn.Module):
        super().__init__()
        self.own, self.learned = own, learned

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.own(x), self.learned(x)], dim=1)


def both(own: nn.Module, learned: nn.Module, deep: bool) -> nn.Module:
    """A network that gives the logits of both; where only heads have learned, all before them runs once."""
    if deep:
        return Beside(own, learned)
    network = copy.deepcopy(own)
    for (_, one), (_, other) in zip(networks_of(network), networks_of(learned), strict=True):
        holder, name = head_of(one)
        other_holder, _ = head_of(other)
        setattr(holder, name, Beside(holder.get_submodule(name), other_holder.get_submodule(name)))
    return network


@dataclass(frozen=True, eq=False)
class Faded:
    """How much of what was learned counts, by the distance to the nearest corrected slice.

    Attributes:
        weights: for each axis of the data with corrected slices, those of its planes.
    """

    weights: tuple[tuple[int, np.ndarray], ...]

    @classmethod
    def of(cls, lesson: Lesson, shown: Sequence[Shown]) -> Faded:
        """Of the slices that were learned from."""
        found = []
        for axis in sorted({one.axis for one in shown}):
            away = away_from([one for one in shown if one.axis == axis], lesson.data.shape[1 + axis])
            found.append((axis, np.exp(-away / REACH).astype(np.float32)))
        return cls(tuple(found))

    def __call__(self, start: int, logits: torch.Tensor) -> torch.Tensor:
        """A slab of both logits, (2 outputs, d, b, c) from plane ``start`` on; gives (outputs, d, b, c)."""
        own, learned = logits.chunk(2)
        cuts = [slice(start, start + logits.shape[1]), slice(None), slice(None)]
        return own + self._mixed([(axis, weights[cuts[axis]]) for axis, weights in self.weights], own) * (learned - own)

    def at(self, shown: Shown, own: torch.Tensor, learned: torch.Tensor) -> torch.Tensor:
        """The same for the planes of one slice alone."""
        cut = [(axis, weights[shown.planes] if axis == shown.axis else weights) for axis, weights in self.weights]
        return own + self._mixed(cut, own) * (learned - own)

    @staticmethod
    def _mixed(weights: Sequence[tuple[int, np.ndarray]], logits: torch.Tensor) -> torch.Tensor:
        total = logits.new_zeros(1)
        for axis, its in weights:
            total = torch.maximum(total, along(axis, its, logits))
        return total
