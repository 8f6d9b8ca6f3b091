"""Which device inference runs on."""

from __future__ import annotations

import torch

from ..errors import DeviceError

DEVICES = ("auto", "cpu", "cuda", "mps")


def choose_device(name: str = "auto") -> torch.device:
    """The device of this name; "auto" is the first NVIDIA GPU where there is one, else the CPU.

    Apple's GPU ("mps") is used only when asked for: not every version of macOS computes 3D convolutions on it.

    Args:
        name: one of DEVICES, or a torch device such as "cuda:1".

    Raises:
        DeviceError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"'{name}' is not a device.", f"Choose one of: {', '.join(DEVICES)}.") from None
    if device.type not in DEVICES:
        raise DeviceError(f"USEMA does not run on '{name}'.", f"Choose one of: {', '.join(DEVICES)}.")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            built = "this PyTorch has no CUDA support" if torch.version.cuda is None else "no NVIDIA GPU was found"
            raise DeviceError(f"'{name}' cannot be used: {built}.", "Choose the CPU, or install PyTorch for your GPU.")
        if (device.index or 0) >= torch.cuda.device_count():
            raise DeviceError(f"There is no '{name}': {torch.cuda.device_count()} GPU(s) were found.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("'mps' cannot be used: no Apple GPU was found.", "Choose the CPU.")
    return device


def available_devices() -> list[str]:
    """The names of the devices that are here, the CPU first."""
    names = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    return [*names, "mps"] if torch.backends.mps.is_available() else names


def describe(device: torch.device) -> str:
    """The device in words, for provenance and diagnostics."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        return f"cpu ({torch.get_num_threads()} threads)"
    return str(device)
