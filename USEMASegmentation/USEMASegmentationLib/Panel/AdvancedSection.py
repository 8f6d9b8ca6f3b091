"""How fast, and what concerns the computer: device, memory, diagnostics. Knows the widgets, but no Qt."""

from __future__ import annotations

from collections.abc import Callable

import slicer
from slicer.i18n import tr as _
from usema.errors import Cancelled, UsemaError
from usema.inference.speeds import EXACT, FAST, PREVIEW
from usema.store.library import KnownModel

from ..Logic import USEMASegmentationLogic
from . import RunTexts
from .Installer import FASTER, Installer
from .RunTexts import asHtml
from .Signals import connect

DEVICE_SETTING = "USEMA/Device"
SPEED_TEXTS = ((_("Exact"), EXACT), (_("Fast"), FAST), (_("Exact, with a first look"), PREVIEW))


class AdvancedSection:
    """Speed and device selectors, what is faster on a CPU, Release memory and Copy diagnostics.

    Args:
        ui: the panel's widgets.
        logic: does the work.
        installer: can install what is faster.
        settings: a QSettings; the device is a choice of the computer's and is kept there.
        changed: called when something was chosen or done that changes what can be done next.
    """

    def __init__(self, ui, logic: USEMASegmentationLogic, installer: Installer, settings, changed: Callable[[], None]):
        self.ui = ui
        self.logic = logic
        self.installer = installer
        self.settings = settings
        self.changed = changed
        for text, value in (
            (_("Automatic"), "auto"),
            (_("CPU"), "cpu"),
            (_("NVIDIA GPU"), "cuda"),
            (_("Apple GPU"), "mps"),
        ):
            ui.deviceSelector.addItem(text, value)
        for text, value in SPEED_TEXTS:
            ui.speedSelector.addItem(text, value)
        self._node = None
        chosen = ui.deviceSelector.findData(settings.value(DEVICE_SETTING, "auto"))
        ui.deviceSelector.setCurrentIndex(max(0, chosen))
        connect(ui.deviceSelector, "currentIndexChanged(int)", self.onDeviceChosen)
        connect(ui.speedSelector, "currentIndexChanged(int)", self.onSpeedChosen)
        connect(ui.fasterButton, "clicked(bool)", self.onFaster)
        connect(ui.releaseButton, "clicked(bool)", self.onRelease)
        connect(ui.diagnosticsButton, "clicked(bool)", self.onCopyDiagnostics)

    def device(self) -> str:
        return self.ui.deviceSelector.currentData

    def update(self, node, model: KnownModel | None = None) -> None:
        """What is chosen in the parameter node, and what is known of speeds, device and engine for its model."""
        self._node, modelName, selector = node, node.modelName, self.ui.speedSelector
        seconds, measured = self.logic.secondsBySpeed(modelName), model.dice_by_speed if model else {}
        for index, (text, value) in enumerate(SPEED_TEXTS):
            selector.setItemText(index, RunTexts.speed(text, seconds.get(value), measured.get(value)))
        selector.setCurrentIndex(max(0, selector.findData(node.speed)))
        self.ui.releaseButton.enabled = self.ui.fasterButton.enabled = not self.logic.busy
        self.ui.fasterButton.visible = not FASTER.isMet() and self.logic.badge()[0].startswith(("cpu", "Engine"))
        self.ui.badgeLabel.text, reason = self.logic.badge(modelName)
        self.ui.badgeLabel.toolTip = asHtml(reason)

    def onDeviceChosen(self, index: int) -> None:
        self.settings.setValue(DEVICE_SETTING, self.ui.deviceSelector.itemData(index))
        self.changed()

    def onSpeedChosen(self, index: int) -> None:
        if self._node is not None and self._node.speed != (speed := self.ui.speedSelector.itemData(index)):
            self._node.speed = speed

    def onFaster(self, checked: bool = False) -> None:
        try:
            self.installer.installFaster()
        except Cancelled:
            return
        except UsemaError as error:
            slicer.util.errorDisplay(asHtml(str(error)), windowTitle="USEMA Segmentation")
        else:
            self.logic.releaseMemory()  # a worker that began without it does not see it
            slicer.util.showStatusMessage(_("OpenVINO is installed"), 3000)
        self.changed()

    def onRelease(self, checked: bool = False) -> None:
        self.logic.releaseMemory()
        self.changed()

    def onCopyDiagnostics(self, checked: bool = False) -> None:
        slicer.app.clipboard().setText(self.logic.diagnostics())
        slicer.util.showStatusMessage(_("Diagnostics copied to the clipboard"), 3000)
