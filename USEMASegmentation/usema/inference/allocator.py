"""What the C library does with memory that is freed: kept for the next tile during a run, and given back after it.

The library (glibc, on Linux) gives each large block back at once, and the next tile gets new pages, which the system
clears one by one: a fifth of a plain U-Net's processor time on one machine (results/inference.md of the benchmarks).
Elsewhere nothing is changed. It is a matter of the whole process, so only the command line asks for it. In the worker,
kept memory would let oneDNN be the first that finds none, which costs a thread (``spoilt_thread.py``).
What no later tile uses again is given back by anyone.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h
_KEPT = 2**30 - 1  # bytes: larger blocks, and more than that at the heap's end, are given back as before
_USUAL = 2**25  # what glibc's own rule arrives at where large blocks come and go
_LARGE = 2**23  # bytes: where a tile's buffers are not malloc's, such blocks are rows of logits, a few in a run
_SET_BY_USER = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


@contextmanager
def keeping_freed_memory() -> Iterator[bool]:
    """Inside, freed memory is kept for what comes next; afterwards it is given back. Tells whether that is so here."""
    library = _glibc()
    if library is None or any(name in os.environ for name in _SET_BY_USER):
        yield False
        return
    set_both = [library.mallopt(option, _KEPT) for option in (_MMAP_THRESHOLD, _TRIM_THRESHOLD)]
    try:
        yield all(set_both)
    finally:
        for option in (_MMAP_THRESHOLD, _TRIM_THRESHOLD):
            library.mallopt(option, _USUAL)
        library.malloc_trim(0)


def give_back(large_blocks: bool = False) -> None:
    """Gives freed memory back now, also inside ``keeping_freed_memory``: for what is not going to be used again.

    Args:
        large_blocks: from now on also, at once, each large block that is freed. Rows of logits come and go, and where
            they leave holes in the heap, the next ones are put beside them.
    """
    if library := _glibc():
        if large_blocks and not any(name in os.environ for name in _SET_BY_USER):
            library.mallopt(_MMAP_THRESHOLD, _LARGE)
        library.malloc_trim(0)
