"""Pictures of the panel in the stand-in, with the bundled model, its worker and a real scene.

    QT_QPA_PLATFORM=offscreen python Testing/Host/photograph_panel.py FOLDER

Writes panel.png (a result, ready to be corrected), one picture for each other state, and question.png (what is asked
before a download). The headers and the Segment Editor are sketches: in the application they are Slicer's own.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pythonqt
import slicer_host
from PySide6 import QtCore, QtGui, QtWidgets

EFFECTS = ("None", "Threshold", "Paint", "Draw", "Erase", "Level tracing", "Grow from seeds", "Fill between slices",
           "Margin", "Hollow", "Smoothing", "Scissors", "Islands", "Logical operators", "Mask volume")  # fmt: skip
# What 3D Slicer leaves a panel of its window of 1500 x 1000: below the menus and toolbars, above the data probe.
WIDTH, HEIGHT, HEADER, SCALE = 500, 780, 24, 2


def paintHeader(section, event) -> None:
    """What a collapsible section is drawn with: its header alone."""
    painter, option = QtGui.QPainter(section), QtWidgets.QStyleOptionButton()
    option.rect = QtCore.QRect(0, 0, section.width(), HEADER)
    option.state |= QtWidgets.QStyle.StateFlag.State_Enabled
    section.style().drawControl(QtWidgets.QStyle.ControlElement.CE_PushButtonBevel, option, painter, section)
    text = f"{'▸' if section.collapsed else '▾'}  {section.text}"
    painter.drawText(option.rect.adjusted(8, 0, 0, 0), QtCore.Qt.AlignmentFlag.AlignVCenter, text)


def sketchHeaders(panel) -> None:
    """Headers for collapsible sections, and closes those that are collapsed."""
    names = ("segmentCollapsibleButton", "correctCollapsibleButton", "advancedCollapsibleButton")
    others = (panel.manageSection.ui.manageCollapsibleButton, panel.reviewSection.ui.reviewCollapsibleButton)
    sections = [*(getattr(panel.ui, name) for name in names), *others]
    for section in (one.qtObject for one in sections):
        section.setContentsMargins(6, HEADER + 2, 6, 2)
        if section.collapsed:
            section.setMaximumHeight(HEADER)
            for child in section.findChildren(QtWidgets.QWidget):
                child.hide()


def sketchEditor(panel) -> None:
    """Effects as a column of icons beside the table of segments, as tall as in the application."""
    editor = panel.ui.segmentEditor.qtObject
    layout, effects, below = QtWidgets.QVBoxLayout(editor), QtWidgets.QGridLayout(), QtWidgets.QHBoxLayout()
    segmentation = panel.ui.outputSelector.currentNode().GetSegmentation()
    table = QtWidgets.QTableWidget(segmentation.GetNumberOfSegments(), 2)
    table.setHorizontalHeaderLabels(["Color", "Name"])
    table.horizontalHeader().setStretchLastSection(True)
    table.setColumnWidth(0, 60)
    table.verticalHeader().hide()
    for row in range(segmentation.GetNumberOfSegments()):
        segment, color = segmentation.GetNthSegment(row), QtWidgets.QTableWidgetItem()
        color.setBackground(QtGui.QColor.fromRgbF(*segment.GetColor()))
        table.setItem(row, 0, color)
        table.setItem(row, 1, QtWidgets.QTableWidgetItem(segment.GetName()))
    buttons = QtWidgets.QHBoxLayout()
    for name in ("Add", "Remove"):
        buttons.addWidget(QtWidgets.QPushButton(name))
    options = QtWidgets.QGroupBox("Options")
    options.setMinimumHeight(90)
    right = QtWidgets.QVBoxLayout()
    right.addWidget(table, 1)
    right.addWidget(options)
    right.addWidget(QtWidgets.QLabel("▸ Masking"))
    for index, name in enumerate(EFFECTS):
        button = QtWidgets.QToolButton()
        button.setText("".join(word[0] for word in name.split()[:2]).upper())
        button.setFixedSize(30, 30)
        effects.addWidget(button, index // 2, index % 2)
    effects.setRowStretch(len(EFFECTS) // 2 + 1, 1)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.addLayout(buttons)
    below.addLayout(effects)
    below.addLayout(right, 1)
    layout.addLayout(below, 1)


def photograph(panel, path: Path) -> None:
    """The whole panel, in the room that it has, or as tall as it needs to be."""
    frame = panel.parent.qtObject
    frame.show()
    # Labels that wrap find their height once they know their width, and a form that was squeezed lays its rows out anew
    # at another width alone.
    for width in (WIDTH, WIDTH + 1, WIDTH):
        frame.resize(width, max(HEIGHT, frame.heightForWidth(width)))
        QtWidgets.QApplication.processEvents()
    picture = QtGui.QPixmap(frame.size() * SCALE)
    picture.setDevicePixelRatio(SCALE)
    frame.render(picture)
    picture.save(str(path))


def waitUntil(condition) -> None:
    end = time.monotonic() + 120
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        QtWidgets.QApplication.processEvents()
        time.sleep(0.01)


def openPanel():
    """The host and the panel, opened with a store of its own and drawn as in the application."""
    store = Path(tempfile.mkdtemp(prefix="usema-store-"))  # not that of whoever runs this
    os.environ |= {"USEMA_MODELS": str(store / "Models"), "USEMA_SETTINGS": str(store / "settings.json")}
    host = slicer_host.start()
    QtWidgets.QApplication.setStyle("Fusion")
    pythonqt.NATIVE["ctkCollapsibleButton"].paintEvent = paintHeader  # once: PySide keeps no hold of a replaced one
    return host, slicer_host.load()


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    host, panel = openPanel()
    sketchHeaders(panel)
    photograph(panel, folder / "panel-empty.png")

    import slicer
    from usema.resources import sample_volume

    volume = host.loadVolume(sample_volume())
    panel.ui.segmentButton.click()
    waitUntil(lambda: not panel.logic.busy)
    panel.onTimer()
    sketchEditor(panel)
    photograph(panel, folder / "panel.png")

    # The sample, three times along each axis, has more than one tile.
    array = np.tile(slicer.util.arrayFromVolume(volume), (3, 3, 3))
    large = slicer.util.addVolumeFromArray(array, name="large volume")
    panel.ui.inputSelector.setCurrentNode(large)
    panel.ui.segmentButton.click()
    waitUntil(lambda: panel.logic.status.done > 1)
    panel.onTimer()
    photograph(panel, folder / "panel-running.png")
    slicer.mrmlScene.RemoveNode(large)
    waitUntil(lambda: not panel.logic.busy)
    panel.onTimer()
    photograph(panel, folder / "panel-cancelled.png")
    panel.cleanup()
    photographShelf(host, folder)
    photographModels(host, folder)


def photographShelf(host, folder: Path) -> None:
    """The search for a model by what it segments, and a public model that was found."""
    from usema.resources import sample_volume

    host.loadVolume(sample_volume())
    panel = slicer_host.load()
    panel.ui.correctCollapsibleButton.collapsed = True
    sketchHeaders(panel)
    panel.ui.shelfButton.click()
    photograph(panel, folder / "panel-shelf-all.png")
    panel.ui.shelfEdit.text = "left adrenal"
    photograph(panel, folder / "panel-shelf.png")
    panel.ui.useButton.click()
    panel.ui.labelsFilter.text = "adrenal"
    photograph(panel, folder / "panel-shelf-chosen.png")
    panel.cleanup()


def photographModels(host, folder: Path) -> None:
    """A model that has to be downloaded, its download from a server on loopback, and the section Models."""
    import slicer.util

    sys.path.insert(0, str(Path(__file__).parents[1] / "Python" / "helpers"))
    from model_shop import open_shop
    from usema.models.bundle import METADATA_FILE, read_bundle
    from usema.resources import bundled_models, sample_volume
    from usema.store import indexes
    from usema.store.publish import publish

    name = "hippocampus-7t"
    with tempfile.TemporaryDirectory() as shelf, open_shop(Path(shelf) / "shop") as shop:
        model = Path(shutil.copytree(bundled_models()["hippocampus-mr"], Path(shelf) / name))
        document = json.loads((model / METADATA_FILE).read_text("utf-8"))
        document |= {"name": name, "title": "Hippocampus (7 T)"}
        (model / METADATA_FILE).write_text(json.dumps(document), "utf-8")
        publish(read_bundle(model), shop.folder, title="Models of the department")
        indexes.refresh()
        questions = []
        slicer.util.confirmOkCancelDisplay = lambda text, **_: questions.append(text) or True
        host.loadVolume(sample_volume())
        panel = slicer_host.load()
        selector = panel.ui.modelSelector
        selector.setCurrentIndex(selector.findData(name))
        panel.ui.correctCollapsibleButton.collapsed = True
        sketchHeaders(panel)
        photograph(panel, folder / "panel-available.png")
        shop.speed = 400_000
        panel.ui.downloadButton.click()
        waitUntil(lambda: panel.logic.store.status.secondsLeft)
        panel.onStoreTimer()
        photograph(panel, folder / "panel-downloading.png")
        question = QtWidgets.QMessageBox(QtWidgets.QMessageBox.Icon.Question, "USEMA Segmentation", questions[0])
        question.setStandardButtons(question.StandardButton.Ok | question.StandardButton.Cancel)
        question.show()
        question.grab().save(str(folder / "question.png"))
        question.close()
        shop.speed = None
        waitUntil(lambda: not panel.logic.store.busy)
        panel.cleanup()

        panel = slicer_host.load()
        panel.ui.segmentCollapsibleButton.collapsed = panel.ui.correctCollapsibleButton.collapsed = True
        panel.manageSection.ui.manageCollapsibleButton.collapsed = False
        panel.manageSection.ui.modelsTable.setCurrentCell(1, 0)
        sketchHeaders(panel)
        photograph(panel, folder / "panel-models.png")
        panel.cleanup()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
