"""What a model will take on this computer, seconds and memory, before it is downloaded: only what can be known.

Seconds are those of its last run here, else a guess from its published time and the speed of this processor. Memory is
a least: what is certainly needed. Standard library only at file scope.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache as once

from .. import strict_json
from ..converters import public_cost
from ..converters.public import PublicModel, public_models
from ..files import replace_file
from ..models.metadata import ModelMetadata
from . import cache

# Where the published times come from: one thread of a processor that multiplies large float32 matrices at this rate
# (Zen 3, AVX2).
REFERENCE_FLOPS = 88e9
_SIDE, _PRODUCTS = 768, 8
_RUNS = ".runs.json"  # in the folder of the models: name -> seconds of the last run of all labels
_GB = 1e9


@dataclass(frozen=True)
class Expected:
    """What one run of a model takes.

    Attributes:
        seconds: None: not known.
        is_all: they are of the whole run; else of what finds the region alone.
        was_measured: they are of the last run here.
        publisher_seconds: what its publisher measured on a computer that nobody knows; None: did not.
        memory: bytes at the least; None: not known.
    """

    seconds: float | None = None
    is_all: bool = True
    was_measured: bool = False
    publisher_seconds: float | None = None
    memory: int | None = None


NOTHING = Expected()


def of(
    model: PublicModel,
    shape: Sequence[int] | None = None,
    spacing_zyx: Sequence[float] | None = None,
    metadata: ModelMetadata | None = None,
) -> Expected:
    """What is known of a model of the shelf.

    Args:
        shape, spacing_zyx: of the volume, in voxels and mm; None: a usual one for the model.
        metadata: of the model, where it is here.
    """
    memory = public_cost.least_bytes(model, shape, spacing_zyx, metadata)
    found = {"publisher_seconds": model.publisher_seconds, "memory": memory}
    measured = _runs().get(model.name)
    if measured is not None:
        return Expected(measured, was_measured=True, **found)
    finders = [of(other, shape, spacing_zyx).seconds for other in public_models() if other.name in model.needs]
    finder = sum(second for second in finders if second is not None)
    if model.cpu_seconds is None:
        return Expected(finder or None, is_all=False, **found)
    own = model.cpu_seconds * public_cost.share(model, shape, spacing_zyx) * REFERENCE_FLOPS / (rate() * threads())
    return Expected(own + finder, is_all=None not in finders, **found)


def remember(name: str, seconds: float) -> None:
    """Keeps what a run of a whole model took here, if it is of the shelf."""
    if name not in (model.name for model in public_models()):
        return
    with suppress(*cache.UNREADABLE):  # where nothing can be kept, the published times stay
        if cache.folder().is_dir():
            replace_file(cache.folder() / _RUNS, json.dumps({**_runs(), name: round(seconds, 1)}, indent=1).encode())


def _runs() -> dict[str, float]:
    try:
        known = strict_json.loads((cache.folder() / _RUNS).read_bytes())
    except (ValueError, *cache.UNREADABLE):
        return {}
    values = known.items() if isinstance(known, dict) else ()
    return {name: value for name, value in values if isinstance(value, (int, float)) and 0 < value < 1e6}


def threads() -> float:
    """How many threads' worth of work the processor does: convolutions do not gain from each as from the first."""
    return max(1.0, 0.8 * len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0.8 * os.cpu_count())


@once
def rate() -> float:
    """Operations a second of one thread in a matrix product; measured once, in about a tenth of a second.

    Processor time counts, not the clock's: other programs that run now are no property of the computer.
    """
    import numpy as np

    values = np.ones((_SIDE, _SIDE), np.float32)
    values @ values
    started = time.process_time()
    for _ in range(_PRODUCTS):
        values @ values
    return _PRODUCTS * 2 * _SIDE**3 / max(time.process_time() - started, 1e-3)


def in_words(expected: Expected) -> str:
    """Time for people: "about 2 min", "2 min the last time"; empty where it is not known."""
    if expected.seconds is None:
        if expected.publisher_seconds is None:
            return ""
        told = expected.publisher_seconds
        return f"{f'{told:.0f} s' if told < 90 else _duration(told)} on its publisher's processor"
    if expected.was_measured:
        return f"{_duration(expected.seconds)} the last time"
    if not expected.is_all:
        return f"{_duration(expected.seconds)} to find the region, then more"
    return f"about {_duration(expected.seconds)}"


def memory_in_words(expected: Expected, free: int | None = None) -> str:
    """Memory for people, with what is free where that is less; empty where it is not known.

    Args:
        free: bytes; None: not known.
    """
    if expected.memory is None:
        return ""
    needs = f"at least {expected.memory / _GB:.1f} GB of memory"
    return needs if free is None or free >= expected.memory else f"{needs}, of which only {free / _GB:.1f} are free"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(5, round(seconds / 5) * 5)} s"
    return f"{round(seconds / 60)} min"
