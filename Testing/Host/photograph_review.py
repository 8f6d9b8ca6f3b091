"""Pictures of correcting with the model's help, in the stand-in, with a real model, its worker and a real scene.

    QT_QPA_PLATFORM=offscreen python Testing/Host/photograph_review.py FOLDER MODEL VOLUME REFERENCE [LABEL]

Writes review-threshold.png, review-regions.png, review-refine.png and review-learn.png, each a slice with the panel
beside it; and review.gif, all of them as they go on. Those of the README show sarcoma-mr on STS_024. What the user
draws is taken from the reference. The contours are drawn here; in the application they are the slice views' own.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pythonqt
from photograph_panel import openPanel, photograph, sketchHeaders, waitUntil
from PySide6 import QtCore, QtGui, QtWidgets
from slice_pictures import Contour, beside, saveAnimated, slicePicture

YELLOW, WHITE = (255, 225, 40), (255, 255, 255)
NUMBER = 64  # width of the slider's number


def paintSlider(box, event) -> None:
    """What ctkSliderWidget is: a slider with marks, and its number."""
    box.lineEdit().hide()
    painter, option = QtGui.QPainter(box), QtWidgets.QStyleOptionSlider()
    option.initFrom(box)
    option.rect = box.rect().adjusted(0, 0, -NUMBER - 6, 0)
    option.minimum, option.maximum = 0, 800
    option.sliderPosition = option.sliderValue = round(100 * (box.value() - box.minimum()))
    option.orientation, option.tickInterval = QtCore.Qt.Orientation.Horizontal, 400
    option.tickPosition = QtWidgets.QSlider.TickPosition.TicksBelow
    parts = QtWidgets.QStyle.SubControl
    option.subControls = parts.SC_SliderGroove | parts.SC_SliderHandle | parts.SC_SliderTickmarks
    box.style().drawComplexControl(QtWidgets.QStyle.ComplexControl.CC_Slider, option, painter, box)
    frame = QtCore.QRect(box.width() - NUMBER, 0, NUMBER - 1, box.height() - 1)
    painter.fillRect(frame, box.palette().base())
    painter.setPen(box.palette().color(QtGui.QPalette.ColorRole.Mid))
    painter.drawRect(frame)
    painter.setPen(box.palette().color(QtGui.QPalette.ColorRole.Text))
    flags = QtCore.Qt.AlignmentFlag.AlignVCenter | QtCore.Qt.AlignmentFlag.AlignRight
    painter.drawText(frame.adjusted(0, 0, -6, 0), flags, f"{box.value():.2f}")


class Story:
    """The panel on a volume that was segmented, and a user who knows the reference.

    Args:
        label: the name of the segment that is corrected; empty: the first.
    """

    def __init__(self, model: Path, volume: Path, reference: Path, label: str):
        self.host, self.panel = openPanel()
        pythonqt.NATIVE["ctkSliderWidget"].paintEvent = paintSlider
        import slicer
        from usema.store import install
        from usema.volumes.volume import read_volume

        self.slicer = slicer
        name = install.install_file(model, consent=install.question_of_file(model)).metadata.name
        self.panel.showModels()
        self.volume = self.host.loadVolume(volume)
        self.image = slicer.util.arrayFromVolume(self.volume)
        view = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceNode", "Red")
        view.SetMappedInLayout(1)
        view.SetOrientation("Axial")
        self.window = np.percentile(self.image, (1, 99.5))
        self.spacing = self.volume.GetSpacing()[::-1]
        selector = self.panel.ui.modelSelector
        selector.setCurrentIndex(selector.findData(name))
        self.panel.ui.segmentButton.click()
        waitUntil(lambda: not self.panel.logic.busy)
        self.panel.onTimer()
        self.node = self.panel.ui.outputSelector.currentNode()
        self.panel.ui.segmentCollapsibleButton.collapsed = True
        self.panel.ui.correctCollapsibleButton.collapsed = True
        self.ui = self.panel.reviewSection.ui
        self.ui.reviewCollapsibleButton.collapsed = False
        (case,) = self.panel.reviewSection.cases
        self.value = next((value for value, one in case.names.items() if one == label), min(case.names))
        self.segment, self.color = case.segmentId(self.value), tuple(255 * part for part in case.color(self.value))
        self.reference = read_volume(reference).array == self.value
        self.ui.thresholdSelector.setCurrentIndex(sorted(case.names).index(self.value))
        sketchHeaders(self.panel)
        self.frames: list = []

    @property
    def now(self) -> np.ndarray:
        """Where the segment is."""
        return self._mask(self.node, self.segment)

    @property
    def outline(self) -> np.ndarray:
        """What the panel's outline, or its frame around a region, shows."""
        return self._mask(self.slicer.util.getNode("USEMA preview"), "preview")

    def _mask(self, node, segment: str) -> np.ndarray:
        return self.slicer.util.arrayFromSegmentBinaryLabelmap(node, segment, self.volume) > 0

    def draw(self, place: np.ndarray) -> None:
        """The user makes it as the reference has it there."""
        self.panel.ui.segmentEditor.saveStateForUndo()
        drawn = np.where(place, self.reference, self.now).astype(np.uint8)
        self.slicer.util.updateSegmentBinaryLabelmapFromArray(drawn, self.node, self.segment, self.volume)
        self.slicer.app.processEvents()
        self.panel.updateCorrections()

    def picture(self, group, index: int, contours, caption: str, milliseconds: int = 0) -> QtGui.QImage:
        """A slice with contours (mask, colour, width, fill), and a group of the panel; of the animation, too."""
        photograph(self.panel, Path("/dev/null"))  # lays the panel out
        lines = [Contour(mask[index], *rest) for mask, *rest in contours]
        slice_ = slicePicture(self.image[index], self.spacing[1:], lines, self.window)
        found = beside(slice_, group.qtObject, caption)
        if milliseconds:
            self.frames.append((found, milliseconds))
        return found

    def dice(self) -> float:
        now = self.now
        return 2 * (now & self.reference).sum() / (now.sum() + self.reference.sum())


