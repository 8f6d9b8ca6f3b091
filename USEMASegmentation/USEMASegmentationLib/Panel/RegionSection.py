"""The button that makes a region of the size that a model of crops is for. Knows the widgets, but no Qt."""

from __future__ import annotations

from collections.abc import Callable

from slicer.i18n import tr as _

from ..Parameters import Parameters
from ..Scene import RegionOffer
from .RunSection import RunSection
from .Signals import connect


class RegionSection:
    """Shown where the volume shows far more than the model is for, and no region is chosen.

    Args:
        ui: the panel's widgets.
        runSection: says what went wrong.
        parameters: gives what a click on Segment would start.
    """

    def __init__(self, ui, runSection: RunSection, parameters: Callable[[], Parameters]):
        self.ui = ui
        self.runSection = runSection
        self.parameters = parameters
        connect(ui.regionButton, "clicked(bool)", self.onPlace)

    def update(self, busy: bool) -> None:
        size = None if busy else RegionOffer.sizeOffered(self.parameters())
        self.ui.regionButton.visible = size is not None
        if size is not None:
            lengths = " x ".join(f"{length:g}" for length in size)
            self.ui.regionButton.text = _("Region of {size} mm").format(size=lengths)

    def onPlace(self, checked: bool = False) -> None:
        with self.runSection.errorsShown():
            self.ui.roiSelector.setCurrentNode(RegionOffer.place(self.parameters()))
