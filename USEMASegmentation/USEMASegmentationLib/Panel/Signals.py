"""Connecting Qt's signals so that a wrong name is an error: PythonQt only answers False."""

from __future__ import annotations

from collections.abc import Callable


def connect(sender, signal: str, slot: Callable) -> None:
    """Calls ``slot`` with what the signal carries.

    Raises:
        AttributeError: the sender has no such signal.
    """
    if not sender.connect(signal, slot):
        raise AttributeError(f"{type(sender).__name__} has no signal {signal}")
