"""The kernels that are compiled ahead of time: those of every attention layer that USEMA ships.

Attention knows neither networks nor models, so the layers are written down here; Testing/Python/sema/test_sema_aot.py
builds the networks of all bundled models and of the paper's plan, and fails when one of their layers is not covered.
PTX is for inference, which runs under float16 autocast, or in float32.

Compiled for compute capability 7.5, and again for 8.0 where the matrix units make it another kernel; the driver
translates both for any newer GPU. (Code for 9.0 and newer that Triton makes is for one generation alone.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from ..launch import MEAN_OPTIONS, MEAN_SIZES, Properties, three, window_constants

LAYERS = (  # (window, head_dim)
    ((7, 7), 32),  # the paper's plan: 32 to 512 channels in heads of 32
    ((7, 7, 7), 32),  # the bundled 3D models
)
DTYPES = (torch.float16, torch.float32)
ARCHITECTURES = (75, 80)

TYPES = {torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.float32: "*fp32"}  # in Triton's words
# Parameters that are multiples of 16, as pointers are: kernels may then read 16 bytes at a time. launch.rows sees to
# strides, and channels are heads of 16, 32 or 64.
MULTIPLES_OF_16 = {"channels", "stride", "q_stride", "k_stride", "v_stride", "grad_stride"}
_FLOAT32 = {"mean", "cos", "sin", "parts", "grad_mean", "log_total", "delta"}
_INTEGERS = {"depth", "height", "width", "heads", "tokens", "channels", "splits"}


@dataclass(frozen=True)
class Variant:
    """One kernel to compile. ``constants`` and ``options`` as in :mod:`usema.sema.launch`."""

    kernel: str
    architecture: int
    dtype: torch.dtype
    constants: dict[str, Any]
    options: dict[str, int]

    @property
    def name(self) -> str:
        """For the file: unique among the variants."""
        parts = [self.kernel, TYPES[self.dtype][1:]]
        if "WD" in self.constants:
            parts += ["{WD}x{WH}x{WW}".format(**self.constants), "d{HEAD_DIM}".format(**self.constants)]
        return "_".join([*parts, f"sm{self.architecture}"])

    def type_of(self, parameter: str) -> str:
        """Triton's type of a run-time parameter of the kernel."""
        if parameter in _INTEGERS or parameter.endswith("stride"):
            return "i32"
        return "*fp32" if parameter in _FLOAT32 else TYPES[self.dtype]


def properties(capability: int) -> Properties:
    """What a GPU of this compute capability (75 for 7.5) is launched with."""
    return Properties(matrix_units=capability >= 80, tf32=False)


def variants() -> Iterator[Variant]:
    """Every kernel to compile."""
    for dtype in DTYPES:
        yield Variant("mean_over_tokens", ARCHITECTURES[0], dtype, MEAN_SIZES, MEAN_OPTIONS)
        for window, head_dim in LAYERS:
            before = None
            for architecture in ARCHITECTURES:
                sizes = window_constants(
                    "window_attention", three(window), head_dim, dtype, properties(architecture), rope=True, mean=True
                )
                if sizes != before:
                    yield Variant("window_attention", architecture, dtype, *sizes)
                before = sizes
