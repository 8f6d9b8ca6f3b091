"""What the tests of the panel share: the stand-in of the application on the path, and waiting for the event loop."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "Host"))

import our_models
import pythonqt
import slicer
import slicer_host
from usema.resources import sample_volume

__all__ = ["choices", "choose", "isShown", "loadSample", "pythonqt", "rows", "sequenceOf", "slicer_host"]
__all__ += ["waitForStore", "waitUntil"]

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")


def loadSample(app):
    return app.loadVolume(sample_volume())


def sequenceOf(volume):
    """(browser, the volume that shows its frames): the same volume at two times."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "Sequence")
    for value in ("0", "10"):
        node.SetDataNodeAtValue(volume, value)
    browser = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode")
    browser.SetAndObserveMasterSequenceNodeID(node.GetID())
    slicer.modules.sequences.logic().UpdateAllProxyNodes()
    return browser, browser.GetProxyNode(node)


def waitUntil(condition, seconds: float = 60) -> None:
    """Lets the event loop run until it is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        slicer.app.processEvents()
        time.sleep(0.01)


# Models


def choose(panel, name: str) -> None:
    panel.ui.modelSelector.setCurrentIndex(panel.ui.modelSelector.findData(name))


def isShown(widget) -> bool:
    return widget.isVisibleTo(widget.parent())


def waitForStore(panel) -> None:
    waitUntil(lambda: not panel.logic.store.busy and not panel.storeTimer.active)


OURS = our_models.CHOICES  # what USEMA itself brings and offers, as it is shown


def choices(panel) -> list[str]:
    """The models to choose from, as they are shown."""
    return [panel.ui.modelSelector.itemText(row) for row in range(panel.ui.modelSelector.count)]


def rows(panel) -> list[list[str]]:
    """The table of models on this computer."""
    table = panel.manageSection.ui.modelsTable
    return [[table.item(row, column).text() for column in range(4)] for row in range(table.rowCount)]
