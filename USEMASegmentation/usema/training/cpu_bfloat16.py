"""bfloat16 on CPUs that compute it in hardware, and what their convolutions get wrong or compute slowly."""

from __future__ import annotations

from collections.abc import Callable

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


def hasten_depthwise_convolutions(network: nn.Module) -> None:
    """Let depthwise convolutions of volumes compute in float32 with channels last, whatever autocast says.

    Their gradients take 4 to 5 times as long in bfloat16, or with channels first (16 channels of 40x56x40 voxels, torch
    2.13: 30 ms for 119 to 147); an iteration of USEMA with SEMA on all stages takes 1.6 times as long.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv3d) and 1 < module.groups == module.in_channels:
            module.forward = _in_float32_with_channels_last(module.forward)


def _in_float32_with_channels_last(forward: Callable[[torch.Tensor], torch.Tensor]):
    def wrapped(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", enabled=False):
            return forward(x.float().contiguous(memory_format=torch.channels_last_3d)).to(x.dtype)

    return wrapped


def _in_float32_where_narrow(convolution: nn.Conv2d | nn.Conv3d):
    forward = convolution.forward

    def wrapped(x: torch.Tensor) -> torch.Tensor:
        if x.shape[-1] > convolution.stride[-1]:
            return forward(x)
        with torch.autocast("cpu", enabled=False):
            return forward(x.float())

    return wrapped
