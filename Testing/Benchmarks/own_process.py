"""A run in a process of its own, and the memory that a process took: what several benchmarks share."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any


def peak_bytes() -> int:
    """Largest resident memory of this process so far.

    Of this process alone: what getrusage tells on Linux begins with what the parent had.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE)[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)  # macOS counts in bytes


def found_by(script: str, *arguments: object, **environment: str) -> dict[str, Any]:
    """What a script prints last, as JSON, when it runs with these arguments on one thread."""
    command = [sys.executable, script, *map(str, arguments)]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **environment}
    run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=one_thread)
    return json.loads(run.stdout.splitlines()[-1])
