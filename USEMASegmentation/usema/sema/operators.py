"""The fused kernels as operators of PyTorch: shapes for tracing, gradients, autocast, and PyTorch where they fail."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from . import aot, eager, launch, triton_backend

LAUNCHERS = {"triton": triton_backend, "ptx": aot}


def sema_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    heads: int,
    window: tuple[int, ...],
    rope: bool,
    mean: bool,
    local: bool,
    launcher: str,
) -> torch.Tensor:
    """See :func:`usema.sema.sema_attention`; ``launcher`` is one of LAUNCHERS."""
    if not local or not launch.fits_grid(v.shape, window):
        return eager.sema_attention(q, k, v, heads=heads, window=window, rope=rope, mean=mean, local=local)
    return window_attention(q, k, v, heads, window, rope, mean, launcher)


@torch.library.custom_op("usema::window_attention", mutates_args=())
def window_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    heads: int,
    window: Sequence[int],
    rope: bool,
    mean: bool,
    launcher: str,
) -> torch.Tensor:
    try:
        return launch.forward(q, k, v, heads, window, rope, mean, LAUNCHERS[launcher])
    except launch.LaunchError:  # the launcher says why to the log, and from now on to dispatch
        out = eager.sema_attention(q, k, v, heads=heads, window=tuple(window), rope=rope, mean=mean, local=True)
        return out.contiguous()


@window_attention.register_fake
def _(q, k, v, heads, window, rope, mean, launcher):
    return v.new_empty(v.shape)


@torch.library.custom_op("usema::window_attention_backward", mutates_args=())
def window_attention_backward(
    grad: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    heads: int,
    window: Sequence[int],
    rope: bool,
    mean: bool,
    launcher: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return launch.backward(grad, q, k, v, heads, window, rope, mean, LAUNCHERS[launcher])


@window_attention_backward.register_fake
def _(grad, q, k, v, heads, window, rope, mean, launcher):
    return tuple(v.new_empty(v.shape) for _ in range(3))


def _keep_inputs(ctx, inputs, output):
    *tensors, ctx.heads, ctx.window, ctx.rope, ctx.mean, ctx.launcher = inputs
    # Views of one qkv tensor that the network holds anyway: nothing more is kept.
    ctx.save_for_backward(*tensors)


def _gradients(ctx, grad):
    settings = (ctx.heads, ctx.window, ctx.rope, ctx.mean, ctx.launcher)
    return *window_attention_backward(grad, *ctx.saved_tensors, *settings), *[None] * len(settings)


window_attention.register_autograd(_gradients, setup_context=_keep_inputs)


def _under_autocast(device: str):
    """Compute in autocast's type, as scaled_dot_product_attention does."""

    def cast(q, k, v, *settings):
        dtype = torch.get_autocast_dtype(device)
        with torch.autocast(device, enabled=False):
            return window_attention(q.to(dtype), k.to(dtype), v.to(dtype), *settings)

    return cast


_LIBRARY = torch.library.Library("usema", "FRAGMENT")
_LIBRARY.impl("window_attention", _under_autocast("cuda"), "AutocastCUDA")
_LIBRARY.impl("window_attention", _under_autocast("cpu"), "AutocastCPU")
