"""What the tests of the panel share: the stand-in of the application on the path, and waiting for the event loop."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Host"))

import pythonqt
import slicer
import slicer_host
from usema.resources import sample_volume

__all__ = ["loadSample", "pythonqt", "slicer_host", "waitUntil"]

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")


def loadSample(app):
    return app.loadVolume(sample_volume())


def waitUntil(condition, seconds: float = 60) -> None:
    """Lets the event loop run until it is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        slicer.app.processEvents()
        time.sleep(0.01)
