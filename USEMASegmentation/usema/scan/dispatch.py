"""Chooses the backend that computes the selective scan, and can say why.

Order: what the caller asks for; the CUDA kernel of mamba-ssm where it is installed; PyTorch. The kernel is used only
after it has computed a small problem right, once for each device.
"""

from __future__ import annotations

import importlib.util
from functools import cache

import torch

from ..backends import Choice, forced
from . import chunked, reference


def _mamba_ssm(u, delta, A, B, C, D, delta_bias, delta_softplus: bool) -> torch.Tensor:
    """The kernel of mamba-ssm (Gu & Dao 2023); see :func:`usema.scan.selective_scan`."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    return selective_scan_fn(u, delta, A, B, C, D, delta_bias=delta_bias, delta_softplus=delta_softplus)


BACKENDS = {"reference": reference.selective_scan, "chunked": chunked.selective_scan, "mamba-ssm": _mamba_ssm}


def choose(device: torch.device | str, backend: str | None = None) -> Choice:
    """Choose a backend for tensors on ``device``.

    Args:
        backend: force this one.

    Raises:
        InputError: an unknown backend was asked for, or one that cannot run here.
    """
    reason = _why_not_mamba_ssm(torch.device(device))
    if backend is None:
        return Choice("chunked", reason) if reason else Choice("mamba-ssm", "its kernel runs on this GPU")
    return forced(
        backend,
        BACKENDS,
        lambda: reason if backend == "mamba-ssm" else None,
        operation="scan",
        instead="chunked",
        by="asked for by the caller",
    )


@cache  # asked for by every layer in every pass
def _why_not_mamba_ssm(device: torch.device) -> str | None:
    if device.type != "cuda":
        return "no NVIDIA GPU"
    if importlib.util.find_spec("mamba_ssm") is None:
        return "mamba-ssm is not installed"
    try:
        importlib.import_module("mamba_ssm.ops.selective_scan_interface")
        worst = _largest_error(device)
    except torch.cuda.OutOfMemoryError:
        raise  # says nothing about the kernel; who asked frees memory and asks again
    except Exception as error:  # built for another torch or GPU: whatever it raises, PyTorch still works
        return f"mamba-ssm: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return None if worst < 1e-4 else f"mamba-ssm is off by {worst:.1e} in a self-test"  # also when worst is NaN


def _largest_error(device: torch.device) -> float:
    """||computed - exact|| / ||exact|| of a small problem with two groups of channels: of output and gradients."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 6, 40), (2, 6, 40), (6, 16), (2, 2, 16, 40), (2, 2, 16, 40), (6,), (6,)]  # u, delta, A, B, C, D, bias
    with torch.inference_mode(False), torch.enable_grad():
        values = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
        values[2] = -values[2].exp()
        results = []
        for function, options in (
            (reference.selective_scan, {}),
            (_mamba_ssm, {"device": device, "dtype": torch.float32}),
        ):
            leaves = [value.clone().to(**options).requires_grad_() for value in values]
            y = function(*leaves, True)
            gradients = torch.autograd.grad(y.square().sum(), leaves)
            results.append([x.detach().cpu().double() for x in (y, *gradients)])
    exact, computed = results
    return max(float((x - y).norm() / y.norm()) for x, y in zip(computed, exact, strict=True))
