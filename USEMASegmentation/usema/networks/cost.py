"""Parameters and operations of a network, counted without computing anything."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode

from .usema import USEMA, USEMAConfig


def cost(config: USEMAConfig, patch: Sequence[int]) -> tuple[int, int]:
    """Parameters (deep-supervision heads included) and multiply-accumulates of one forward pass.

    Args:
        patch: spatial size of the input; batch 1.

    Returns:
        (parameters, MACs); MACs are those of convolutions, linear layers and attention.
    """
    with torch.device("meta"):  # shapes alone: no memory, no arithmetic
        network = USEMA(config).eval()
        image = torch.empty(1, config.in_channels, *patch)
    counter = FlopCounterMode(display=False)
    with counter, torch.inference_mode():
        network(image)
    return sum(parameter.numel() for parameter in network.parameters()), counter.get_total_flops() // 2
