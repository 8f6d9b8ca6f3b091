"""What a request to learn from corrections says, and the progress that it is answered with; see ``worker.py``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from . import protocol
from .protocol import RunOptions, Send

if TYPE_CHECKING:
    from ..adaptation.corrections import Corrections
    from ..adaptation.wish import Wish


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
    from ..adaptation.fitting import HEADS, STAGE
    from ..adaptation.wish import AUTO, SECONDS_ALLOWED, Wish

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
    """As ``protocol.throttled``, each phase for itself."""
    current, tell = None, None

    def progress(phase: str, done: int, total: int, seconds_left: float | None) -> None:
        nonlocal current, tell
        if phase != current:
            current, tell = phase, protocol.throttled(partial(send, phase=phase))
        tell(done, total, seconds_left)

    return progress
