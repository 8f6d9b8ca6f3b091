"""The button that measures a result. Knows the widget, but no Qt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import slicer
from slicer.i18n import tr as _

from ..Scene import Measurements
from ..Scene.ImageMeasurements import measureImage
from ..Scene.Images import isFlat
from ..Scene.VolumeBridge import referenceVolume
from .AskedWork import AskedWork, Surroundings
from .RunSection import RunSection
from .Signals import connect


class MeasureSection:
    """Shown where there is a segmentation: of an image, or where there is 3D Slicer's own Segment Statistics.

    Args:
        ui: the panel's widgets.
        runSection: says what went wrong.
        newTimer: makes a timer that calls what it is given.
    """

    def __init__(self, ui, runSection: RunSection, newTimer: Callable):
        self.ui = ui
        self.runSection = runSection
        self._measuring = AskedWork(Surroundings(runSection.errorsShown, lambda: True, newTimer), self._tell)
        self._subject = None, None
        connect(ui.measureButton, "clicked(bool)", self.onMeasure)
        self.update(None, None)

    def update(self, segmentation, volume) -> None:
        """Which segmentation a click measures, and the volume of one that does not know its own."""
        self._subject = segmentation, volume
        possible = Measurements.isAvailable() or isFlat(referenceVolume(segmentation, volume))
        self.ui.measureButton.visible = segmentation is not None and possible

    def onMeasure(self, checked: bool = False) -> None:
        segmentation, volume = self._subject
        with self.runSection.errorsShown():
            if isFlat(referenceVolume(segmentation, volume)):  # it has areas, not volumes
                tables, doubts = measureImage(segmentation, referenceVolume(segmentation, volume))
                _show(tables[-1])
                self._say(tables, doubts)
            else:
                self.runSection.say(_("Measuring..."))
                self._measuring.ask(partial(Measurements.measuring, segmentation, volume), lambda one: self._say([one]))

    def _tell(self) -> None:
        self.ui.measureButton.enabled = not self._measuring.busy

    def _say(self, tables: list, doubts: Sequence[str] = ()) -> None:
        names = "', '".join(table.GetName() for table in tables)
        text = _("The measurements are in the table '{name}'.").format(name=names)
        self.runSection.say(" ".join([text, *doubts]))


def _show(table) -> None:
    """As Segment Statistics shows its own: in a layout with a table, where the application has views."""
    applicationLogic, manager = slicer.app.applicationLogic(), slicer.app.layoutManager()
    if manager is not None:  # first: without the layout there is no view yet that could be told of the table
        manager.setLayout(slicer.modules.tables.logic().GetLayoutWithTable(manager.layout))
    applicationLogic.GetSelectionNode().SetActiveTableID(table.GetID())
    applicationLogic.PropagateTableSelection()
