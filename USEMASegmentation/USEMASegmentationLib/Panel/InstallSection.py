"""What is missing for segmenting, and the buttons that install it."""

from __future__ import annotations

from collections.abc import Callable

import qt
import slicer
from slicer.i18n import tr as _

from .Installer import Installer
from .RunSection import RunSection
from .Signals import connect


class InstallSection:
    """Shown as long as something is missing.

    Args:
        ui: the panel's widgets.
        runSection: says what went well or wrong.
        installed: called when something was installed; a worker that started without it would not see it.
        showAll: shows everything anew.

    Attributes:
        missing: packages, in words; empty: none is.
    """

    def __init__(self, ui, installer: Installer, runSection: RunSection, installed: Callable, showAll: Callable):
        self.ui, self.installer, self.runSection = ui, installer, runSection
        self.installed, self.showAll = installed, showAll
        self.missing = ""
        self.look()
        connect(ui.installButton, "clicked(bool)", self.onInstall)
        connect(ui.installFromFolderButton, "clicked(bool)", self.onInstallFromFolder)

    def look(self) -> None:
        """What is missing now."""
        self.missing = self.installer.words()

    def update(self) -> None:
        self.ui.setupSection.visible = bool(self.missing)
        self.ui.setupLabel.text = self.missing

    def offer(self) -> None:
        """Installs once more what an application that had to start anew could not finish."""
        if self.missing and self.installer.isPending():
            qt.QTimer.singleShot(0, self.onInstall)  # a dialog from here would keep the module from being shown

    def onInstall(self, checked: bool = False, folder: str = "") -> None:
        with self.runSection.errorsShown():
            self.installer.install(folder)
            self.installed()
            self.runSection.say(_("Everything that segmenting needs is installed."))
        self.look()
        self.showAll()

    def onInstallFromFolder(self, checked: bool = False) -> None:
        folder = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), _("Folder of wheel files"))
        if folder:
            self.onInstall(folder=folder)
