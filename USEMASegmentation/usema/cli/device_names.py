"""Refuses a device that cannot be there before torch, which alone can tell the rest, is loaded."""

from __future__ import annotations

import ctypes
import re
import sys

from ..errors import DeviceError

_NAMES = ("auto", "cpu", "cuda", "cuda:1", "mps")
_DRIVERS = {"linux": "libcuda.so.1", "win32": "nvcuda.dll"}


def check_device_name(name: str) -> None:
    """Raises DeviceError: no such device is known, or its driver or its kind of computer is not here."""
    if not re.fullmatch(r"auto|cpu|(cuda|mps)(:\d{1,2})?", name):
        raise DeviceError(f"'{name}' is not a device.", f"Choose one of: {', '.join(_NAMES)}.")
    if name.startswith("mps") and sys.platform != "darwin":
        raise DeviceError(f"'{name}' cannot be used: no Apple GPU was found.", "Choose the CPU.")
    if name.startswith("cuda"):
        try:
            ctypes.CDLL(_DRIVERS[sys.platform])
        except (OSError, KeyError):
            raise DeviceError(f"'{name}' cannot be used: no NVIDIA driver was found.", "Choose the CPU.") from None
