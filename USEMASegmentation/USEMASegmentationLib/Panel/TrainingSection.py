"""The button that adds a corrected case to a training set on this computer, after a question."""

from __future__ import annotations

from collections.abc import Callable

import qt
import slicer
from slicer.i18n import tr as _

from .. import TrainingSet
from ..Parameters import Parameters
from .Installer import Installer
from .RunSection import RunSection
from .RunTexts import asHtml
from .Signals import connect

FOLDER_SETTING = "USEMA/TrainingSet"


class TrainingSection:
    """Shown where there is a segmentation.

    Args:
        ui: the panel's widgets.
        runSection: says what was done, and what went wrong.
        parameters: gives the volume, the segmentation and the model.
        installer: can install what 3D Slicer's Python lacks for it.
    """

    def __init__(self, ui, runSection: RunSection, parameters: Callable[[], Parameters], installer: Installer):
        self.ui = ui
        self.runSection = runSection
        self.parameters = parameters
        self.installer = installer
        connect(ui.trainingButton, "clicked(bool)", self.onAdd)

    def update(self, busy: bool) -> None:
        there = self.parameters().segmentation is not None
        self.ui.trainingButton.visible = there
        self.ui.trainingButton.enabled = not busy

    def onAdd(self, checked: bool = False) -> None:
        with self.runSection.errorsShown():
            parameters, settings = self.parameters(), qt.QSettings()
            TrainingSet.check(parameters)  # before any question
            self.installer.installForTrainingSet()
            folder = qt.QFileDialog.getExistingDirectory(
                slicer.util.mainWindow(),
                _("Folder of the training set, named like Dataset500_Mine"),
                settings.value(FOLDER_SETTING, ""),
            )
            if not folder:
                return
            text = TrainingSet.CONSENT.format(folder=folder)
            if slicer.util.confirmOkCancelDisplay(asHtml(text), _("Add to my training set")) is not True:
                return
            names = TrainingSet.add(parameters, folder, consent=True)
            settings.setValue(FOLDER_SETTING, folder)
            self.runSection.say(
                _("Added to {folder}: {names}.").format(folder=folder, names=", ".join(names)),
                _("Train with: usema train '{folder}' --start {model}").format(
                    folder=folder, model=parameters.modelName
                ),
            )
