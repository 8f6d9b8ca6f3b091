"""The slice views after a result: they show the volume, centred on what was found, once for each volume."""

from __future__ import annotations

import slicer

from ..Scene.Images import isFlat

# An attribute of the volume, so that it is remembered with the scene. Later results leave the views to the user.
SHOWN = "USEMA.shownInSliceViews"


def showOnce(segmentationNode) -> None:
    """Brings the first result for a volume into the slice views; nothing where there is none to be seen."""
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    volumeNode = segmentationNode.GetNodeReference(role)
    if volumeNode is None or volumeNode.GetAttribute(SHOWN) is not None:
        return
    volumeNode.SetAttribute(SHOWN, "1")
    views, flat = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"), isFlat(volumeNode)
    if flat:  # else an oblique one is a line
        for view in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
            view.RotateToVolumePlane(volumeNode)
    if flat or any(view.GetBackgroundVolumeID() != volumeNode.GetID() for view in views):
        slicer.util.setSliceViewerLayers(background=volumeNode, fit=True)
    bounds = [0.0] * 6
    segmentationNode.GetRASBounds(bounds)
    low, high = bounds[::2], bounds[1::2]
    if all(first <= last for first, last in zip(low, high, strict=True)):  # else the segments are empty
        middle = [(first + last) / 2 for first, last in zip(low, high, strict=True)]
        slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *middle, slicer.vtkMRMLSliceNode.CenteredJumpSlice)
