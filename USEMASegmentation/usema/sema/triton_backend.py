"""Launches the fused kernels through Triton, which compiles them for the GPU at hand when they are first used.

With TRITON_INTERPRET=1 in the environment, set before Triton is first imported, they run on the CPU, slowly: that is
how they are tested where there is no GPU.
"""

from __future__ import annotations

import importlib.util
import os
from contextlib import nullcontext
from functools import cache

import torch

from .launch import Properties


def interpreted() -> bool:
    """Whether Triton's interpreter runs the kernels on the CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def why_not(device: torch.device) -> str | None:
    """Why Triton cannot be used for tensors on this device; None where it may. Whether it works, a test shows."""
    if device.type != "cuda" and not interpreted():
        return "no NVIDIA GPU"
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    return None


def why_it_failed(error: BaseException) -> str:
    """Plain words for what Triton raised."""
    text = str(error)
    if "C compiler" in text:
        return "no C compiler here"
    if "Python.h" in text or ("gcc" in text and "returned non-zero" in text):
        return "no Python headers here"
    return f"{type(error).__name__}: {text.splitlines()[0] if text else 'no message'}"[:200]


def properties(device: torch.device) -> Properties:
    if interpreted():
        return Properties(matrix_units=True, tf32=False)
    matmul = torch.backends.cuda.matmul
    # PyTorch 2.9 renamed the switch, and refuses to read the old name once the new one was written.
    tf32 = matmul.fp32_precision == "tf32" if hasattr(matmul, "fp32_precision") else matmul.allow_tf32
    return Properties(matrix_units=_capability(device) >= (8, 0), tf32=tf32)


@cache  # asked for by every launch
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


def launch(kernel, grid, arguments, constants, num_warps: int, num_stages: int) -> None:
    """See :mod:`usema.sema.launch`."""
    from . import triton_kernels

    device = next(x.device for x in arguments.values() if isinstance(x, torch.Tensor))
    # Triton launches on the current device, which need not be the tensors' own.
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        function = getattr(triton_kernels, kernel)
        function[grid](**arguments, **constants, num_warps=num_warps, num_stages=num_stages)
