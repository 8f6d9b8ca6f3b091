"""What the two kinds of worker have in common on the wire; ``worker.py`` describes the rest. Standard library only."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable

from .. import __version__

VERSION = 1

Send = Callable[..., None]  # takes the parts of an event by name


def hello() -> dict:
    """What any worker says of itself."""
    return {
        "event": "hello",
        "protocol": VERSION,
        "pid": os.getpid(),
        "usema": __version__,
        "python": platform.python_version(),
    }
