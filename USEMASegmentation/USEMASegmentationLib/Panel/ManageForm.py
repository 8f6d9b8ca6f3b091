"""The section of models, loaded into the panel: what its widgets need of Qt is given to it here."""

from __future__ import annotations

import qt
import slicer
from slicer.i18n import tr as _

from .ManageSection import ManageSection


def loadManageSection(panel) -> ManageSection:
    """Of the panel's store and installer; the panel hears of what is begun and of what has changed."""
    ui = panel._form("UI/Models.ui", panel.ui.manageFrame)
    ui.modelsTable.horizontalHeader().setSectionResizeMode(0, qt.QHeaderView.Stretch)
    return ManageSection(
        ui,
        panel.logic.store,
        panel.installer,
        started=panel.onStoreStarted,
        changed=panel.showModels,
        newItem=qt.QTableWidgetItem,
        chooseFile=lambda: qt.QFileDialog.getOpenFileName(
            slicer.util.mainWindow(), _("Model file"), "", _("Models (*.usema *.zip *.pth *.json)")
        ),
    )