def threshold(story: Story) -> QtGui.QImage:
    ui, index = story.ui, int(np.argwhere(story.now).mean(axis=0)[0])
    story.picture(ui.thresholdGroup, index, [(story.now, story.color, 2, 0.25)], "The model's result.", 1500)
    caption = "Threshold: while the slider moves, an outline shows what Apply would make of the segment."
    for position in (0.5, 1.0, 1.5, 2.0, 1.5):
        ui.thresholdSlider.value = position
        contours = [(story.now, story.color, 2, 0.25), (story.outline, YELLOW, 2)]
        found = story.picture(ui.thresholdGroup, index, contours, caption, 450)
    story.frames.append((found, 1200))
    ui.thresholdCancelButton.click()
    return found


def regions(story: Story) -> QtGui.QImage:
    ui, controls = story.ui, story.panel.reviewSection.regions
    ui.findRegionsButton.click()
    waitUntil(lambda: ui.findRegionsButton.enabled)  # in a large volume it is looked for beside
    caption = "Doubtful regions: N takes all views to the next one, A accepts it; correct it, and it counts as done."
    for number in range(3):
        middle = controls.review.current.region.middle[0]
        contours = [(story.now, story.color, 2, 0.25), (story.outline, WHITE, 2)]
        found = story.picture(ui.regionsGroup, middle, contours, caption, 1300)
        if number < 2:
            ui.acceptRegionButton.click()
    controls.hide()
    return found


def refining(story: Story) -> QtGui.QImage:
    """A stroke in the middle of what the model misses most."""
    from scipy import ndimage

    ui, before = story.ui, story.now
    missed = story.reference & ~before
    inner = ndimage.distance_transform_edt(missed, (1e3, *story.spacing[1:]))
    place = np.array(np.unravel_index(int(inner.argmax()), inner.shape))
    stroke = np.zeros(missed.shape, bool)
    stroke[place[0], place[1] - 1 : place[1] + 2, place[2] - 3 : place[2] + 4] = True
    stroke &= missed
    contours = [(before, story.color, 2, 0.25), (stroke, WHITE, 1, 0.9)]
    caption = "Refine here: a short stroke (white), where the result lacks something ..."
    story.draw(stroke)
    story.picture(ui.refineGroup, place[0], contours, caption, 1800)
    ui.refineButton.click()
    contours = [(story.now, YELLOW, 2, 0.25), (before, story.color, 2), (stroke, WHITE, 1, 0.9)]
    caption = (
        "Refine here: the result (red) follows a stroke (white) as far as the image does: yellow is what it becomes."
    )
    return story.picture(ui.refineGroup, place[0], contours, caption, 2800)


def learning(story: Story) -> QtGui.QImage:
    """Two slices corrected; the picture shows the one where that helps most."""
    ui, task = story.ui, story.panel.logic.learning
    planes = np.flatnonzero(story.reference.any(axis=(1, 2)))
    corrected = [int(planes[round(part * (len(planes) - 1))]) for part in (0.33, 0.67)]
    before_all, dice = story.now, story.dice()
    for index in corrected:
        place = np.zeros(before_all.shape, bool)
        place[index] = True
        story.draw(place)
        contours = [(before_all, story.color, 1), (story.now, WHITE, 2, 0.2)]
        caption = "Learn: a slice is corrected (white), and counts as right."
        story.picture(ui.learnGroup, index, contours, caption, 1500)
    before = story.now
    ui.learnButton.click()
    while task.busy:
        waitUntil(lambda: not task.busy or task.status.phase in ("propagating", "segmenting"))
        if task.busy:
            story.panel.reviewSection.learn.update()
            caption = "Learn: what was corrected is propagated to the other slices."
            story.picture(ui.learnGroup, corrected[-1], [(before, story.color, 2, 0.25)], caption, 700)
            waitUntil(lambda phase=task.status.phase: task.status.phase != phase or not task.busy)
    waitUntil(lambda: not task.busy)
    story.slicer.app.processEvents()
    after = story.now
    gain = ((after == story.reference) & (before != story.reference)).sum(axis=(1, 2)).astype(int)
    gain -= ((after != story.reference) & (before == story.reference)).sum(axis=(1, 2))
    for index in corrected:
        gain[index - 2 : index + 3] = -1
    shown, (first, second) = int(gain.argmax()), corrected
    caption = f"Slice {shown}, which nobody touched: before (red) and after (yellow) correcting {first} and {second}."
    message = task.status.message
    print(f"Dice {dice:.3f} as it was, {story.dice():.3f} with two slices corrected and learned from; {message}")
    contours = [(after, YELLOW, 2, 0.25), (before, story.color, 2)]
    return story.picture(ui.learnGroup, shown, contours, caption, 4000)


def main(folder: Path, model: Path, volume: Path, reference: Path, label: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    story = Story(model, volume, reference, label)
    stills = []
    for name, step in (("threshold", threshold), ("regions", regions), ("refine", refining), ("learn", learning)):
        stills.append(step(story))
        stills[-1].save(str(folder / f"review-{name}.png"))
    saveAnimated(story.frames, folder / "review.gif", stills)
    story.panel.cleanup()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:5]), *sys.argv[5:6])
