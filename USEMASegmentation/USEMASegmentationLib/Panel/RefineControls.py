"""The button that lets the model follow the user's strokes. Knows the widgets, but no Qt."""

from __future__ import annotations

from collections.abc import Sequence

from slicer.i18n import tr as _
from usema.errors import InputError

from ..Review.Refine import Strokes, refining
from ..Scene.ReviewCase import ReviewCase
from ..Steps import Working
from .AskedWork import AskedWork, Surroundings
from .Signals import connect


class RefineControls:
    """Says how much there is to follow, and follows it.

    Args:
        ui: the widgets of the section.
        surroundings: the section that they belong to.
    """

    def __init__(self, ui, surroundings: Surroundings):
        self.ui = ui
        self.errorsShown = surroundings.errorsShown
        self.isUpToDate = surroundings.isUpToDate
        self._asked = AskedWork(surroundings, self._goOn)
        self._cases: list[ReviewCase] = []
        self._said, self._following = "", ""  # what is said, and what will be when the result is shown anew
        connect(ui.refineButton, "clicked(bool)", self.onRefine)

    def show(self, cases: Sequence[ReviewCase]) -> None:
        """Strokes in these results."""
        self._asked.giveUp()
        self._cases, self._said, self._following = list(cases), self._following, ""
        self.update()

    def update(self) -> None:
        """Voxels were changed."""
        if self._asked.busy:
            self.ui.refineButton.enabled = False
            self.ui.refineLabel.text = _("Following the strokes...")
            return
        count = sum(Strokes.of(case).mask.count for case in self._cases)
        self.ui.refineButton.enabled = count > 0
        if count:
            text = _("{count} voxels of new strokes to follow.").format(count=count)
        else:
            text = self._said or _("Paint or erase a little where the result is wrong, in the section Correct.")
        self.ui.refineLabel.text = text

    def _goOn(self) -> None:
        """While it works, and when it has ended: what it left is not counted before it was looked at."""
        if self._asked.busy or self.isUpToDate():
            self.update()

    def onRefine(self, checked: bool = False) -> None:
        with self.errorsShown():
            self._asked.ask(self._refining, self._tell)

    def hide(self) -> None:
        """Nobody looks at the section any more."""
        self._asked.stopWaiting()

    def _refining(self) -> Working:
        if not self._cases:
            raise InputError("There is no result to be refined.")
        count = 0
        for case in self._cases:
            if Strokes.of(case).values:
                count += yield from refining(case)
        return count

    def _tell(self, count: int) -> None:
        text = _("{count} voxels have followed. Undo takes that back and keeps your strokes.")
        self._following = text.format(count=count)
        self.isUpToDate()
