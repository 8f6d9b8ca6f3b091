"""What concerns the computer rather than the scene: device, memory, diagnostics. Knows the widgets, but no Qt."""

from __future__ import annotations

from collections.abc import Callable

import slicer
from slicer.i18n import tr as _

from ..Logic import USEMASegmentationLogic
from .RunTexts import asHtml
from .Signals import connect

DEVICE_SETTING = "USEMA/Device"


class AdvancedSection:
    """Device selector, Release memory and Copy diagnostics.

    Args:
        ui: the panel's widgets.
        logic: does the work.
        settings: a QSettings; the device is a choice of the computer's and is kept there.
        changed: called when something was chosen or done that changes what can be done next.
    """

    def __init__(self, ui, logic: USEMASegmentationLogic, settings, changed: Callable[[], None]):
        self.ui = ui
        self.logic = logic
        self.settings = settings
        self.changed = changed
        for text, value in (
            (_("Automatic"), "auto"),
            (_("CPU"), "cpu"),
            (_("NVIDIA GPU"), "cuda"),
            (_("Apple GPU"), "mps"),
        ):
            ui.deviceSelector.addItem(text, value)
        chosen = ui.deviceSelector.findData(settings.value(DEVICE_SETTING, "auto"))
        ui.deviceSelector.setCurrentIndex(max(0, chosen))
        connect(ui.deviceSelector, "currentIndexChanged(int)", self.onDeviceChosen)
        connect(ui.releaseButton, "clicked(bool)", self.onRelease)
        connect(ui.diagnosticsButton, "clicked(bool)", self.onCopyDiagnostics)

    def device(self) -> str:
        return self.ui.deviceSelector.currentData

    def update(self, modelName: str) -> None:
        """What is known of device and engine, for the chosen model."""
        self.ui.releaseButton.enabled = not self.logic.busy
        self.ui.badgeLabel.text, reason = self.logic.badge(modelName)
        self.ui.badgeLabel.toolTip = asHtml(reason)

    def onDeviceChosen(self, index: int) -> None:
        self.settings.setValue(DEVICE_SETTING, self.ui.deviceSelector.itemData(index))
        self.changed()

    def onRelease(self, checked: bool = False) -> None:
        self.logic.releaseMemory()
        self.changed()

    def onCopyDiagnostics(self, checked: bool = False) -> None:
        slicer.app.clipboard().setText(self.logic.diagnostics())
        slicer.util.showStatusMessage(_("Diagnostics copied to the clipboard"), 3000)
