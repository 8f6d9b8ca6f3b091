"""Pictures of the panel in the stand-in, with the bundled model, its worker and a real scene.

    QT_QPA_PLATFORM=offscreen python Testing/Host/photograph_panel.py FOLDER

Writes panel.png (a result, ready to be corrected) and one picture for each other state. The headers and the Segment
Editor are sketches: in the application they are Slicer's own.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import slicer_host
from PySide6 import QtCore, QtGui, QtWidgets

EFFECTS = ("Threshold", "Paint", "Draw", "Erase", "Level tracing", "Grow from seeds", "Fill between slices", "Margin",
           "Hollow", "Smoothing", "Scissors", "Islands")  # fmt: skip
WIDTH, HEADER, SCALE = 440, 24, 2


def sketchHeaders(panel) -> None:
    """Headers for collapsible sections, and closes those that are collapsed."""

    def paint(section, event):
        painter, option = QtGui.QPainter(section), QtWidgets.QStyleOptionButton()
        option.rect = QtCore.QRect(0, 0, section.width(), HEADER)
        option.state |= QtWidgets.QStyle.StateFlag.State_Enabled
        section.style().drawControl(QtWidgets.QStyle.ControlElement.CE_PushButtonBevel, option, painter, section)
        text = f"{'▸' if section.collapsed else '▾'}  {section.text}"
        painter.drawText(option.rect.adjusted(8, 0, 0, 0), QtCore.Qt.AlignmentFlag.AlignVCenter, text)

    for name in ("segmentCollapsibleButton", "correctCollapsibleButton", "advancedCollapsibleButton"):
        section = getattr(panel.ui, name).qtObject
        type(section).paintEvent = paint
        section.setContentsMargins(6, HEADER + 2, 6, 2)
        if section.collapsed:
            section.setMaximumHeight(HEADER)
            for child in section.findChildren(QtWidgets.QWidget):
                child.hide()


def sketchEditor(panel) -> None:
    editor = panel.ui.segmentEditor.qtObject
    layout, effects = QtWidgets.QVBoxLayout(editor), QtWidgets.QGridLayout()
    segmentation = panel.ui.outputSelector.currentNode().GetSegmentation()
    table = QtWidgets.QTableWidget(segmentation.GetNumberOfSegments(), 2)
    table.setHorizontalHeaderLabels(["Color", "Name"])
    table.horizontalHeader().setStretchLastSection(True)
    table.setColumnWidth(0, 60)
    table.verticalHeader().hide()
    table.setFixedHeight(96)
    for row in range(segmentation.GetNumberOfSegments()):
        segment, color = segmentation.GetNthSegment(row), QtWidgets.QTableWidgetItem()
        color.setBackground(QtGui.QColor.fromRgbF(*segment.GetColor()))
        table.setItem(row, 0, color)
        table.setItem(row, 1, QtWidgets.QTableWidgetItem(segment.GetName()))
    layout.setContentsMargins(0, 0, 0, 0)
    layout.addWidget(table)
    layout.addLayout(effects)
    for index, name in enumerate(EFFECTS):
        effects.addWidget(QtWidgets.QPushButton(name), index // 3, index % 3)


def photograph(panel, path: Path) -> None:
    """The whole panel, as tall as its contents."""
    frame = panel.parent.qtObject
    frame.show()
    for _ in range(3):  # labels that wrap find their height once they know their width
        frame.resize(WIDTH, max(frame.heightForWidth(WIDTH), frame.minimumSizeHint().height()))
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


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    host = slicer_host.start()
    QtWidgets.QApplication.setStyle("Fusion")
    panel = slicer_host.load()
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


if __name__ == "__main__":
    main(Path(sys.argv[1]))
