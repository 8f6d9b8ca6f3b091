"""What the panel tells about device and engine, and the report that can be sent to somebody who helps."""

from __future__ import annotations

import getpass
import platform
import re
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import slicer
import usema

_HELLO = ("usema", "python", "torch", "device", "devices", "attention", "memory_bytes", "gpu")


def badge(hello: dict | None, last: Mapping[str, str] | None = None) -> tuple[str, str]:
    """A few words and a tooltip on what computes.

    Args:
        hello: what the worker said of itself; None: it has not run yet.
        last: provenance of the last result of the chosen model; None: there is none. What the worker says of itself
            is only what it would choose: not every network has SEMA attention, and the user may choose the device.
    """
    if hello is None:
        return "Engine not started", "Device and attention backend are known after the first segmentation."
    if last is None:
        about, says, attention = "What is here:", hello, "SEMA attention"
    else:
        about, says, attention = "The last segmentation with this model:", last, "Attention"
    device, backend = (says[key].split(" (")[0] for key in ("device", "attention"))
    return f"{device}, {backend}", f"{about}\nDevice: {says['device']}\n{attention}: {says['attention']}"


def report(hello: dict | None, failure: str, log: str) -> str:
    """Versions, devices, the last failure and the log.

    Only what the worker said gets in, which knows neither patients nor volumes; user names in paths are replaced.
    """
    lines = [f"USEMA {usema.__version__}", f"System: {platform.platform()}", f"Python: {sys.version.split()[0]}"]
    if hasattr(slicer, "app"):
        lines.insert(1, f"3D Slicer {slicer.app.applicationVersion}, revision {slicer.app.revision}")
    if hello is None:
        lines.append("Engine: not started")
    else:
        lines += [f"Engine {key}: {hello.get(key)}" for key in _HELLO]
    lines += ["", "Last failure:", failure.strip() or "none", "", "Log:", log.strip() or "empty"]
    return withoutUser("\n".join(lines))


def withoutUser(text: str) -> str:
    """The text without the user's name in paths."""
    folders = [(tempfile.gettempdir(), "<temporary>")]
    with suppress(RuntimeError):  # a user without a home
        folders.append((str(Path.home()), "~"))
    if hasattr(slicer, "app"):  # on Linux, the application's folder has the user's name in its own
        folders.insert(0, (slicer.app.temporaryPath, "<temporary>"))
    for folder, word in folders:
        for spelling in (folder, folder.replace("/", "\\"), folder.replace("\\", "/")):
            if len(folder) > 1:
                text = text.replace(spelling, word)
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):  # no such entry, as in some containers
        return text
    return re.sub(rf"(?<=[\\/]){re.escape(user)}(?=[\\/]|$)", "<user>", text, flags=re.MULTILINE)
