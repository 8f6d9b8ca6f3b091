"""Correcting a result: the Segment Editor inside the panel. Knows the widget's functions, but no Qt."""

from __future__ import annotations

from collections.abc import Callable

import slicer

from ..Scene.VolumeBridge import referenceVolume
from .UnusedEffects import unused

SINGLETON_TAG = "USEMASegmentation"


class CorrectSection:
    """Keeps a qMRMLSegmentEditorWidget on the panel's segmentation.

    It has an editor node of its own, so that effects and masks chosen here and in the module Segment Editor do not
    change each other.

    Args:
        editor: the widget; its scene is not set yet, so that what it chooses by itself is kept in the node.
        edited: called when the voxels of the segmentation have changed.
    """

    def __init__(self, editor, edited: Callable[[], None]):
        self.editor = editor
        self.edited = edited
        self._observed, self._tags = None, []
        self.selectEditorNode()

    def selectEditorNode(self) -> None:
        node = slicer.mrmlScene.GetSingletonNode(SINGLETON_TAG, "vtkMRMLSegmentEditorNode")
        if node is None:
            node = slicer.vtkMRMLSegmentEditorNode()
            node.SetSingletonTag(SINGLETON_TAG)
            node = slicer.mrmlScene.AddNode(node)
        if self.editor.mrmlSegmentEditorNode() != node:
            self.editor.setMRMLSegmentEditorNode(node)

    def show(self, segmentationNode, inputVolume) -> None:
        """Opens a segmentation, over the volume it was made from.

        Args:
            segmentationNode: or None for none.
            inputVolume: the source volume of a segmentation that does not know its own.
        """
        self.selectEditorNode()
        self._open(segmentationNode)
        self._observe(segmentationNode)
        if segmentationNode is None:
            return
        volume = referenceVolume(segmentationNode, inputVolume)
        if self.editor.sourceVolumeNode() != volume:
            with unused(self.editor):
                self.editor.setSourceVolumeNode(volume)

    def saveForUndo(self, segmentationNode) -> Callable[[], bool]:
        """Makes what is now done to the segmentation a step that the user can undo, whatever was shown until now.

        Returns:
            tells whether it still is; once another one was opened, the editor has forgotten it.
        """
        self.selectEditorNode()
        self._open(segmentationNode)
        self.editor.saveStateForUndo()
        return lambda: self.editor.mrmlSegmentEditorNode().GetSegmentationNode() == segmentationNode

    def enter(self) -> None:
        # The shortcuts go to the main window, which a Slicer that runs a script may not have.
        if slicer.util.mainWindow() is not None:
            self.editor.installKeyboardShortcuts()

    def exit(self) -> None:
        self.editor.setActiveEffect(None)
        self.editor.uninstallKeyboardShortcuts()
        self.editor.removeViewObservations()

    def close(self) -> None:
        """Lets go of the scene's nodes, which are about to go."""
        self._observe(None)
        self.editor.setSegmentationNode(None)
        self.editor.removeViewObservations()

    def _open(self, segmentationNode) -> None:
        # Setting a node again would end the user's effect and forget what can be undone. What the editor's own selector
        # shows does not count: it takes the scene's first segmentation by itself, also where none is edited.
        if self.editor.mrmlSegmentEditorNode().GetSegmentationNode() != segmentationNode:
            with unused(self.editor):  # the editor takes the volume that the segmentation was made of
                self.editor.setSegmentationNode(segmentationNode)

    def _observe(self, segmentationNode) -> None:
        segmentation = None if segmentationNode is None else segmentationNode.GetSegmentation()
        if segmentation is self._observed:
            return
        if self._observed is not None:
            for tag in self._tags:
                self._observed.RemoveObserver(tag)
        self._observed, self._tags = segmentation, []
        if segmentation is not None:
            # an effect tells of the first, undo of the second, the list of segments of the others
            names = ("SourceRepresentationModified", "SegmentModified", "SegmentAdded", "SegmentRemoved")
            for name in names:
                self._tags.append(segmentation.AddObserver(getattr(segmentation, name), lambda *_: self.edited()))
