"""Volumes that a result keeps beside the one that was segmented, on the same voxels."""

from __future__ import annotations

from contextlib import ExitStack

import slicer

from .Hierarchy import placeBeside
from .SegmentVoxels import offsetBetween
from .VolumeBridge import ijkToRas, shapeOf


def liesOn(node, volumeNode) -> bool:
    """Whether the node is there and has a voxel where the volume has one, each with the same index."""
    if node is None or node.GetImageData() is None or shapeOf(node) != shapeOf(volumeNode):
        return False
    return offsetBetween(ijkToRas(node), ijkToRas(volumeNode)) == (0, 0, 0)


def addBeside(volumeNode, kind: str, name: str, undo: ExitStack):
    """A new node on the volume's grid, in the same place of the subject hierarchy, that has no voxels yet.

    Args:
        kind: the class of the node.
        name: a number is added where another node has it.
        undo: closing it takes the node back.
    """
    scene = slicer.mrmlScene
    node = scene.AddNewNodeByClass(kind, scene.GenerateUniqueName(name))
    undo.callback(scene.RemoveNode, node)
    node.CopyOrientation(volumeNode)
    node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    placeBeside(node, volumeNode)
    return node
