"""The button that measures a result. Knows the widget, but no Qt."""

from __future__ import annotations

from slicer.i18n import tr as _

from ..Scene import Measurements
from ..Scene.Images import isFlat
from .RunSection import RunSection
from .Signals import connect


class MeasureSection:
    """Shown where there is a segmentation, and 3D Slicer's own Segment Statistics.

    Args:
        ui: the panel's widgets.
        runSection: says what went wrong.
    """

    def __init__(self, ui, runSection: RunSection):
        self.ui = ui
        self.runSection = runSection
        self._subject = None, None
        connect(ui.measureButton, "clicked(bool)", self.onMeasure)
        self.update(None, None)

    def update(self, segmentation, volume) -> None:
        """Which segmentation a click measures, and the volume of one that does not know its own."""
        self._subject = segmentation, volume
        possible = segmentation is not None and not isFlat(volume)  # a single slice has areas, not volumes
        self.ui.measureButton.visible = possible and Measurements.isAvailable()

    def onMeasure(self, checked: bool = False) -> None:
        with self.runSection.errorsShown():
            table = Measurements.measure(*self._subject)
            self.runSection.say(_("The measurements are in the table '{name}'.").format(name=table.GetName()))
