"""A file system of its own for tests of full and read-only disks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(place: Path, options: str) -> Iterator[Path]:
    """A tmpfs at ``place``, which is made, with these options of mount; where none can be mounted the test is skipped,
    and the summary says why."""
    if sys.platform != "linux":
        pytest.skip(f"a disk of {options} is mounted on Linux only")
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", place]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        pytest.skip(f"no disk of {options} can be mounted here, run the tests as root: {run.stderr.strip()}")
    try:
        yield place
    finally:
        if place.is_mount():  # else the test took it away
            subprocess.run(["umount", place], check=True)
