"""Mamba's layers, built on the selective scan: for sequences, and for 2D maps.

Sources: Mamba (Gu & Dao 2023, arXiv 2312.00752) and VMamba (Liu et al. 2024, arXiv 2401.10166), with their initial
weights.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from ..scan import selective_scan
from .blocks import DepthwiseConv, channels_first, channels_last


class SelectiveSSM(nn.Module):
    """State space model whose step, input and output weights are linear in its input; one for each direction.

    Args:
        channels: C of the sequences.
        states: numbers in the state of one channel.
        rank: of the map from the input to the step sizes.
        directions: G, how many models work side by side.

    ``forward`` takes and returns (L, B, G, C): positions first, as the scan likes it.
    """

    def __init__(self, channels: int, states: int, rank: int, directions: int = 1):
        super().__init__()
        self.sizes = (rank, states, states)
        self.project = nn.Parameter(torch.empty(directions, rank + 2 * states, channels))
        self.step = nn.Parameter(torch.empty(directions, channels, rank))
        self.step_bias = nn.Parameter(torch.empty(directions * channels))
        # log keeps the decay rates -exp(log_rate) negative; they start as -1, -2, ... (S4D-real).
        rates = torch.arange(1, states + 1, dtype=torch.float32)
        self.log_rate = nn.Parameter(rates.log().repeat(directions * channels, 1))
        self.skip = nn.Parameter(torch.ones(directions * channels))
        nn.init.uniform_(self.project, -(channels**-0.5), channels**-0.5)  # as nn.Linear
        nn.init.uniform_(self.step, -(rank**-0.5), rank**-0.5)
        with torch.no_grad():  # softplus(bias) is spread evenly, on a logarithmic scale, over 0.001 to 0.1
            steps = torch.empty_like(self.step_bias).uniform_(math.log(0.001), math.log(0.1)).exp()
            self.step_bias.copy_(steps.expm1().log())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        length, batch, directions, channels = x.shape
        rank, B, C = torch.einsum("lbgc,gpc->lbgp", x, self.project).split(self.sizes, dim=-1)
        delta = torch.einsum("lbgr,gcr->lbgc", rank, self.step)
        y = selective_scan(
            x.flatten(2).permute(1, 2, 0),
            delta.flatten(2).permute(1, 2, 0),
            -self.log_rate.exp(),
            B.permute(1, 2, 3, 0),
            C.permute(1, 2, 3, 0),
            self.skip,
            self.step_bias,
            True,
        )
        return y.permute(2, 0, 1).reshape(length, batch, directions, channels)


class Mamba(nn.Module):
    """Mamba's layer on sequences (B, L, C): gate(Linear(x)) * SSM(SiLU(Conv(Linear(x)))), Linear; all causal.

    Args:
        channels: C.
        states: numbers in the state of one channel.
        kernel: side of the depthwise convolution over the sequence.
        expand: inner channels over C.
    """

    def __init__(self, channels: int, states: int = 16, kernel: int = 4, expand: int = 2):
        super().__init__()
        inner = expand * channels
        self.inner = nn.Linear(channels, 2 * inner, bias=False)
        self.conv = nn.Conv1d(inner, inner, kernel, padding=kernel - 1, groups=inner)
        self.ssm = SelectiveSSM(inner, states, math.ceil(channels / 16))
        self.out = nn.Linear(inner, channels, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x, gate = self.inner(tokens).chunk(2, dim=-1)
        x = self.conv(x.transpose(1, 2))[..., : tokens.shape[1]]
        x = nn.functional.silu(x).permute(2, 0, 1).unsqueeze(2)
        y = self.ssm(x).squeeze(2).transpose(0, 1)
        return self.out(y * nn.functional.silu(gate))


class SS2D(nn.Module):
    """VMamba's layer on maps (B, H, W, C): as Mamba's, but the map is read in four directions.

    The SSM reads it row by row and column by column, each forwards and backwards; the four results are added.

    Args:
        channels: C.
        states: numbers in the state of one channel.
        expand: inner channels over C.
    """

    def __init__(self, channels: int, states: int = 16, expand: int = 2):
        super().__init__()
        inner = expand * channels
        self.inner = nn.Linear(channels, 2 * inner, bias=False)
        self.conv = DepthwiseConv(inner, (3, 3))
        self.ssm = SelectiveSSM(inner, states, math.ceil(channels / 16), directions=4)
        self.norm = nn.LayerNorm(inner)
        self.out = nn.Linear(inner, channels, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x, gate = self.inner(tokens).chunk(2, dim=-1)
        x = channels_last(nn.functional.silu(self.conv(channels_first(x))))
        x = x.permute(1, 2, 0, 3)  # (H, W, B, C)
        rows, columns = x.flatten(0, 1), x.transpose(0, 1).flatten(0, 1)
        y = self.ssm(torch.stack((rows, columns, rows.flip(0), columns.flip(0)), dim=2))
        rows, columns, rows_back, columns_back = y.unbind(dim=2)
        height, width = x.shape[:2]
        by_row = (rows + rows_back.flip(0)).unflatten(0, (height, width))
        by_column = (columns + columns_back.flip(0)).unflatten(0, (width, height))
        y = (by_row + by_column.transpose(0, 1)).permute(2, 0, 1, 3)
        return self.out(self.norm(y) * nn.functional.silu(gate))
