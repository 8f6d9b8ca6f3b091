"""Correcting with the model's help: the section before the Segment Editor. Knows the widgets, but no Qt."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager, suppress

import slicer
from slicer.i18n import tr as _
from usema.volumes.segments import RUN_KEY

from ..LearnTask import LearnTask
from ..Parameters import Parameters
from ..Scene import KeptMargins
from ..Scene.EditMask import tagOf, timesOf
from ..Scene.KnownEdits import KnownEdits
from ..Scene.ReviewCase import casesOf
from ..Scene.SegmentVoxels import affineOf, imageOf
from ..Scene.Sequences import frameValueOf
from ..Scene.VolumeBridge import ijkToRas, referenceVolume, shapeOf
from ..Steps import Steps, Working
from .AskedWork import Surroundings
from .CorrectSection import CorrectSection
from .LearnControls import LearnControls
from .RefineControls import RefineControls
from .RegionControls import RegionControls
from .Signals import connect
from .ThresholdControls import ThresholdControls


class ReviewSection:
    """Shows what can be reviewed in the panel's segmentation.

    Args:
        ui: its widgets.
        correct: saves for undo, and has the masks.
        guarded: gives a context in which errors are shown.
        learning: lets the model learn.
        newTimer: makes a timer that calls what it is given.
        parameters: gives what a click on Segment would start.
        told: called when learning begins or ends.
    """

    def __init__(
        self,
        ui,
        correct: CorrectSection,
        guarded: Callable[[], AbstractContextManager],
        learning: LearnTask,
        newTimer: Callable,
        parameters: Callable[[], Parameters],
        told: Callable[[], None],
    ):
        self.ui = ui
        self.correct = correct
        self.cases: list = []
        self._guarded = guarded
        self._node, self._shown, self._voxels = None, None, None
        self._known, self._looking, self._timer = KnownEdits(), None, newTimer(self.onTimer)
        surroundings = Surroundings(guarded, self._isUpToDate, newTimer)
        self.threshold = ThresholdControls(ui, surroundings)
        self.regions = RegionControls(ui, surroundings)
        self.refine = RefineControls(ui, surroundings)
        self.learn = LearnControls(ui, self._upToDate, surroundings, told, learning, parameters)
        connect(ui.reviewCollapsibleButton, "contentsCollapsed(bool)", self.onCollapsed)

    def show(self, segmentationNode) -> None:
        """What there is in this segmentation; None: nothing."""
        self._node = segmentationNode
        if self.ui.reviewCollapsibleButton.collapsed:
            return
        voxels = (_volumesOf(segmentationNode), _voxelsOf(segmentationNode))
        if voxels == self._voxels:
            self._looking = None  # of another segmentation, chosen in between
        if voxels == self._voxels or not self._look(voxels):
            return
        self._voxels = voxels
        state = (voxels[0], _stateOf(segmentationNode))
        if state == self._shown:
            self.threshold.forget()
            self.regions.update()
            self.refine.update()
            self.learn.update()
            return
        self._shown = state
        self.cases, reason = [], ""
        if segmentationNode is not None:
            editorNode = self.correct.editor.mrmlSegmentEditorNode()
            self.cases, reason = casesOf(segmentationNode, self.correct.saveForUndo, editorNode, self._known)
        self._offer("" if self.cases else _hint(segmentationNode, reason))
        self.threshold.show(self.cases)
        self.regions.show(self.cases)
        self.refine.show(self.cases)
        self.learn.show(self.cases)

    def _look(self, voxels: tuple) -> bool:
        """Whether it is known what the user changed. In large segments that is looked for beside, for a moment at each
        call, and the timer runs; what is shown until then is of before."""
        if self._looking is None or self._looking[0] != voxels:
            self._looking = voxels, Steps(_looking(self._known, self._node))
        try:
            ended = self._looking[1].go()
        except BaseException:
            self._looking = None  # what has failed half-way would never come to an end
            raise
        if ended:
            self._looking = None
            self._timer.stop()
        else:
            self._timer.start()
            if not self.cases:
                self._offer(_("Looking at the segments..."))
        return ended

    def _offer(self, hint: str) -> None:
        """The groups, or a hint in place of them."""
        self.ui.reviewHintLabel.text = hint
        self.ui.reviewHintLabel.visible = bool(hint)
        for group in (self.ui.thresholdGroup, self.ui.regionsGroup, self.ui.refineGroup, self.ui.learnGroup):
            group.visible = not hint

    def onTimer(self) -> None:
        """Goes on looking."""
        with self._guarded():
            if self._looking is None or self.ui.reviewCollapsibleButton.collapsed:
                self._timer.stop()
            else:
                self._show()

    @contextmanager
    def _upToDate(self):
        """For a click: what it is about may have changed since it was shown, and nobody told. Errors are shown."""
        with self._guarded():
            self._refresh()
        with self._guarded():
            yield

    def _isUpToDate(self) -> bool:
        """As `_refresh`, but for a moment only."""
        self._show()
        return self._looking is None

    def _refresh(self) -> None:
        """Now, however long it takes."""
        self._show()
        while self._looking is not None and not self.ui.reviewCollapsibleButton.collapsed:
            self._show()

    def _show(self) -> None:
        there = self._node is not None and slicer.mrmlScene.IsNodePresent(self._node)
        self.show(self._node if there else None)

    def onCollapsed(self, collapsed: bool) -> None:
        if collapsed:
            self.exit()
        else:
            self.enter()
            self.show(self._node)

    def enter(self) -> None:
        """The module is opened: its keys count, and its outline is shown, where the section is open."""
        if not self.ui.reviewCollapsibleButton.collapsed:
            self.regions.enter()
            self.threshold.enter()

    def exit(self) -> None:
        """Another module is opened."""
        for part in (self.threshold, self.refine, self.learn):
            part.hide()
        self.regions.exit()

    def close(self) -> None:
        """Lets go of the scene's nodes, which are about to go."""
        self.exit()
        self.threshold.show([])
        self.regions.show([])
        self.refine.show([])
        self.learn.show([])
        self.cases, self._node, self._shown, self._voxels = [], None, None, None
        self._known, self._looking = KnownEdits(), None
        self._timer.stop()


