"""What becomes of the segmentation that is there, and of the user's corrections. Knows the widgets, but no Qt."""

from __future__ import annotations

from collections.abc import Callable

from slicer.i18n import tr as _

from ..Logic import USEMASegmentationLogic
from ..Parameters import Parameters
from . import RunTexts
from .Signals import connect


class NextResultSection:
    """Selector of what the next result does, and a box that gives the user's corrections up.

    Args:
        ui: the panel's widgets.
        logic: knows how much was corrected.
        chosen: called with the value of ``existing`` that was chosen.
        timer: while it runs, the section is to be updated.
    """

    def __init__(self, ui, logic: USEMASegmentationLogic, chosen: Callable[[str], None], timer):
        self.ui = ui
        self.logic = logic
        self.chosen = chosen
        self._timer = timer
        for text, value in (
            (_("makes a new segmentation"), "new"),
            (_("replaces this model's segments in it"), "replace"),
            (_("is added to it, beside what is there"), "keep"),
        ):
            ui.existingSelector.addItem(text, value)
        connect(ui.existingSelector, "currentIndexChanged(int)", self.onChosen)

    def update(self, parameters: Parameters) -> None:
        """What is chosen, and how much of the user's own a result would find that replaces. As long as this is being
        counted, what is shown is of before, and the timer runs."""
        selector, there = self.ui.existingSelector, parameters.segmentation is not None
        selector.setCurrentIndex(max(0, selector.findData(parameters.existing)))
        self.ui.existingLabel.visible = selector.visible = there
        corrections = self.logic.correctionsSoon(parameters)
        if corrections is None:
            self._timer.start()
            return
        self._timer.stop()
        self.ui.overwriteCheckBox.text = RunTexts.overwrites(corrections)
        self.ui.overwriteCheckBox.visible = corrections.voxels > 0

    def onChosen(self, index: int) -> None:
        self.chosen(self.ui.existingSelector.itemData(index))
