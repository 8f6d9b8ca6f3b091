"""Chooses the backend that computes SEMA attention, and can say why."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from ..errors import InputError
from . import eager, reference

ENVIRONMENT_VARIABLE = "USEMA_SEMA_BACKEND"

BACKENDS = {
    "reference": reference.sema_attention,
    "eager": eager.sema_attention,
}

TITLES = {"reference": "PyTorch, by definition", "eager": "PyTorch"}


@dataclass(frozen=True)
class Choice:
    """The backend taken, and the reason, in words for the panel's badge and `usema doctor`."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{TITLES[self.name]} ({self.reason})"


def choose(device: torch.device | str, backend: str | None = None) -> Choice:
    """Choose a backend for tensors on ``device``.

    Order: the argument, the environment variable USEMA_SEMA_BACKEND, then what the device can run.

    Raises:
        InputError: an unknown backend was asked for.
    """
    asked = backend or os.environ.get(ENVIRONMENT_VARIABLE)
    if asked:
        if asked not in BACKENDS:
            raise InputError(f"Unknown SEMA backend '{asked}'.", f"Choose one of: {', '.join(BACKENDS)}.")
        source = "asked for by the caller" if backend else f"set by {ENVIRONMENT_VARIABLE}"
        return Choice(asked, source)
    kind = torch.device(device).type
    reason = "no NVIDIA GPU" if kind != "cuda" else "no fused kernel for this device yet"
    return Choice("eager", reason)
