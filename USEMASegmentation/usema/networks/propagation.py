"""The small U-Net that says how far a correction holds: not for images, but for what a model and a user say of one."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

CHANNELS = (16, 32, 32)  # at full, half and a quarter of the resolution


class Propagation(nn.Module):
    """Of features to what becomes of a score: how much of it is kept, and what is added.

    A fresh one keeps 95 % of the score and adds nothing.

    Args:
        features: channels of what comes in.
    """

    def __init__(self, features: int):
        super().__init__()
        full, half, quarter = CHANNELS
        self.down_full, self.down_half, self.down_quarter = (
            _block(features, full),
            _block(full, half, 2),
            _block(half, quarter, 2),
        )
        self.up_half, self.up_full = _block(quarter + half, half), _block(half + full, full)
        self.head = nn.Conv3d(full, 2, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (1, features, a, b, c) to factors from 0 to 1 and summands in logits, (1, 1, a, b, c) each."""
        full = self.down_full(features)
        half = self.down_half(full)
        quarter = self.down_quarter(half)
        half = self.up_half(torch.cat([_as_large(quarter, half), half], dim=1))
        found = self.head(self.up_full(torch.cat([_as_large(half, full), full], dim=1)))
        return torch.exp(-functional.softplus(found[:, 1:] - 3)), 4 * found[:, :1]


def _block(channels: int, out: int, stride: int = 1) -> nn.Sequential:
    first, second = nn.Conv3d(channels, out, 3, stride, 1), nn.Conv3d(out, out, 3, 1, 1)
    return nn.Sequential(first, nn.LeakyReLU(0.1), second, nn.LeakyReLU(0.1))


def _as_large(maps: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(maps, size=other.shape[2:], mode="trilinear", align_corners=False)
