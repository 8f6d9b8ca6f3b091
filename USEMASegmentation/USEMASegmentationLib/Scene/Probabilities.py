"""The probability of each label as a volume: one for each label of a segmentation, replaced by the next result's."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np
import slicer
from usema.models.metadata import ModelMetadata
from usema.volumes.segments import LABEL_KEY, PREFIX

from ..Steps import Working, copying
from .BesideVolume import addBeside, liesOn
from .Hierarchy import createDisplay
from .VolumeBridge import Box, shapeOf

ROLE = "USEMA.probability"  # under which a segmentation refers to them


def preparing(
    probabilities: np.ndarray,
    volumeNode,
    metadata: ModelMetadata,
    *,
    box: Box,
    labelNames: Sequence[str] = (),
    target=None,
) -> Working:
    """Makes the voxels of each volume, a moment at a time; returns them by label. Outside of the box they are those
    that the target's volume has, or 0.

    Args:
        probabilities: (classes, z, y, x) on the voxels of ``box``, background first.
        labelNames: of these labels only; empty: all.
        target: the segmentation that is written into; None: a new one.
    """
    arrays = {}
    for label in metadata.labels:
        if labelNames and label.name not in labelNames:
            continue
        array = np.zeros(shapeOf(volumeNode), np.float32)
        former = _former(target, volumeNode, metadata, label.name)
        if former is not None:
            yield from copying(slicer.util.arrayFromVolume(former), array)
        yield from copying(probabilities[label.value], array[box])
        arrays[label.name] = array
    return arrays


def commit(arrays: dict[str, np.ndarray], segmentationNode, volumeNode, metadata: ModelMetadata, undo: ExitStack):
    """Put them into the scene; the segmentation refers to them. Closing ``undo`` takes it back."""
    for label, array in arrays.items():
        node = _former(segmentationNode, volumeNode, metadata, label)
        if node is None:
            node = _newNode(segmentationNode, volumeNode, metadata, label, undo)
        else:
            undo.callback(slicer.util.updateVolumeFromArray, node, slicer.util.arrayFromVolume(node).copy())
        slicer.util.updateVolumeFromArray(node, array)
        createDisplay(node, undo)


def _former(segmentationNode, volumeNode, metadata: ModelMetadata, label: str):
    """The volume of this label that an earlier result left, if it still lies on the volume's grid."""
    number = segmentationNode.GetNumberOfNodeReferences(ROLE) if segmentationNode is not None else 0
    for node in (segmentationNode.GetNthNodeReference(ROLE, n) for n in range(number)):
        if liesOn(node, volumeNode):
            told = node.GetAttribute(f"{PREFIX}model"), node.GetAttribute(PREFIX + LABEL_KEY)
            if told == (metadata.name, label):
                return node
    return None


def _newNode(segmentationNode, volumeNode, metadata: ModelMetadata, label: str, undo: ExitStack):
    name = f"{volumeNode.GetName()} {label} probability"
    node = addBeside(volumeNode, "vtkMRMLScalarVolumeNode", name, undo)
    node.SetAttribute(f"{PREFIX}model", metadata.name)
    node.SetAttribute(PREFIX + LABEL_KEY, label)
    segmentationNode.AddNodeReferenceID(ROLE, node.GetID())
    return node
