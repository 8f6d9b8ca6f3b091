"""The button that lets the model follow the user's strokes. Knows the widgets, but no Qt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from slicer.i18n import tr as _
from usema.errors import InputError

from ..Review.Refine import Strokes, refine
from ..Scene.ReviewCase import ReviewCase
from .Signals import connect


class RefineControls:
    """Says how much there is to follow, and follows it.

    Args:
        ui: the widgets of the section.
        guarded: gives a context in which errors are shown.
        changed: called when voxels were changed.
    """

    def __init__(self, ui, guarded: Callable[[], AbstractContextManager], changed: Callable[[], None]):
        self.ui = ui
        self.guarded = guarded
        self.changed = changed
        self._cases: list[ReviewCase] = []
        self._said = ""
        connect(ui.refineButton, "clicked(bool)", self.onRefine)

    def show(self, cases: Sequence[ReviewCase]) -> None:
        """Strokes in these results."""
        self._cases, self._said = list(cases), ""
        self.update()

    def update(self) -> None:
        """Voxels were changed."""
        count = sum(Strokes.of(case).mask.count for case in self._cases)
        self.ui.refineButton.enabled = count > 0
        if count:
            text = _("{count} voxels of new strokes to follow.").format(count=count)
        else:
            text = self._said or _("Paint or erase a little where the result is wrong, in the section Correct.")
        self.ui.refineLabel.text = text

    def onRefine(self, checked: bool = False) -> None:
        with self.guarded():
            count = 0
            for case in self._cases:
                if Strokes.of(case).values:
                    count += refine(case)
            if not self._cases:
                raise InputError("There is no result to be refined.")
            self.changed()
            self._said = _("{count} voxels have followed. Undo takes that back and keeps your strokes.").format(
                count=count
            )
            self.update()
