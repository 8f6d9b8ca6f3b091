"""How long a public model will take on this computer, before it is downloaded: a guess from its published time.

Standard library only at file scope.
"""

from __future__ import annotations

import os
import time
from functools import cache

from ..converters.public import PublicModel

# Where the published times come from: one thread of a processor that multiplies large float32 matrices at this rate
# (Zen 3, AVX2).
REFERENCE_FLOPS = 88e9
_SIDE = 768


def seconds(model: PublicModel) -> float | None:
    """Of one volume on the processor; None: nobody has measured the model."""
    if model.cpu_seconds is None:
        return None
    return model.cpu_seconds * REFERENCE_FLOPS / (rate() * threads())


def threads() -> float:
    """How many threads' worth of work the processor does: convolutions do not gain from each as from the first."""
    return max(1.0, 0.8 * len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0.8 * os.cpu_count())


@cache
def rate() -> float:
    """Operations a second of one thread in a matrix product; measured once, in a few hundredths of a second."""
    import numpy as np

    values = np.ones((_SIDE, _SIDE), np.float32)
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        values @ values
        best = min(best, time.perf_counter() - started)
    return 2 * _SIDE**3 / best / max(1, _blas_threads())


def _blas_threads() -> int:
    """As many as NumPy's library uses by default."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return os.cpu_count() or 1


def in_words(value: float | None) -> str:
    """For people: "about 2 min"; empty where it is not known."""
    if value is None:
        return ""
    if value < 90:
        return f"about {max(5, round(value / 5) * 5)} s"
    return f"about {round(value / 60)} min"
