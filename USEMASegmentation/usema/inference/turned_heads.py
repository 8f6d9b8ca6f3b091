"""Of a head in which nothing was found: whether it lies turned over the axis from left to right, face up or down.

Its halves are alike however it is turned so, so symmetry (see ``head_doubts``) tells nothing. What looks for regions
does: it finds them in the same voxels under a header that shows the head as heads lie.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..volumes.geometry import Geometry

_QUARTERS = (1, -1, 2)  # turns by 90 degrees; the likeliest first
_NAMES = {(1, 1): "the back", (1, -1): "the front", (2, 1): "the top", (2, -1): "the bottom"}  # of axes L, P and S


def turned_text(geometry: Geometry, is_found: Callable[[Geometry], bool]) -> str:
    """By how much a head is turned over that axis, and how its file would be right, as a sentence for the user; empty
    where no quarter of a turn shows one.

    Args:
        geometry: of the file, in which nothing was found.
        is_found: whether something is found in the file's voxels under another geometry; takes a run of the finder.
    """
    for quarters in _QUARTERS:
        turn = _about_left(quarters)
        lying = replace(geometry, direction=tuple((turn @ geometry.axes + 0.0).ravel().tolist()))
        if is_found(lying):
            return (
                f"It looks like a head that is turned by {90 * abs(quarters)} degrees over the axis from left to "
                f"right: what the file calls the front is {_is(turn @ (0, -1, 0))}, and what it calls the top is "
                f"{_is(turn @ (0, 0, 1))}. The file's orientation, {geometry.orientation}, may be wrong; "
                f"{lying.orientation} would be right."
            )
    return ""


def _about_left(quarters: int) -> np.ndarray:
    """(3, 3) in LPS, exact."""
    cosine, sine = ((1, 0), (0, 1), (-1, 0), (0, -1))[quarters % 4]
    return np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])


def _is(direction: np.ndarray) -> str:
    axis = int(np.abs(direction).argmax())
    return _NAMES[axis, int(np.sign(direction[axis]))]
