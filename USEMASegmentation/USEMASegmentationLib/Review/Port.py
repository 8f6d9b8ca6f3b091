"""What reviewing needs of a front end: the application's scene has it (`Scene.ReviewCase`), and others can have it too.

Arrays are (z, y, x), boxes three slices in that order, all in the indices of the volume that was segmented.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from usema.volumes.margins import Margins
from usema.volumes.masks import NOTHING, Box, PlacedMask

from ..Steps import Working


class Edits(Protocol):
    """A segment's voxels now, as the model wrote them, and what the user changed since."""

    now: PlacedMask
    written: PlacedMask
    added: PlacedMask
    removed: PlacedMask
    changed: PlacedMask


IN_PROGRESS, COMPLETED, FLAGGED = "InProgress", "Completed", "Flagged"  # how far the work on a segment is


@dataclass(frozen=True, eq=False)
class Change:
    """What an action does to one segment."""

    added: PlacedMask = NOTHING
    removed: PlacedMask = NOTHING


@dataclass(frozen=True, eq=False)
class Notes:
    """What is remembered of an action, beside the voxels that it changed; undo takes it back with them.

    Attributes:
        thresholds: steps added to the margins of labels, by value.
        margins: of a box, over those that were kept.
        box: where they lie.
        refined: the corrections that have been followed, by label.
        provenance: of what was computed anew, text by name.
        delta: what the model has learned, as text; None: that of before, if there is one.
    """

    thresholds: Mapping[int, int] = field(default_factory=dict)
    margins: Margins | None = None
    box: Box | None = None
    refined: Mapping[int, PlacedMask] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
    delta: str | None = None


class Port(Protocol):
    """One result of one model: its segments, and what was kept of it.

    Attributes:
        spacing: of the voxels along z, y, x, in millimetres.
        margins: of the labels.
        names: of the segments, by label; labels whose segment is gone are left out.
        thresholds: steps added to the margins of labels so far, by value.
        overlaps: segments may overlap: what one wins, others do not lose.
        state: what the user has said, kept with the result.
    """

    spacing: tuple[float, float, float]
    margins: Margins
    names: Mapping[int, str]
    thresholds: Mapping[int, int]
    overlaps: bool
    state: dict

    def image(self, box: Box) -> np.ndarray:
        """The volume's voxels."""

    def edits(self) -> Mapping[int, Edits]:
        """What the user changed in each segment."""

    def refined(self) -> Mapping[int, PlacedMask]:
        """The corrections that have been followed, by label."""

    def others(self, box: Box) -> np.ndarray:
        """bool: voxels of segments that are not of this result."""

    def lookingAtOthers(self, box: Box) -> Working:
        """As `others`, a moment at a time."""

    def editable(self, value: int, box: Box) -> np.ndarray | None:
        """bool: where the user's masks let this segment be edited; None: everywhere."""

    def lookingWhereEditable(self, value: int, box: Box) -> Working:
        """As `editable`, a moment at a time."""

    def moment(self) -> Hashable:
        """What tells, without looking at voxels, whether segments or masks may have changed."""

    def yields(self, value: int) -> bool:
        """Whether a segment loses voxels that another one wins."""

    def mark(self, marks: Mapping[int, str]) -> None:
        """Tell the user's list of segments how far the work on some is: IN_PROGRESS, COMPLETED or FLAGGED by label."""

    def write(self, changes: Mapping[int, Change], notes: Notes) -> None:
        """Change segments, as one step that can be undone. What is changed counts as written by the model.

        Raises:
            UsemaError: the state before it cannot be saved; nothing was changed.
        """

    def writing(self, changes: Mapping[int, Change], notes: Notes, moment: Hashable) -> Working:
        """As `write`, a moment at a time up to the one in which it is written; returns whether it was: not, if `moment`
        has become another one."""
