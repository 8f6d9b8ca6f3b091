"""Freed memory is kept for the next tile during a run, and given back after it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import pytest

# Eight blocks of 64 MB, one after the other: pages that the system had to give, and the memory that is held at the end.
TRIED = """
import json, re, resource, sys
from contextlib import nullcontext
import numpy as np
from usema.inference.allocator import give_back, keeping_freed_memory

def held():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

kept, before = keeping_freed_memory() if sys.argv[1] == "kept" else nullcontext(False), held()
with kept as told:
    begun = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        np.ones(2**24, np.float32)
    pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - begun
    inside = held() - before
    give_back()
    inside -= held() - before
print(json.dumps([told, pages, inside, held() - before]))
"""


def tried(how: str, **environment: str):
    run = subprocess.run(
        [sys.executable, "-c", TRIED, how],
        check=True,
        stdout=subprocess.PIPE,
        env={**os.environ, "NUMPY_MADVISE_HUGEPAGE": "0", **environment},
    )
    return json.loads(run.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library: nothing is changed")
def test_blocks_are_used_again_and_given_back_at_the_end():
    told, pages, *_ = tried("not")
    again, few, given_back, left = tried("kept")
    assert (told, again) == (False, True)
    assert few < pages / 4
    assert given_back > 32, "MB of the run's, before it ends"
    assert left < 32, "MB that stay after the run"
    assert tried("kept", GLIBC_TUNABLES="glibc.malloc.arena_max=4")[0] is False, "what the user has set counts"


def test_elsewhere_nothing_is_changed(monkeypatch):
    from usema.inference import allocator

    monkeypatch.setattr(allocator.sys, "platform", "win32")
    allocator.give_back()
    with allocator.keeping_freed_memory() as told:
        assert not told
