"""Chooses the backend that computes SEMA attention, and can say why.

Order: what the caller or the environment variable asks for; Triton; PTX compiled ahead of time; PyTorch. A fused kernel
is used only after it has computed a small problem right, once for each device and kind of layer.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial

import torch

from ..backends import Choice, forced
from . import aot, eager, launch, operators, reference, triton_backend

ENVIRONMENT_VARIABLE = "USEMA_SEMA_BACKEND"

BACKENDS = {
    "reference": reference.sema_attention,
    "eager": eager.sema_attention,
    "triton": partial(operators.sema_attention, launcher="triton"),
    "ptx": partial(operators.sema_attention, launcher="ptx"),
}


@dataclass(frozen=True)
class Layer:
    """What decides whether a fused kernel computes a layer; by default a layer of the bundled models' inference."""

    dtype: torch.dtype = torch.float16
    window: tuple[int, ...] = (7, 7, 7)
    head_dim: int = 32
    rope: bool = True
    mean: bool = True
    training: bool = False


def choose(device: torch.device | str, backend: str | None = None, layer: Layer | None = None) -> Choice:
    """Choose a backend for tensors on ``device``.

    Args:
        backend: force this one.
        layer: the layer that it is for.

    Raises:
        InputError: an unknown backend was asked for, or one that cannot run here.
    """
    device, layer = torch.device(device), layer or Layer()
    asked = backend or os.environ.get(ENVIRONMENT_VARIABLE)
    if asked:
        return forced(
            asked,
            BACKENDS,
            lambda: _why_not(asked, device, layer) if asked in operators.LAUNCHERS else None,
            operation="SEMA",
            instead="eager",
            by="asked for by the caller" if backend else f"set by {ENVIRONMENT_VARIABLE}",
        )
    choice = _automatic(device, layer)
    if choice.name == "ptx" and (failure := aot.failure(device)):
        return Choice("eager", f"PTX: {failure}")
    return choice


# torch.compile takes the answer as a constant of the layer, rather than following the search for it. This is what
# torch.compiler.assume_constant_result does once it has loaded the compiler, which takes as long as all of torch.
choose._dynamo_marked_constant = True


@cache  # asked for by every layer in every pass
def _automatic(device: torch.device, layer: Layer) -> Choice:
    if device.type != "cuda" or torch.version.cuda is None:
        return Choice("eager", "no NVIDIA GPU")
    if reason := launch.why_not(layer.dtype, layer.window, layer.head_dim):
        return Choice("eager", reason)
    without_triton = _why_not("triton", device, layer) or _self_test("triton", device, layer)
    if not without_triton:
        return Choice("triton", "compiled for this GPU")
    without_ptx = _why_not("ptx", device, layer) or _self_test("ptx", device, layer)
    if not without_ptx:
        return Choice("ptx", without_triton)
    return Choice("eager", f"Triton: {without_triton}; PTX: {without_ptx}")


def _why_not(backend: str, device: torch.device, layer: Layer) -> str | None:
    """Why a fused backend cannot run, as far as that is known without trying."""
    if reason := launch.why_not(layer.dtype, layer.window, layer.head_dim):
        return reason
    if backend == "triton":
        return triton_backend.why_not(device)
    if layer.training:
        return "the kernels have no backward pass"
    return aot.why_not(device, layer.dtype, layer.window, layer.head_dim, layer.rope, layer.mean)


def _self_test(backend: str, device: torch.device, layer: Layer) -> str | None:
    """Why a fused backend is not to be trusted with such a layer; None if it computes one right."""
    # A thread of its own has none of the caller's modes: autocast, inference mode, fake tensors.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_try, backend, device, layer).result()


def _try(backend: str, device: torch.device, layer: Layer) -> str | None:
    try:
        worst = _largest_error(backend, device, layer)
    except torch.cuda.OutOfMemoryError:
        raise  # says nothing about the kernel; who asked frees memory and asks again
    except launch.LaunchError as error:
        if error.code == launch.OUT_OF_MEMORY:
            raise torch.cuda.OutOfMemoryError(str(error)) from error
        return str(error)
    except Exception as error:  # whatever a compiler or a driver raises, PyTorch still works
        return triton_backend.why_it_failed(error)
    tf32 = layer.dtype == torch.float32 and operators.LAUNCHERS[backend].properties(device).tf32
    tolerance = 1e-2 if layer.dtype != torch.float32 else 1e-3 if tf32 else 1e-5
    return None if worst < tolerance else f"its self-test is off by {worst:.1e}"  # also when worst is NaN


def _largest_error(backend: str, device: torch.device, layer: Layer) -> float:
    """||computed - exact|| / ||exact|| of a small problem: the largest of output and, in training, gradients."""
    launcher = operators.LAUNCHERS[backend]
    settings = {"heads": 2, "window": layer.window, "rope": layer.rope, "mean": layer.mean}
    # Along the last two axes, one window lies on the map and the next reaches over its border.
    shape = (1, *layer.window[:-2], *(side + 2 for side in layer.window[-2:]), 2 * layer.head_dim)
    generator = torch.Generator().manual_seed(0)
    # Slices of one tensor, as the network has them.
    qkv = torch.randn(*shape[:-1], 3 * shape[-1], generator=generator).to(layer.dtype)
    q, k, v = qkv.to(device).chunk(3, dim=-1)
    leaves = [x.double().requires_grad_() for x in qkv.chunk(3, dim=-1)]
    exact = [reference.sema_attention(*leaves, **settings, local=True)]
    computed = [launch.forward(q, k, v, **settings, launcher=launcher)]
    if layer.training:
        grad = torch.randn(shape, generator=generator).to(layer.dtype)
        exact += torch.autograd.grad(exact[0], leaves, grad.double())
        computed += launch.backward(grad.to(device), q, k, v, **settings, launcher=launcher)
    pairs = [(x.double().cpu(), y.detach()) for x, y in zip(computed, exact, strict=True)]
    return float(torch.stack([(x - y).norm() / y.norm() for x, y in pairs]).max())
