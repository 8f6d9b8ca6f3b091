"""Learn from my corrections: slices to tick, the button, what it takes and how it ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import qt
import slicer
from slicer.i18n import tr as _
from usema.errors import InputError

from ..LearnTask import AUTO, LEARNED, LearnTask, expectedSeconds, whyNot
from ..Parameters import Parameters
from ..Review.Learn import lessons
from ..Review.Slices import Slice, accept, slicesOf, tick
from ..Scene import KeptDelta, KeptMargins
from ..Scene.ReviewCase import ReviewCase
from . import LearnTexts, RunTexts, SliceViews
from .AskedWork import AskedWork, Surroundings
from .SecondClick import SecondClick
from .Signals import connect

ROWS = 4  # more are scrolled


class LearnControls:
    """Offers slices, and lets the model learn from those that are ticked.

    Args:
        ui: the widgets of the section.
        guarded: gives a context for a click: all is up to date, and errors are shown.
        surroundings: the section that they belong to.
        changed: called when voxels were changed, or a task began or ended.
        task: does it.
        parameters: gives what a click on Segment would start: device, tiles, and volumes of further channels.
    """

    def __init__(
        self,
        ui,
        guarded: Callable[[], AbstractContextManager],
        surroundings: Surroundings,
        changed: Callable[[], None],
        task: LearnTask,
        parameters: Callable[[], Parameters],
    ):
        self.ui = ui
        self.guarded = guarded
        self.clicked = AskedWork(surroundings, lambda: None)
        self.changed = changed
        self.task = task
        self.parameters = parameters
        self.second = SecondClick()
        self.timer = surroundings.newTimer(self.onTimer)
        self._cases: list[ReviewCase] = []
        self._slices: list[Slice] = []
        self._views: list = []
        self._said, self._saidOf = "", None
        self._node = None  # whose corrections were learned last
        self._isFilling = False
        connect(ui.learnSelector, "currentIndexChanged(int)", self.onCaseChosen)
        connect(ui.slicesList, "itemChanged(QListWidgetItem*)", self.onTicked)
        connect(ui.slicesList, "currentRowChanged(int)", self.onRow)
        connect(ui.acceptSliceButton, "clicked(bool)", self.onAccept)
        connect(ui.learnButton, "clicked(bool)", self.onLearnOrCancel)
        connect(ui.useLearnedCheckBox, "clicked(bool)", self.onUse)
        connect(ui.forgetButton, "clicked(bool)", self.onForget)

    def show(self, cases: Sequence[ReviewCase]) -> None:
        """What can be learned from these results."""
        selector, before = self.ui.learnSelector, self.ui.learnSelector.currentIndex
        self._cases = list(cases)
        self._isFilling = True
        selector.clear()
        selector.addItems([", ".join(case.names.values()) for case in cases])
        selector.setCurrentIndex(min(max(before, 0), len(self._cases) - 1))
        self._isFilling = False
        self.ui.learnSelector.visible = len(self._cases) > 1
        self.update()

    def update(self) -> None:
        """Voxels were changed, or a task has begun or ended."""
        ui, case, busy = self.ui, self._case, self.task.busy
        self._fill()
        self._showProgress()
        self.second.update(busy)
        ui.learnProgressBar.visible = busy
        ui.learnButton.text = _("Cancel") if busy else _("Learn")
        delta = None if case is None else case.delta
        for widget in (ui.forgetButton, ui.useLearnedCheckBox):
            widget.visible, widget.enabled = delta is not None, not busy
        ui.useLearnedCheckBox.checked = delta is not None and delta.used
        # what they change would no longer be what is learned from
        for widget in (
            ui.thresholdGroup,
            ui.refineGroup,
            ui.learnSelector,
            ui.slicesList,
            ui.viewSelector,
            ui.modelLearnsCheckBox,
        ):
            widget.enabled = not busy
        ui.acceptSliceButton.enabled = not busy and bool(self._views)
        reason = "" if busy or case is None else whyNot(case, self._lessons(case), self._channels(case))
        if not busy:
            ui.learnButton.enabled = case is not None and not reason
        if not busy:
            self._show(self._text(case, reason))

    def hide(self) -> None:
        """Nobody looks at the section any more."""
        self.clicked.stopWaiting()

    def onCaseChosen(self, index: int) -> None:
        if not self._isFilling:
            with self.guarded():
                self._said = ""
                self.update()

    def onTicked(self, item) -> None:
        row, ticked = self.ui.slicesList.row(item), item.checkState() == qt.Qt.Checked
        case = self._case
        if case is not None and 0 <= row < len(self._slices):
            one = self._slices[row]
            self.clicked.soon(lambda: self._tick(case, one, ticked))

    def _tick(self, case: ReviewCase, one: Slice, ticked: bool) -> None:
        if case in self._cases:
            tick(case, one.axis, one.index, ticked)
        self.update()

    def onRow(self, row: int) -> None:
        if not self._isFilling and self._case is not None and 0 <= row < len(self._slices):
            one = self._slices[row]
            SliceViews.showSlice(self._case.worldOf(self._case.middleOf(one.axis, one.index)))

    def onAccept(self, checked: bool = False) -> None:
        index = self.ui.viewSelector.currentIndex
        if 0 <= index < len(self._views):
            view = self._views[index]
            self.clicked.soon(lambda: self._accept(view))

    def _accept(self, view) -> None:
        if self._case is None:
            return
        place = SliceViews.planeIn(view, self._case.volume)
        if place is None:
            raise InputError(
                _("This view shows no slice of the volume's voxels."),
                _("Turn it along the volume, and move it into the volume."),
            )
        accept(self._case, *place)
        self.update()

    def onLearnOrCancel(self, checked: bool = False) -> None:
        with self.guarded():
            if self.task.busy:
                self.second.unless(self.task.cancel)
            elif self._case is not None:
                self._said, self._node = "", self._case.node
                way = LEARNED if self.ui.modelLearnsCheckBox.checked else AUTO
                self.task.start(self._case, self.parameters().runOptions(), self._channels(self._case), way)
                self.timer.start()
            self.update()
        self.changed()

    def onUse(self, used: bool = False) -> None:
        with self.guarded():
            if self._case is not None:
                KeptDelta.use(self._case.node, self._case.tag, used)

    def onForget(self, checked: bool = False) -> None:
        with self.guarded():
            if self._case is not None:
                KeptDelta.forget(self._case.node, self._case.tag)
                self._say(_("What was learned is forgotten; the segments stay as they are."), self._case.node)
                self.update()

    def onTimer(self) -> None:
        with self.guarded():
            status = self.task.poll()
            if status.state == "asking":
                self.timer.stop()  # a dialog lets timers go on
                yes = slicer.util.confirmOkCancelDisplay(RunTexts.asHtml(status.question), windowTitle=_("Learn"))
                self.task.answer(yes is True)
                if self.task.busy:
                    self.timer.start()
            if not self.task.busy:
                self.timer.stop()
                self._say(LearnTexts.result(self.task.status), self._node)
                self.changed()
                self.update()
            else:
                self._showProgress()  # nothing else: what the slices hold takes too long to look at ten times a second

    @property
    def _case(self) -> ReviewCase | None:
        index = self.ui.learnSelector.currentIndex
        return self._cases[index] if 0 <= index < len(self._cases) else None

    def _channels(self, case: ReviewCase) -> list:
        """The further channels: those that are chosen for the model that made it."""
        parameters = self.parameters()
        same = parameters.modelName == case.provenance("model") and parameters.inputVolume is case.volume
        return parameters.channels if same else []

    def _text(self, case: ReviewCase | None, reason: str) -> str:
        if case is None:
            return ""
        if self._said and self._saidOf == _resultsOf(case.node):  # undo, too, makes others of them
            return self._said
        now = reason or self._ready(case)
        return "\n".join(filter(None, [LearnTexts.learned(case), now]))

    def _lessons(self, case: ReviewCase) -> list[Slice]:
        return lessons(self._slices, case.box)

    def _ready(self, case: ReviewCase) -> str:
        count = len(self._lessons(case))
        return LearnTexts.ready(count, expectedSeconds(case, count))

    def _showProgress(self) -> None:
        """How far the task is, and whether it can still be cancelled."""
        bar, status = self.ui.learnProgressBar, self.task.status
        bar.setRange(0, RunTexts.steps(status))
        bar.value = status.done
        bar.format = LearnTexts.timeLeft(status)
        if self.task.busy:
            self._show(LearnTexts.step(status))
            self.ui.learnButton.enabled = status.state != "cancelling"

    def _say(self, text: str, segmentationNode) -> None:
        """How something ended, from the next update on, as long as it is about what the segmentation holds."""
        self._said, self._saidOf = text, _resultsOf(segmentationNode)

    def _show(self, text: str) -> None:
        self.ui.learnLabel.text = text
        self.ui.learnLabel.visible = bool(text)

    def _fill(self) -> None:
        """The slices, and the views whose slice can be accepted."""
        case, widget, views = self._case, self.ui.slicesList, self.ui.viewSelector
        slices = [] if case is None else slicesOf(case)
        if slices != self._slices:
            self._said = ""  # that was of others
        self._slices = slices
        self._isFilling = True
        row = widget.currentRow
        widget.blockSignals(True)
        widget.clear()
        for number, one in enumerate(self._slices):
            widget.addItem(LearnTexts.row(case, one))
            item = widget.item(number)
            item.setFlags(qt.Qt.ItemIsEnabled | qt.Qt.ItemIsSelectable | qt.Qt.ItemIsUserCheckable)
            item.setCheckState(qt.Qt.Checked if one.ticked else qt.Qt.Unchecked)
        widget.setCurrentRow(min(row, len(self._slices) - 1))
        widget.blockSignals(False)
        widget.visible = bool(self._slices)
        rows = min(max(len(self._slices), 1), ROWS)
        widget.setFixedHeight(max(widget.sizeHintForRow(0), 18) * rows + 2 * widget.frameWidth)
        chosen = views.currentText
        self._views = [] if case is None else SliceViews.alongVoxels(case.volume)
        names = [_("{view} view").format(view=view.GetName()) for view in self._views]
        views.clear()
        views.addItems(names)
        views.setCurrentIndex(names.index(chosen) if chosen in names else 0)
        self._isFilling = False


def _resultsOf(segmentationNode) -> tuple:
    """What tells one segmentation, and what a model wrote into it, from others."""
    return segmentationNode.GetID(), KeptMargins.runsOf(segmentationNode)
