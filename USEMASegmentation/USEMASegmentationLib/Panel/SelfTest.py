"""The whole way through the panel inside 3D Slicer, as a user goes it: a picture of each step and a short report.

Not loaded with the panel. Works with and without the main window; what a window is needed for is then left out, and
the report says so.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import slicer
from usema.resources import resources_folder, sample_volume

from . import Processes, RunTexts

REPORT = "report.txt"
_LEAST_DICE = 0.7
_PATIENCE = 300  # seconds for a single wait


class LeftOut(Exception):
    """A step that cannot be gone here, and why."""


class SelfTest:
    """Goes the way.

    Attributes:
        PASSED, FAILED, NOTHING_SEGMENTED: what ``run`` gives, and the application's exit code.

    Args:
        openPanel: opens the panel and gives it.
        loadSample: gives the sample as a volume node.
        folder: for pictures and report; made if it is not there.
    """

    PASSED, FAILED, NOTHING_SEGMENTED = 0, 1, 2

    def __init__(self, openPanel: Callable, loadSample: Callable, folder: Path):
        self.openPanel = openPanel
        self.loadSample = loadSample
        self.folder = folder
        self.panel = self.volume = self.saved = None
        self.before = self.painted = None  # voxels of the first segment
        self.lines: list[str] = []
        self.failed: list[str] = []
        self.segmented = False

    def run(self) -> int:
        """PASSED if every step that could be gone went well, NOTHING_SEGMENTED if what segmenting needs is not here,
        else FAILED; the report tells more."""
        self.folder.mkdir(parents=True, exist_ok=True)
        steps = (
            self.opens, self.takesTheSample, self.segments, self.showsTheResult, self.paints, self.undoes,
            self.segmentsAnew, self.replaces, self.addsBeside, self.saves, self.closes, self.loads, self.cancels,
            self.survivesItsWorker, self.reloads, self.shutsDown,
        )  # fmt: skip
        application = f"{slicer.app.applicationName} {slicer.app.applicationVersion}, {sys.platform}"
        self.lines = [f"USEMA Segmentation in {application}, Python {sys.version.split()[0]}"]
        for number, step in enumerate(steps, 1):
            self._go(number, step)
            self._write()  # also what comes after may end the application
        failed, leftOut = ", ".join(self.failed) or "none", sum(" LEFT OUT " in line for line in self.lines)
        self.lines.append(f"{len(steps)} steps, {leftOut} left out, {len(self.failed)} failed: {failed}")
        code = self.FAILED if self.failed else self.PASSED if self.segmented else self.NOTHING_SEGMENTED
        if code != self.PASSED:
            self._tellMore()
        if code == self.NOTHING_SEGMENTED:
            self.lines.append("NOTHING WAS SEGMENTED: this says little about the panel. Install what is missing.")
        self._write()
        return code

    # Steps, in this order

    def opens(self) -> str:
        """The panel opens and says what it needs."""
        slicer.mrmlScene.Clear(False)
        self.panel = self.openPanel()
        _check(self.panel.ui is not None, "the panel shows why it is empty")
        _check(not self.panel.ui.segmentButton.enabled, "Segment can be clicked without a volume")
        _check(self.panel.ui.reasonLabel.text, "nothing says why Segment cannot be clicked")
        return self.panel.ui.reasonLabel.text

    def takesTheSample(self) -> str:
        """The sample is loaded and chosen."""
        self.volume = self.loadSample()
        _check(self.volume is not None, "Sample Data gives no volume")
        self.panel.ui.inputSelector.setCurrentNode(self.volume)
        if self.panel.installer.missing():
            raise LeftOut(f"{self.panel.installer.words()} All that segments is left out.")
        _check(self.panel.ui.segmentButton.enabled, self.panel.ui.reasonLabel.text)
        return self.volume.GetName()

    def segments(self) -> str:
        """Segment gives both parts of the hippocampus, close to the reference."""
        node = self._segment()
        expected = self._reference()
        dices = []
        for value, segmentId in enumerate(self._ids(node), 1):
            found, wanted = self._voxels(node, segmentId), expected == value
            dices.append(2 * np.count_nonzero(found & wanted) / (np.count_nonzero(found) + np.count_nonzero(wanted)))
        _check(len(dices) == 2 and min(dices) > _LEAST_DICE, f"Dice {dices}")
        self.segmented = True
        return f"{self.panel.ui.messageLabel.text} Dice {', '.join(f'{dice:.2f}' for dice in dices)}"

    def showsTheResult(self) -> str:
        """The result is chosen, open in the editor, and in the slice views."""
        node, ui = self._result(), self.panel.ui
        _check(ui.segmentEditor.segmentationNode() is node, "the editor does not show it")
        _check(ui.segmentEditor.sourceVolumeNode() is self.volume, "the editor has another source volume")
        views = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
        shown = [view.GetBackgroundVolumeID() == self.volume.GetID() for view in views]
        _check(all(shown), "a slice view shows another volume")
        ui.show3DButton.toggle()  # a click by a script opens its menu, and waits until somebody closes that
        self._settle()
        _check(node.GetSegmentation().ContainsRepresentation("Closed surface"), "Show 3D made no surface")
        return f"{len(views)} slice views"

    def paints(self) -> str:
        """A correction by mouse, or where there are no views, by array."""
        node, editor = self._result(), self.panel.ui.segmentEditor
        segmentId = self._ids(node)[0]
        self.before = self._voxels(node, segmentId)
        view = _sliceWidget()
        if view is None:
            editor.saveStateForUndo()
            corrected = self.before.copy()
            corrected[:3] = True
            slicer.util.updateSegmentBinaryLabelmapFromArray(corrected.astype(np.uint8), node, segmentId, self.volume)
        else:
            editor.setCurrentSegmentID(segmentId)
            editor.setActiveEffectByName("Paint")
            width, height = view.sliceView().renderWindow().GetSize()
            slicer.util.clickAndDrag(view, start=(width // 2 - 40, height // 2 - 40), end=(width // 2, height // 2))
            editor.setActiveEffect(None)
        self._settle()
        self.painted = self._voxels(node, segmentId)
        changed = int((self.painted != self.before).sum())
        _check(changed > 0, "nothing was painted")
        return f"{changed} voxels, {'by array' if view is None else 'by mouse'}"

    def undoes(self) -> str:
        """Undo and redo give the voxels back exactly."""
        node, editor = self._paintedResult(), self.panel.ui.segmentEditor
        for action, expected in ((editor.undo, self.before), (editor.redo, self.painted)):
            action()
            self._settle()
            found = self._voxels(node, self._ids(node)[0])
            _check((found == expected).all(), f"{int((found != expected).sum())} voxels differ")
        return "undone and redone"

    def segmentsAnew(self) -> str:
        """The next result makes a new segmentation; the corrected one is as it was."""
        node, count = self._paintedResult(), len(_segmentations())
        again = self._segment("new")
        _check(len(_segmentations()) == count + 1 and again is not node, "no new segmentation was made")
        _check((self._voxels(node, self._ids(node)[0]) == self.painted).all(), "the corrected one was changed")
        self.panel.ui.outputSelector.setCurrentNode(node)
        return again.GetName()

    def replaces(self) -> str:
        """The next result replaces this model's segments, and undo brings the corrected ones back."""
        node, count = self._paintedResult(), len(_segmentations())
        _check(self._segment("replace") is node and len(_segmentations()) == count, "it was written elsewhere")
        _check(len(self._ids(node)) == 2, f"there are {len(self._ids(node))} segments")
        message = self.panel.ui.messageLabel.text
        self.panel.ui.segmentEditor.undo()
        self._settle()
        _check((self._voxels(node, self._ids(node)[0]) == self.painted).all(), "undo does not bring it back")
        return message

    def addsBeside(self) -> str:
        """The next result is added beside what is there."""
        node = self._result()
        before = self._ids(node)
        _check(self._segment("keep") is node, "it was written elsewhere")
        _check(self._ids(node)[: len(before)] == before, "what was there is not there any more")
        _check(len(self._ids(node)) == len(before) + 2, f"there are {len(self._ids(node))} segments")
        return f"{len(self._ids(node))} segments"

    def saves(self) -> str:
        """The scene is saved as one file."""
        self._result()
        path = self.folder / "scene.mrb"
        path.unlink(missing_ok=True)  # of an earlier run
        _check(slicer.util.saveScene(str(path)) and path.is_file(), "it was not saved")
        self.saved = path
        return f"{path.stat().st_size // 1024} KB"

    def closes(self) -> str:
        """With the scene closed, the panel is empty and says what to do."""
        slicer.mrmlScene.Clear(False)
        self._settle()
        _check(self.panel.ui.inputSelector.currentNode() is None, "a volume of the closed scene is shown")
        _check(not self.panel.ui.segmentButton.enabled, "Segment can be clicked")
        return self.panel.ui.reasonLabel.text

    def loads(self) -> str:
        """The saved scene comes back with its result, open in the editor."""
        self._needsResults()
        if self.saved is None:
            raise LeftOut("no scene was saved.")
        slicer.util.loadScene(str(self.saved))
        self._settle()
        node = self._result()
        _check(self.panel.ui.segmentEditor.segmentationNode() is node, "the editor does not show it")
        _check(len(self._ids(node)) == 4, f"there are {len(self._ids(node))} segments")
        self.volume = self.panel.ui.inputSelector.currentNode()
        _check(self.volume is not None, "the volume is not chosen")
        same = self.painted is None or (self._voxels(node, self._ids(node)[0]) == self.painted).all()
        _check(same, "it has other voxels than when saved")
        return node.GetName()

    def cancels(self) -> str:
        """Cancel stops a long run; nothing is written."""
        count = self._startLong()
        began = time.monotonic()
        self.panel.ui.segmentButton.click()
        self._wait(lambda: not self.panel.logic.busy)
        _check(len(_segmentations()) == count, "something was written")
        _check(self.panel.logic.status.state == "cancelled", self.panel.logic.status.message)
        return f"{self.panel.ui.messageLabel.text} ({time.monotonic() - began:.2f} s)"

    def survivesItsWorker(self) -> str:
        """A worker that is killed is told, and the next click works."""
        count = self._startLong()
        killed = Processes.killWorkers()
        if not killed:
            self.panel.ui.segmentButton.click()
            self._wait(lambda: not self.panel.logic.busy)
            raise LeftOut("the worker's process cannot be found on this system.")
        self._wait(lambda: not self.panel.logic.busy)
        message = self.panel.ui.messageLabel.text
        _check(self.panel.logic.status.state == "failed" and message, "nothing is said of it")
        _check(len(_segmentations()) == count, "something was written")
        self.panel.ui.inputSelector.setCurrentNode(self.volume)
        self._segment("new")
        return message

    def reloads(self) -> str:
        """The module is loaded again."""
        if slicer.util.mainWindow() is None:
            raise LeftOut("there is no main window.")
        self.panel.onReload()
        self.panel = self.openPanel()
        self._settle()
        _check(self.panel.ui is not None, "the panel shows why it is empty")
        _check(self.panel.ui.segmentButton.enabled or self.panel.installer.missing(), "Segment cannot be clicked")
        return self.panel.ui.reasonLabel.text

    def shutsDown(self) -> str:
        """What the application does when it quits in the middle of a run: no process is left."""
        self._startLong()
        self.panel.logic.shutdown()
        if not Processes.areTold():
            raise LeftOut("this system does not tell which processes are left.")
        left = Processes.workers()
        _check(not left, f"processes are left: {left}")
        return "no process is left"

    def beginsToQuit(self) -> None:
        """A run that goes on while the application quits; afterwards, no process may be left."""
        try:
            self._startLong()
            self.lines.append("The application quits in the middle of a run.")
        except Exception as error:
            self.lines.append(f"The application quits without a run: {error}")
        self._write()

    # What they are made of

    def _go(self, number: int, step: Callable[[], str]) -> None:
        began = time.monotonic()
        try:
            if self.panel is None and step != self.opens:
                raise LeftOut("the panel did not open.")
            said, outcome = RunTexts.plain(step()), "passed"
        except LeftOut as why:
            said, outcome = str(why), "LEFT OUT"
        except Exception as error:
            said, outcome = f"{type(error).__name__}: {error}\n{traceback.format_exc()}", "FAILED"
            self.failed.append(step.__name__)
        picture = self._photograph(f"{number:02d}-{step.__name__}.png")
        seconds = time.monotonic() - began
        self.lines.append(f"{number:2d} {outcome:8} {seconds:5.1f} s  {step.__doc__} {said} [{picture}]")

    def _write(self) -> None:
        (self.folder / REPORT).write_text("\n".join(self.lines) + "\n", "utf-8")

    def _tellMore(self) -> None:
        """What whoever mends it needs to know."""
        try:
            self.lines += ["", self.panel.logic.diagnostics()]
        except Exception as error:  # the report must not end with it
            self.lines.append(f"No diagnostics: {type(error).__name__}: {error}")

    def _photograph(self, name: str) -> str:
        try:
            self._settle()
            widget = slicer.util.mainWindow()
            if widget is None:
                widget = self.panel.parent
            return name if widget.grab().save(str(self.folder / name)) else "no picture"
        except Exception as error:
            return f"no picture: {error}"

    def _needsResults(self) -> None:
        if self.panel.installer.missing():
            raise LeftOut("there is no result.")
        if self.volume is None:
            raise LeftOut("there is no volume.")

    def _result(self):
        self._needsResults()
        node = self.panel.ui.outputSelector.currentNode()
        _check(node is not None, f"there is no result: {self.panel.ui.messageLabel.text}")
        return node

    def _paintedResult(self):
        node = self._result()
        if self.painted is None:
            raise LeftOut("nothing was painted.")
        return node

    def _segment(self, existing: str = "new"):
        self._needsResults()
        ui = self.panel.ui
        ui.existingSelector.setCurrentIndex(ui.existingSelector.findData(existing))
        ui.segmentButton.click()
        self._wait(lambda: not self.panel.logic.busy)
        status = self.panel.logic.status
        _check(status.state == "done", f"{status.state}: {status.message} {status.hint} {status.detail}")
        return self._result()

    def _startLong(self) -> int:
        """Begins a run of many tiles, on the sample put together 27 times; the number of segmentations before."""
        self._needsResults()
        array = np.tile(slicer.util.arrayFromVolume(self.volume), (3, 3, 3))
        large = slicer.util.addVolumeFromArray(array, name="long run")
        self.panel.ui.inputSelector.setCurrentNode(large)
        count = len(_segmentations())
        self.panel.ui.segmentButton.click()
        self._wait(lambda: self.panel.logic.status.done > 1 or not self.panel.logic.busy)
        ui = self.panel.ui
        _check(self.panel.logic.busy, f"it does not run: {ui.reasonLabel.text} {ui.messageLabel.text}")
        return count

    def _wait(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + _PATIENCE
        while not condition():
            _check(time.monotonic() < end, f"nothing came of it in {_PATIENCE} s")
            slicer.app.processEvents()
            time.sleep(0.01)
        self._settle()

    @staticmethod
    def _settle() -> None:
        for _ in range(5):
            slicer.app.processEvents()

    @staticmethod
    def _ids(node) -> list[str]:
        return list(node.GetSegmentation().GetSegmentIDs())

    def _voxels(self, node, segmentId: str) -> np.ndarray:
        return slicer.util.arrayFromSegmentBinaryLabelmap(node, segmentId, self.volume) > 0

    @staticmethod
    def _reference() -> np.ndarray:
        # not shown: the slice views have to stay on the volume
        path = resources_folder() / "Samples" / "reference" / sample_volume().name
        node = slicer.util.loadVolume(str(path), {"show": False})
        array = slicer.util.arrayFromVolume(node).copy()
        slicer.mrmlScene.RemoveNode(node)
        return array


def _check(right: object, message: str) -> None:
    # no assert: python -O would drop it
    if not right:
        raise AssertionError(message)


def _sliceWidget():
    manager = slicer.app.layoutManager()
    return None if manager is None else manager.sliceWidget("Red")


def _segmentations() -> list:
    return slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
