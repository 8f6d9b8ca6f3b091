"""Importing large packages sooner: while it lasts, Python does not look for cycles of garbage. Standard library only.

A package's modules make objects by the hundred thousand and hardly any garbage, but are looked through again and again
as they grow: 0.1 s of processor time for PyTorch, 0.3 s with pictures and DICOM (results/cold_start.md of the
benchmarks).
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def at_once() -> Iterator[None]:
    """Inside, nothing is looked for."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