def _looking(known: KnownEdits, segmentationNode) -> Working:
    volume = referenceVolume(segmentationNode)
    if volume is not None and volume.GetImageData() is not None:
        segmentation = segmentationNode.GetSegmentation()
        ids = [one for one in segmentation.GetSegmentIDs() if tagOf(segmentation.GetSegment(one), RUN_KEY)]
        yield from known.looking(segmentationNode, ids, volume)


def _stateOf(segmentationNode) -> tuple:
    """What tells whether there are other results, or segments, than before, or these are no voxels of the volume's."""
    if segmentationNode is None:
        return ()
    segmentation = segmentationNode.GetSegmentation()
    segments = [(one, segmentation.GetSegment(one)) for one in segmentation.GetSegmentIDs()]
    grids = {tuple(affineOf(image).round(3).flat) for _, each in segments if (image := imageOf(each)) is not None}
    told = tuple((one, each.GetName(), tagOf(each, RUN_KEY)) for one, each in segments)
    return segmentationNode.GetID(), told, segmentation.GetSourceRepresentationName(), grids


def _volumesOf(segmentationNode) -> list[tuple]:
    """What tells whether the volumes that were segmented are still the same grids, and show the same frames."""
    found = []
    for run in () if segmentationNode is None else ("", *sorted(KeptMargins.runsOf(segmentationNode))):
        with suppress(ValueError):
            volume = KeptMargins.volumeOf(segmentationNode, run)
            found.append((run, volume.GetID(), shapeOf(volume), ijkToRas(volume).tobytes(), frameValueOf(volume)))
    return found


def _voxelsOf(segmentationNode) -> tuple:
    """What tells, without looking at voxels, whether a segment may have changed."""
    if segmentationNode is None:
        return ()
    return timesOf(segmentationNode, segmentationNode.GetSegmentation().GetSegmentIDs())


def _hint(segmentationNode, reason: str) -> str:
    if segmentationNode is None:
        return _("Segment first: then the result can be reviewed here.")
    if not reason:
        return _("No segment of this segmentation was made by a model of USEMA.")
    return _("This result cannot be reviewed: {reason}.").format(reason=reason)
