"""What a segment would become, as an outline in the slice views: a segmentation that is neither saved nor listed."""

from __future__ import annotations

import numpy as np
import slicer
import vtk
from usema.volumes.masks import Box

from .Hierarchy import addHidden
from .SegmentVoxels import LABELMAP, arrayOf, newImage
from .VolumeBridge import ijkToRas

_COLOR = (1.0, 0.9, 0.1)
_FIRST, _LAST = 1e3, -1e3  # of all observers
_EXCLUDED = slicer.vtkMRMLSubjectHierarchyConstants.GetSubjectHierarchyExcludeFromTreeAttributeName()


class ReviewPreview:
    """An outline over a volume, in a box of its voxels.

    Args:
        array: as below, for it to hold; None: a new one.

    Attributes:
        array: bool (z, y, x), to be changed in place; ``refresh`` shows it.
    """

    def __init__(
        self,
        segmentationNode,
        volumeNode,
        box: Box,
        color: tuple[float, float, float] = _COLOR,
        array: np.ndarray | None = None,
    ):
        self._over = segmentationNode, volumeNode
        scene, node = slicer.mrmlScene, slicer.vtkMRMLSegmentationNode()
        node.SetSaveWithScene(False)
        node.SetAttribute(_EXCLUDED, "1")
        self._node = addHidden(node, "USEMA preview")
        # of a hidden node the subject hierarchy has no item, without which the application logs errors of its segments
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
        hierarchy.CreateItem(hierarchy.GetSceneItemID(), self._node)
        self._going, self._isPending = "", False
        self._tags = [
            scene.AddObserver(scene.NodeAboutToBeRemovedEvent, self._onGoing, _FIRST),
            scene.AddObserver(scene.NodeRemovedEvent, self._onGone, _LAST),
        ]
        self._node.SetAndObserveTransformNodeID(segmentationNode.GetTransformNodeID())
        self._node.CreateDefaultDisplayNodes()
        self._display = display = self._node.GetDisplayNode()
        display.SetSaveWithScene(False)
        display.SetVisibility3D(False)
        display.SetVisibility2DFill(False)
        display.SetSliceIntersectionThickness(2)
        segment = slicer.vtkSegment()
        segment.SetName("Preview")
        segment.SetColor(*color)
        segment.AddRepresentation(LABELMAP, self._newImage(box, array))
        self._node.GetSegmentation().AddSegment(segment, "preview")
        self._take()

    def isOver(self, segmentationNode, volumeNode) -> bool:
        """Whether it was made for these, and is still there."""
        return self._over == (segmentationNode, volumeNode) and slicer.mrmlScene.IsNodePresent(self._node)

    def place(self, box: Box) -> None:
        """In another box, empty: that takes half as long as another outline."""
        self._node.GetSegmentation().GetSegment("preview").AddRepresentation(LABELMAP, self._newImage(box, None))
        self._take()

    def _newImage(self, box: Box, array: np.ndarray | None):
        if array is None:
            array = np.zeros([part.stop - part.start for part in box], bool)
        return newImage(array.view(np.uint8), box, ijkToRas(self._over[1]))

    def _take(self) -> None:
        self._image = self._node.GetSegmentation().GetSegment("preview").GetRepresentation(LABELMAP)
        self.array = arrayOf(self._image).view(bool)

    def refresh(self) -> None:
        """Show what the array holds now."""
        self._image.GetPointData().GetScalars().Modified()
        self._image.Modified()
        self._display.Modified()  # else the views draw it only when something else makes them

    def remove(self) -> None:
        """Take the outline away. While another node is being removed it is only hidden, and goes right after that one:
        the application's lists, which tell the panel of it in between, do not survive another removal."""
        scene = slicer.mrmlScene
        if self._going and scene.GetNodeByID(self._going) is not None:
            self._isPending = True
            self._display.SetVisibility(False)
            return
        for tag in self._tags:
            scene.RemoveObserver(tag)
        self._tags = []
        if scene.IsNodePresent(self._node):
            scene.RemoveNode(self._node)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onGoing(self, scene, event, node) -> None:
        self._going = node.GetID()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onGone(self, scene, event, node) -> None:
        if self._isPending:
            self.remove()
