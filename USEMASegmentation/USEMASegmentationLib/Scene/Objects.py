"""The objects that a model tells apart in an image: a label map of their numbers beside the segmentation.

The segmentation has them as one segment, which is corrected as any other; the label map follows when it is measured.
"""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import slicer
from usema.measure.objects import WATERSHED, followed, split_objects
from usema.volumes.label_pictures import object_colour

from .BesideVolume import addBeside, liesOn
from .Hierarchy import addHidden, createDisplay
from .VolumeBridge import Box, shapeOf

ROLE = "USEMA.objects"  # under which a segmentation refers to them


def commit(objects: np.ndarray, box: Box, segmentationNode, volumeNode, undo: ExitStack) -> None:
    """Put the numbers of a run into the scene; the segmentation refers to them. Closing ``undo`` takes them back.

    Args:
        objects: (z, y, x) on the voxels of ``box``; outside of it those of an earlier run stay.
    """
    node = of(segmentationNode, volumeNode)
    array = np.zeros(shapeOf(volumeNode), np.int32)
    if node is not None:
        array[...] = slicer.util.arrayFromVolume(node)
    array[box] = 0
    array[box] = np.where(objects, objects.astype(np.int32) + int(array.max()), 0)
    _write(array, node, segmentationNode, volumeNode, undo)


def of(segmentationNode, volumeNode):
    """The label map that a segmentation refers to, if it lies on the volume's grid; else None."""
    node = segmentationNode.GetNodeReference(ROLE)
    return node if liesOn(node, volumeNode) else None


def brought(mask: np.ndarray, segmentationNode, volumeNode) -> np.ndarray:
    """The objects of a segment as it is now; the label map is brought up to it, and made where there is none.

    Args:
        mask: (z, y, x) bool on the volume's grid, of one slice.

    Returns:
        (z, y, x) numbers from 1 on.
    """
    node, axis = of(segmentationNode, volumeNode), mask.shape.index(1)
    plane = mask.take(0, axis)
    if node is None:
        objects = split_objects(plane, None, WATERSHED)
    else:
        objects = followed(slicer.util.arrayFromVolume(node).take(0, axis), plane)
    objects = np.expand_dims(objects, axis)
    with ExitStack() as undo:
        _write(objects, node, segmentationNode, volumeNode, undo)
        undo.pop_all()
    return objects


def _write(array: np.ndarray, node, segmentationNode, volumeNode, undo: ExitStack) -> None:
    if node is None:
        node = _newNode(segmentationNode, volumeNode, undo)
    else:
        undo.callback(slicer.util.updateVolumeFromArray, node, slicer.util.arrayFromVolume(node).copy())
    createDisplay(node, undo)
    _colour(node, int(array.max()), undo)
    slicer.util.updateVolumeFromArray(node, array.astype(np.int16 if array.max() < 2**15 else np.int32))


def _newNode(segmentationNode, volumeNode, undo: ExitStack):
    node = addBeside(volumeNode, "vtkMRMLLabelMapVolumeNode", f"{segmentationNode.GetName()} objects", undo)
    before = segmentationNode.GetNodeReferenceID(ROLE)
    undo.callback(segmentationNode.SetNodeReferenceID, ROLE, before)
    segmentationNode.SetNodeReferenceID(ROLE, node.GetID())
    return node


def _colour(node, highest: int, undo: ExitStack) -> None:
    """A colour for each number, in a table of its own: the application's have too few."""
    display, scene = node.GetDisplayNode(), slicer.mrmlScene
    colours = display.GetColorNode()
    if colours is None or colours.GetAttribute(ROLE) is None:
        colours = addHidden(slicer.vtkMRMLColorTableNode(), f"{node.GetName()} colours")
        undo.callback(scene.RemoveNode, colours)
        colours.SetTypeToUser()
        colours.SetAttribute(ROLE, "")
    if colours.GetNumberOfColors() <= highest:
        colours.SetNumberOfColors(highest + 1)
        colours.SetColor(0, "background", 0, 0, 0, 0)
        for number in range(1, highest + 1):
            colours.SetColor(number, str(number), *(channel / 255 for channel in object_colour(number)), 1)
    display.SetAndObserveColorNodeID(colours.GetID())
