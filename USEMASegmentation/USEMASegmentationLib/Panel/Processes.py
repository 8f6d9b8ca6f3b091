"""The worker processes of this application, as far as the system tells of them. Only for the self-test."""

from __future__ import annotations

import os
import signal
from pathlib import Path

_PROCESSES = Path("/proc")  # of Linux


def areTold() -> bool:
    """Whether this system tells of processes."""
    return (_PROCESSES / "self" / "stat").is_file()


def workers() -> list[int]:
    """The running workers of this application that segment; none where the system does not tell."""
    parents, commands = {}, {}
    for path in _PROCESSES.glob("[0-9]*"):
        try:
            state, parent = (path / "stat").read_text().rpartition(")")[2].split()[:2]
            commands[int(path.name)] = b"" if state == "Z" else (path / "cmdline").read_bytes()
            parents[int(path.name)] = int(parent)
        except OSError:
            continue  # it has ended meanwhile
    found = [one for one, text in commands.items() if b"usema.serving.worker" in text and b"--store" not in text]
    return [one for one in found if _descends(one, parents)]


def killWorkers() -> list[int]:
    """End them at once, as a crash would."""
    found = workers()
    for number in found:
        os.kill(number, signal.SIGKILL)
    return found


def _descends(process: int, parents: dict[int, int]) -> bool:
    """Whether this application began it, or a launcher of its own in between did."""
    while process in parents and process != os.getpid():
        process = parents[process]
    return process == os.getpid()
