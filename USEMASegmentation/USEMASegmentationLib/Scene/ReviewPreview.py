"""What a segment would become, as an outline in the slice views: a segmentation that is neither saved nor listed."""

from __future__ import annotations

import numpy as np
import slicer
from usema.volumes.masks import Box

from .SegmentVoxels import LABELMAP, arrayOf, newImage
from .VolumeBridge import ijkToRas

_COLOR = (1.0, 0.9, 0.1)
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
        node = slicer.vtkMRMLSegmentationNode()
        node.SetName("USEMA preview")
        node.SetSaveWithScene(False)
        # Listed nowhere, but known to the subject hierarchy: of a node that is hidden when it comes into the scene, the
        # subject hierarchy has no item, and the application logs errors about each of its segments.
        node.SetAttribute(_EXCLUDED, "1")
        self._node = slicer.mrmlScene.AddNode(node)
        self._node.SetHideFromEditors(True)
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
        """Take the outline away."""
        if slicer.mrmlScene.IsNodePresent(self._node):
            slicer.mrmlScene.RemoveNode(self._node)
