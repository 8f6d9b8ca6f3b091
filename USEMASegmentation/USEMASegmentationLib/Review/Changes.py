"""What an action may change, and what it does to each segment: the same rules for refining and for learning."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from usema.volumes.margins import BACKGROUND
from usema.volumes.masks import Box, PlacedMask, common_box, relative

from .Port import Change, Edits, Port
from .Slices import acceptedIn


class Allowed:
    """Which voxels of a box may change: none that the user changed or accepted, none outside of the masks.

    What segments of others cover is not won, but may be lost.

    Args:
        values: the labels whose masks count.
        covered: bool, what segments of others cover; None: it is looked for.

    Attributes:
        edited: bool, what the user changed.
        fixed: bool, what is to stay as it is.
    """

    def __init__(
        self,
        port: Port,
        edits: Mapping[int, Edits],
        box: Box,
        values: Iterable[int],
        covered: np.ndarray | None = None,
    ):
        shape = [part.stop - part.start for part in box]
        self.box, self.edited, own = box, editedIn(edits, box), np.zeros(shape, bool)
        for one in edits.values():
            own |= one.now.on(box)
        self._yielding = {value for value in edits if port.yields(value)}
        if covered is None:
            covered = np.zeros(shape, bool) if port.overlaps else port.others(box)
        self._covered = covered
        self.fixed = self.edited | acceptedIn(port, box) | (self._covered & ~own)
        for value in values:
            editable = port.editable(value, box)
            if editable is not None:
                self.fixed |= ~editable

    def changes(self, edits: Mapping[int, Edits], new: np.ndarray, changed: np.ndarray) -> dict[int, Change]:
        """By label.

        Args:
            new: labels, in the box.
            changed: bool, where they shall count.
        """
        found = {}
        for value, one in edits.items():
            now = one.now.on(self.box)
            won, lost = changed & (new == value) & ~now & ~self._covered, changed & (new != value) & now
            if value not in self._yielding:
                lost &= new == BACKGROUND
            if won.any() or lost.any():
                found[value] = Change(placed(won, self.box), placed(lost, self.box))
        return found


def editedIn(edits: Mapping[int, Edits], box: Box) -> np.ndarray:
    """bool, in a box: what the user changed in any segment."""
    mask = np.zeros([part.stop - part.start for part in box], bool)
    for one in edits.values():
        inner = common_box(one.changed.box, box)
        if inner is not None:
            mask[relative(inner, box)] |= one.changed.on(inner)
    return mask


def placed(mask: np.ndarray, box: Box) -> PlacedMask:
    """What of a box is set."""
    return PlacedMask(mask, tuple(part.start for part in box[::-1])).trimmed()
