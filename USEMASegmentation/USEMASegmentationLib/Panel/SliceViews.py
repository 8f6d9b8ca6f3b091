"""The slice views after a result: they show the volume, centred on what was found, once for each volume."""

from __future__ import annotations

import json
from contextlib import suppress

import numpy as np
import slicer

from ..Scene import KeptMargins
from ..Scene.Images import isFlat
from ..Scene.VolumeBridge import ijkToWorld
from ..Steps import NextTurn, Working

# An attribute of the volume, so that it is remembered with the scene. Later results leave the views to the user.
SHOWN = "USEMA.shownInSliceViews"
_PARALLEL = 0.999  # the cosine between a view's normal and an axis of the voxels, from which on these are one


def showingOnce(segmentationNode) -> Working:
    """Brings the first result for a volume into the slice views, a turn for the volume and one for the place; nothing
    where there is none to be seen."""
    volumeNode = next(filter(isFirst, _volumesOf(segmentationNode)), None)
    if volumeNode is None:
        return
    views, flat = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"), isFlat(volumeNode)
    if flat:  # else an oblique one is a line
        for view in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
            view.RotateToVolumePlane(volumeNode)
    if flat or any(view.GetBackgroundVolumeID() != volumeNode.GetID() for view in views):
        slicer.util.setSliceViewerLayers(background=volumeNode, fit=True)
    yield NextTurn()
    middle = middleOf(segmentationNode)
    if middle is not None:
        slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *middle, slicer.vtkMRMLSliceNode.CenteredJumpSlice)


def _volumesOf(segmentationNode) -> list:
    """What its segments were made of, and last what it was first made of: that is another where a result replaced."""
    found = []
    for run in (*sorted(KeptMargins.runsOf(segmentationNode)), ""):
        with suppress(ValueError):
            found.append(KeptMargins.volumeOf(segmentationNode, run))
    return found


def isFirst(volumeNode) -> bool:
    """Whether no result was brought into the views for a volume yet; from now on one was."""
    first = volumeNode.GetAttribute(SHOWN) is None
    volumeNode.SetAttribute(SHOWN, "1")
    return first


def middleOf(segmentationNode) -> tuple[float, float, float] | None:
    """The middle of all segments, RAS millimetres in the world; None where they are empty."""
    bounds = [0.0] * 6
    segmentationNode.GetRASBounds(bounds)
    low, high = bounds[::2], bounds[1::2]
    if any(first > last for first, last in zip(low, high, strict=True)):
        return None
    return tuple((first + last) / 2 for first, last in zip(low, high, strict=True))


# An attribute of a slice node: its field of view before `lookAt`. So a scene that is saved meanwhile has it.
_FIELD = "USEMA.fieldOfView"
_LEAST_MM, _AROUND = 40.0, 3.0  # what is shown around a place: so much at the least, or so many times its size


def lookAt(world, sizeMm: float) -> None:
    """Centres all slice views on a place (RAS millimetres) and shows it with its surroundings."""
    slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *world, slicer.vtkMRMLSliceNode.CenteredJumpSlice)
    wanted = max(_LEAST_MM, _AROUND * sizeMm)
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        width, height, depth = node.GetFieldOfView()
        if min(width, height) <= 0:
            continue
        scale = wanted / min(width, height)
        with slicer.util.NodeModify(node):  # the view is drawn once
            if node.GetAttribute(_FIELD) is None:
                node.SetAttribute(_FIELD, json.dumps([width, height, depth]))
            node.SetFieldOfView(width * scale, height * scale, depth)


def lookAway() -> None:
    """Gives the slice views the field of view back that they had; also those of a scene that was saved before."""
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        text = node.GetAttribute(_FIELD)
        if text is not None:
            node.RemoveAttribute(_FIELD)
            try:
                node.SetFieldOfView(*map(float, json.loads(text)))
            except (ValueError, TypeError):  # edited by hand
                continue


def showSlice(world) -> None:
    """All slice views show the slices through a place; what lies in the middle of them stays."""
    slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *world, slicer.vtkMRMLSliceNode.OffsetJumpSlice)


def alongVoxels(volumeNode) -> list:
    """The slice views in the layout that show a slice of the volume's own voxels."""
    nodes = slicer.util.getNodesByClass("vtkMRMLSliceNode")
    return [node for node in nodes if node.IsMappedInLayout() and planeIn(node, volumeNode) is not None]


def planeIn(view, volumeNode) -> tuple[int, int] | None:
    """(axis of the array, index) of the slice that a view shows; None: it is oblique to the voxels, or beside them."""
    toWorld = ijkToWorld(volumeNode)
    if toWorld is None:
        return None
    plane = slicer.util.arrayFromVTKMatrix(view.GetSliceToRAS())
    axes = toWorld[:3, :3] / np.linalg.norm(toWorld[:3, :3], axis=0)
    along = np.abs(axes.T @ (plane[:3, 2] / np.linalg.norm(plane[:3, 2])))
    axis = int(along.argmax())
    index = round(float((np.linalg.inv(toWorld) @ plane[:, 3])[axis]))
    if along[axis] < _PARALLEL or not 0 <= index < volumeNode.GetImageData().GetDimensions()[axis]:
        return None
    return 2 - axis, index
