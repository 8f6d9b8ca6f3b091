"""What learning will take, told before it begins: seconds from tiles that ran, memory from the maps of one tile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from ..errors import DeviceError, InputError
from ..inference.memory import free_memory, way_to_more

STEP = 3.5  # times what a tile takes forward, generously: forward, backward and the step are about three
KEPT = 2.0  # times the maps of all layers: what they keep to go back, and what flows back


@dataclass(frozen=True)
class Estimate:
    """Attributes:
    seconds: of all that is still to come.
    memory_bytes: that learning needs on top, on the device.
    trained: how many numbers are learned.
    """

    seconds: float
    memory_bytes: int
    trained: int


@torch.no_grad()
def memory_of(network: nn.Module, image: torch.Tensor) -> int:
    """About the bytes that a step on an image (C, *tile) needs.

    Args:
        network: on the image's device.
    """
    total = 0

    def count(module: nn.Module, inputs, output) -> None:
        nonlocal total
        if isinstance(output, torch.Tensor):
            total += output.numel() * output.element_size()

    leaves = [module for module in network.modules() if not any(True for _ in module.children())]
    hooks = [module.register_forward_hook(count) for module in leaves]
    try:
        network(image[None])
    finally:
        for hook in hooks:
            hook.remove()
    return int(KEPT * total)


def size_of(parameters: Mapping[str, nn.Parameter]) -> int:
    """How many numbers they are."""
    return sum(parameter.numel() for parameter in parameters.values())


def refuse_without(what: str, needed: int, device: str) -> None:
    """Raises DeviceError where a device has not so many bytes free."""
    free = free_memory(device)
    if free is not None and needed > free:
        raise DeviceError(
            f"{what} needs about {needed / 2**30:.1f} GiB of memory, and {free / 2**30:.1f} GiB are free.",
            f"{way_to_more(device)}, or let the corrections be carried to the next slices only.",
        )


def refuse_longer(what: str, seconds: float, allowed: float) -> None:
    """Raises InputError where it would take longer than is allowed."""
    if seconds > allowed:
        raise InputError(
            f"{what} would take about {_minutes(seconds)} here, and {_minutes(allowed)} are allowed.",
            "Allow more time, use a GPU, or let the corrections be carried to the next slices only.",
        )


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
