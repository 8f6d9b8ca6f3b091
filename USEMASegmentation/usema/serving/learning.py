"""What a request to learn from corrections says, and the progress that it is answered with; see ``worker.py``."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from . import protocol
from .protocol import RunOptions, Send

if TYPE_CHECKING:
    from ..adaptation.adapting import Wish
    from ..adaptation.corrections import Corrections

PROGRESS_SECONDS = 0.05


def corrections_of(entry: dict) -> Corrections:
    """The corrections that a request tells.

    Raises:
        ProtocolError: it does not tell them.
        InputError: they are none, or cannot be read.
    """
    import numpy as np

    from ..adaptation.corrections import Corrections

    labels, slices, edited = entry.get("labels"), entry.get("slices"), entry.get("edited")
    whole = isinstance(slices, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(type(number) is int for number in pair) for pair in slices
    )
    if not isinstance(labels, str) or not isinstance(edited, (str, type(None))) or not whole:
        raise protocol.ProtocolError(
            f"{entry!r:.200} are no corrections.", "They have labels, slices as pairs of axis and index, and edited."
        )
    mask = None if edited is None else np.asarray(protocol.open_array(edited))
    return Corrections(np.asarray(protocol.open_array(labels)), tuple(map(tuple, slices)), mask)


def wish_of(request: dict, options: RunOptions, labels: Sequence[str]) -> Wish:
    """How a request wants it done.

    Raises:
        ProtocolError: something is of another type.
    """
    from ..adaptation.adapting import AUTO, SECONDS_ALLOWED, Wish
    from ..adaptation.fitting import HEADS, STAGE

    return Wish(
        way=protocol.field(request, "way", str, AUTO),
        overlap=options.overlap,
        speed=options.speed,
        mirror=options.mirror,
        probabilities=options.probabilities,
        margins=options.margins,
        labels=labels,
        seconds_allowed=protocol.field(request, "seconds_allowed", float, SECONDS_ALLOWED),
        seed=protocol.field(request, "seed", int, 0),
        recipe=STAGE if protocol.field(request, "deep", bool, False) else HEADS,
    )


def throttled_by_phase(send: Send) -> Callable[[str, int, int, float | None], None]:
    """Progress as often as a panel can show it; the first and the last of each phase always."""
    last: tuple[str, float] | None = None

    def progress(phase: str, done: int, total: int, seconds_left: float | None) -> None:
        nonlocal last
        now = time.monotonic()
        if last is None or phase != last[0] or done == total or now - last[1] >= PROGRESS_SECONDS:
            last = phase, now
            send(event="progress", phase=phase, done=done, total=total, seconds_left=seconds_left)

    return progress
