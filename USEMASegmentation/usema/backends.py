"""Which of several ways computes an operation, and why: what ``usema.sema`` and ``usema.scan`` choose between."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from .errors import InputError

# A way's name, as programs and USEMA_SEMA_BACKEND say it -> what people read
TITLES = {
    "reference": "PyTorch, by definition",
    "eager": "PyTorch",
    "chunked": "PyTorch",
    "pytorch": "PyTorch",
    "openvino": "OpenVINO",
    "triton": "Triton",
    "ptx": "PTX",
    "mamba-ssm": "mamba-ssm",
}


@dataclass(frozen=True)
class Choice:
    """The backend taken, and the reason, in words for the panel's badge and `usema doctor`."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{TITLES[self.name]} ({self.reason})"


def forced(
    name: str, known: Collection[str], why_not: Callable[[], str | None], *, operation: str, instead: str, by: str
) -> Choice:
    """The backend that somebody asked for.

    Args:
        known: the operation's backends.
        why_not: says why this one cannot run here; None if it can.
        operation: what it computes, for messages.
        instead: a backend that runs everywhere.
        by: who asked.

    Raises:
        InputError: it is unknown, or cannot run here.
    """
    if name not in known:
        raise InputError(f"Unknown {operation} backend '{name}'.", f"Choose one of: {', '.join(known)}.")
    if reason := why_not():
        raise InputError(
            f"{operation} backend '{name}' cannot run here: {reason}.", f"Let USEMA choose, or take '{instead}'."
        )
    return Choice(name, by)
