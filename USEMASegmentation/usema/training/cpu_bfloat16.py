"""bfloat16 on CPUs that compute it in hardware, and what their convolutions get wrong."""

from __future__ import annotations

import torch
from torch import nn


def pays() -> bool:
    """Whether the CPU has matrix units (AMX): an iteration takes 1.6 times as long without bfloat16 (measured).

    Other CPUs emulate it, which is slower than float32.
    """
    return getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()


def spare_narrow_convolutions(network: nn.Module) -> None:
    """Let convolutions whose stride leaves one column compute in float32, whatever autocast says.

    With matrix units, oneDNN's strided convolutions of maps whose last axis is no longer than the stride read memory
    that nobody wrote, forwards and backwards: the result is wrong, sometimes NaN (seen with torch 2.13; one such defect
    is pull request 5494 of uxlfoundation/oneDNN). Such maps are tiny, so float32 costs nothing.
    """
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)) and module.stride[-1] > 1:
            module.forward = _in_float32_where_narrow(module)


def _in_float32_where_narrow(convolution: nn.Conv2d | nn.Conv3d):
    forward = convolution.forward

    def wrapped(x: torch.Tensor) -> torch.Tensor:
        if x.shape[-1] > convolution.stride[-1]:
            return forward(x)
        with torch.autocast("cpu", enabled=False):
            return forward(x.float())

    return wrapped
