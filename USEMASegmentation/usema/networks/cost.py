"""Parameters and operations of a network, counted without computing anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def cost(make: Callable[[], nn.Module], shape: Sequence[int]) -> tuple[int, int]:
    """Parameters (deep-supervision heads included) and multiply-accumulates of one forward pass.

    Args:
        make: builds the network, any one; PyTorch's default device is "meta" meanwhile.
        shape: of the input, (1, C, *spatial).

    Returns:
        (parameters, MACs); MACs are those of convolutions, linear layers and attention.
    """
    with torch.device("meta"):  # shapes alone: no memory, no arithmetic
        network = make().eval()
        image = torch.empty(*shape)
    counter = FlopCounterMode(display=False)
    with counter, torch.inference_mode():
        network(image)
    return sum(parameter.numel() for parameter in network.parameters()), counter.get_total_flops() // 2
