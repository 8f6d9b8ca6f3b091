"""Pictures of correcting with the model's help, in the stand-in, with the bundled model and a real scene.

    QT_QPA_PLATFORM=offscreen python Testing/Host/photograph_review.py FOLDER

Writes panel-review.png, the section as it looks with the first region shown, and review.png: a slice with the outline
of a threshold, with a doubtful region, and with a stroke and what followed it. The contours are drawn here; in the
application they are the slice views' own.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from photograph_panel import openPanel, photograph, sketchHeaders, waitUntil
from PySide6 import QtCore, QtGui

ZOOM, TEXT = 11, 60
ANTERIOR, POSTERIOR, YELLOW, WHITE = "#44bb66", "#5599ee", "#ffe619", "#ffffff"


def pictureOf(image: np.ndarray, contours, caption: str) -> QtGui.QImage:
    """A slice (rows, columns) with contours (mask, colour, width) and a caption."""
    low, high = np.percentile(image, (1, 99))
    gray = (255 * np.clip((image - low) / (high - low), 0, 1)).astype(np.uint8)
    gray = np.ascontiguousarray(gray.repeat(ZOOM, axis=0).repeat(ZOOM, axis=1))
    height, width = gray.shape
    picture = QtGui.QImage(width, height + TEXT, QtGui.QImage.Format.Format_RGB32)
    picture.fill(QtGui.QColor("#202020"))
    painter = QtGui.QPainter(picture)
    painter.drawImage(0, 0, QtGui.QImage(gray.data, width, height, width, QtGui.QImage.Format.Format_Grayscale8))
    for mask, color, thick in contours:
        painter.setPen(QtGui.QPen(QtGui.QColor(color), thick))
        padded = np.pad(mask, 1)
        for row, column in np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1]):
            painter.drawLine(column * ZOOM, row * ZOOM, (column + 1) * ZOOM, row * ZOOM)
        for row, column in np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1]):
            painter.drawLine(column * ZOOM, row * ZOOM, column * ZOOM, (row + 1) * ZOOM)
    painter.setPen(QtGui.QColor(WHITE))
    painter.setFont(QtGui.QFont("Sans", 12))
    flags = QtCore.Qt.TextFlag.TextWordWrap | QtCore.Qt.AlignmentFlag.AlignCenter
    painter.drawText(QtCore.QRect(4, height, width - 8, TEXT), flags, caption)
    painter.end()
    return picture


def beside(pictures) -> QtGui.QImage:
    width, height = sum(one.width() for one in pictures) + 8 * (len(pictures) - 1), pictures[0].height()
    whole = QtGui.QImage(width, height, QtGui.QImage.Format.Format_RGB32)
    whole.fill(QtGui.QColor(WHITE))
    painter, left = QtGui.QPainter(whole), 0
    for one in pictures:
        painter.drawImage(left, 0, one)
        left += one.width() + 8
    painter.end()
    return whole


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    host, panel = openPanel()
    import slicer
    from scipy import ndimage
    from usema.resources import sample_volume

    volume = host.loadVolume(sample_volume())
    ui = panel.reviewSection.ui
    panel.ui.segmentButton.click()
    waitUntil(lambda: not panel.logic.busy)
    panel.onTimer()
    node = panel.ui.outputSelector.currentNode()
    panel.ui.segmentCollapsibleButton.collapsed = panel.ui.correctCollapsibleButton.collapsed = True
    ui.reviewCollapsibleButton.collapsed = False
    image = slicer.util.arrayFromVolume(volume)

    def mask(name, of=node) -> np.ndarray:
        return slicer.util.arrayFromSegmentBinaryLabelmap(of, name, volume) > 0

    def segments(index):
        return [(mask("hippocampus-mr_1")[index], ANTERIOR, 2), (mask("hippocampus-mr_2")[index], POSTERIOR, 2)]

    def preview() -> np.ndarray:
        return mask("preview", slicer.util.getNode("USEMA preview"))

    middle = int(np.argwhere(mask("hippocampus-mr_1")).mean(axis=0)[0])
    ui.thresholdSlider.value = 1.5
    outline = [*segments(middle), (preview()[middle], YELLOW, 3)]
    first = pictureOf(
        image[middle], outline, "Threshold: the yellow outline is what Apply would make of the green segment"
    )
    ui.thresholdCancelButton.click()

    ui.findRegionsButton.click()
    item = panel.reviewSection.regions.review.current
    plane = item.region.middle[0]
    contours = [*segments(plane), (preview()[plane], WHITE, 3)]
    second = pictureOf(image[plane], contours, f"The first region: {item.region.ml:.2f} ml expected")
    sketchHeaders(panel)
    photograph(panel, folder / "panel-review.png")

    inside = mask("hippocampus-mr_1")
    away = ndimage.distance_transform_cdt(~inside, "taxicab")
    away[mask("hippocampus-mr_2")] = 0
    away[:, :4], away[:, -4:] = 0, 0
    margin = item.port.margins.of[1].on(tuple(slice(0, length) for length in inside.shape)).astype(int)
    place = np.unravel_index(np.where(away == 3, margin, -1000).argmax(), inside.shape)
    stroke = np.zeros(inside.shape, bool)
    stroke[place[0], place[1] - 1 : place[1] + 2, place[2] - 1 : place[2] + 2] = True
    drawn = (inside | stroke).astype(np.uint8)
    panel.ui.segmentEditor.saveStateForUndo()
    slicer.util.updateSegmentBinaryLabelmapFromArray(drawn, node, "hippocampus-mr_1", volume)
    waitUntil(lambda: ui.refineButton.enabled)
    before = segments(place[0])
    ui.refineButton.click()
    after = mask("hippocampus-mr_1")
    contours = [before[1], (inside[place[0]], ANTERIOR, 2), (after[place[0]], YELLOW, 3), (stroke[place[0]], WHITE, 3)]
    third = pictureOf(
        image[place[0]], contours, "Refine: a stroke in white, and in yellow how far the segment followed"
    )
    beside([first, second, third]).save(str(folder / "review.png"))
    panel.cleanup()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
