"""Correcting with the model's help: the section before the Segment Editor. Knows the widgets, but no Qt."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager

import slicer
from slicer.i18n import tr as _
from usema.volumes.segments import RUN_KEY

from ..LearnTask import LearnTask
from ..Parameters import Parameters
from ..Scene.EditMask import tagOf, timesOf
from ..Scene.ReviewCase import casesOf
from ..Scene.Sequences import frameValueOf
from ..Scene.VolumeBridge import ijkToRas, referenceVolume, shapeOf
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
        self.threshold = ThresholdControls(ui, self._upToDate, self._refresh)
        self.regions = RegionControls(ui, self._upToDate)
        self.refine = RefineControls(ui, self._upToDate, self._refresh)
        self.learn = LearnControls(ui, self._upToDate, told, learning, newTimer, parameters)
        connect(ui.reviewCollapsibleButton, "contentsCollapsed(bool)", self.onCollapsed)

    def show(self, segmentationNode) -> None:
        """What there is in this segmentation; None: nothing."""
        self._node = segmentationNode
        if self.ui.reviewCollapsibleButton.collapsed:
            return
        voxels = (_volumeOf(segmentationNode), _voxelsOf(segmentationNode))
        if voxels == self._voxels:
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
            self.cases, reason = casesOf(segmentationNode, self.correct.saveForUndo, editorNode)
        self.ui.reviewHintLabel.text = "" if self.cases else _hint(segmentationNode, reason)
        self.ui.reviewHintLabel.visible = not self.cases
        for group in (self.ui.thresholdGroup, self.ui.regionsGroup, self.ui.refineGroup, self.ui.learnGroup):
            group.visible = bool(self.cases)
        self.threshold.show(self.cases)
        self.regions.show(self.cases)
        self.refine.show(self.cases)
        self.learn.show(self.cases)

    @contextmanager
    def _upToDate(self):
        """For a click: what it is about may have changed since it was shown, and nobody told. Errors are shown."""
        with self._guarded():
            self._refresh()
        with self._guarded():
            yield

    def _refresh(self) -> None:
        there = self._node is not None and slicer.mrmlScene.IsNodePresent(self._node)
        self.show(self._node if there else None)

    def onCollapsed(self, collapsed: bool) -> None:
        if collapsed:
            self.exit()
        else:
            self.enter()
            self.show(self._node)

    def enter(self) -> None:
        """The module is opened: its keys count, where the section is open."""
        if not self.ui.reviewCollapsibleButton.collapsed:
            self.regions.enter()

    def exit(self) -> None:
        """Another module is opened."""
        self.threshold.hide()
        self.regions.exit()

    def close(self) -> None:
        """Lets go of the scene's nodes, which are about to go."""
        self.exit()
        self.threshold.show([])
        self.regions.show([])
        self.refine.show([])
        self.learn.show([])
        self.cases, self._node, self._shown, self._voxels = [], None, None, None


def _stateOf(segmentationNode) -> tuple:
    """What tells whether there are other results, or segments, than before."""
    if segmentationNode is None:
        return ()
    segmentation = segmentationNode.GetSegmentation()
    segments = [(one, segmentation.GetSegment(one)) for one in segmentation.GetSegmentIDs()]
    return segmentationNode.GetID(), tuple((one, each.GetName(), tagOf(each, RUN_KEY)) for one, each in segments)


def _volumeOf(segmentationNode) -> tuple:
    """What tells whether the volume that was segmented is still the same grid, and shows the same frame."""
    volume = referenceVolume(segmentationNode)
    if volume is None or volume.GetImageData() is None:
        return ()
    return volume.GetID(), shapeOf(volume), ijkToRas(volume).tobytes(), frameValueOf(volume)


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
