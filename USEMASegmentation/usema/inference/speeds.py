"""How fast against how smooth: one choice of three, by the overlap of the tiles. Standard library only.

exact    as the model says
fast     tiles overlap by a quarter at most: up to three times fewer of them; with OpenVINO in bfloat16, on processors
         that compute it (``cpu_engine.py``)
preview  exact, but first a pass with tiles that do not overlap is shown, where that takes half as long at most
"""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import InputError

EXACT, FAST, PREVIEW = SPEEDS = ("exact", "fast", "preview")

MOST_OVERLAP = {FAST: 0.25}
FIRST_PASS = "first pass"  # of a preview; nobody asks for it by name
PAYS = 0.5  # of the tiles of the run itself: a first pass with more is left out


def overlap_of(speed: str, overlap: float | None) -> float | str | None:
    """What ``LoadedPart.overlap`` takes, of the user's two wishes.

    Raises:
        InputError: the speed is none of SPEEDS, or both are given.
    """
    if speed not in SPEEDS:
        raise InputError(f"There is no speed {speed!r}.", f"Choose one of: {', '.join(SPEEDS)}.")
    if speed == FAST and overlap is not None:
        raise InputError(
            f"Both the speed 'fast' and the overlap {overlap} are given, and 'fast' is an overlap of its own.",
            "Give one of the two.",
        )
    return FAST if speed == FAST else overlap


def overlap_between(own: float, wish: float | str | None) -> float:
    """Overlap of neighbouring tiles as a share of their side.

    Args:
        own: the model's.
        wish: a number, or FAST or FIRST_PASS; None: as the model says.
    """
    if wish is None:
        return own
    if wish == FIRST_PASS:
        return 0.0
    return min(own, MOST_OVERLAP[wish]) if isinstance(wish, str) else wish


def offer(seconds: Mapping[str, float], speed: str) -> str:
    """What the speed "fast" would take on this computer, in words; empty if no less by a tenth, or if it was asked for.

    Args:
        seconds: ``Segmentation.seconds_by_speed`` of the last run.
        speed: of that run.
    """
    if speed == FAST or not seconds or seconds[FAST] > 0.9 * seconds[EXACT]:
        return ""
    return f"with --speed fast about {seconds[FAST]:.0f} s here"
