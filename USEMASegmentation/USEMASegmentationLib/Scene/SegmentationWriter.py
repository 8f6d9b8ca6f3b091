"""Labels become segments: names, colours, codes, geometry, place in the subject hierarchy, and where they come from.

All segments of one result share one label map layer, so segments that were there before keep theirs, voxel by voxel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import slicer
import vtk
from usema.errors import OutputError
from usema.models.metadata import Label, ModelMetadata
from usema.volumes.segments import tag_text, terminology_entry
from vtk.util.numpy_support import numpy_to_vtk

from .VolumeBridge import Box, shapeOf, wholeBox

PREFIX = "USEMA."
PROBABILITY_ROLE = "USEMA.probability"
_LABELMAP = "Binary labelmap"


def write(
    labels: np.ndarray,
    volumeNode,
    metadata: ModelMetadata,
    provenance: Mapping[str, str],
    *,
    box: Box | None = None,
    labelNames: Sequence[str] = (),
    segmentationNode=None,
    existing: str = "new",
    show3D: bool = False,
):
    """Write a result into the scene. Every label becomes a segment, an empty one where nothing was found.

    Args:
        labels: integers (z, y, x), the values of ``metadata.labels`` and 0, on the voxels of ``box``.
        volumeNode: the volume that was segmented; gives geometry, transform, name and place.
        provenance: how the result was made. Kept in attributes of the node, which survive in ``.mrb``, and in tags of
            each segment, which survive in ``.seg.nrrd``, each under its name with "USEMA." before it.
        box: which voxels of the volume; None: all.
        labelNames: write these labels only; empty: all.
        segmentationNode: the node to write into, unless ``existing`` is "new".
        existing: see ``Parameters``.
        show3D: make surfaces.

    Returns:
        the segmentation node.

    Raises:
        OutputError: ``segmentationNode`` cannot hold the result; see `whyNotInto`.
        ValueError: ``labels`` does not have the shape of the box.
    """
    written = [label for label in metadata.labels if not labelNames or label.name in labelNames]
    image = _sharedLabelmap(labels, written, volumeNode, box or wholeBox(volumeNode))
    segments = [_segment(label, image, provenance) for label in written]
    if segmentationNode is not None and existing != "new":
        problem = whyNotInto(segmentationNode, volumeNode)
        if problem:
            raise OutputError(problem, "Choose another segmentation, or a new one.")
        with slicer.util.NodeModify(segmentationNode):
            _addTo(segmentationNode, segments, written, metadata, replace=existing == "replace")
            _setAttributes(segmentationNode, provenance)
    else:
        segmentationNode = _newNode(volumeNode, segments, written, metadata, provenance)
    segmentationNode.CreateDefaultDisplayNodes()  # does nothing where there are some
    if show3D:
        segmentationNode.CreateClosedSurfaceRepresentation()
        segmentationNode.GetDisplayNode().SetVisibility3D(True)
    return segmentationNode


def whyNotInto(segmentationNode, volumeNode) -> str:
    """Why a result for the volume cannot be written into this segmentation; empty: it can."""
    name, segmentation = segmentationNode.GetName(), segmentationNode.GetSegmentation()
    # Adding to a segmentation of surfaces would turn the labels into surfaces and drop the voxels.
    if segmentation.GetNumberOfSegments() and segmentation.GetSourceRepresentationName() != _LABELMAP:
        return f"The segmentation '{name}' is stored as '{segmentation.GetSourceRepresentationName()}', not as voxels."
    if segmentationNode.GetTransformNodeID() != volumeNode.GetTransformNodeID():
        return f"The segmentation '{name}' does not lie under the same transform as '{volumeNode.GetName()}'."
    return ""


def tagOf(segment, key: str) -> str:
    """What a segment tells about where it comes from, such as "model"; empty: nothing."""
    value = vtk.reference("")
    segment.GetTag(PREFIX + key, value)
    return str(value)


def writeProbabilities(
    probabilities: np.ndarray, segmentationNode, volumeNode, metadata: ModelMetadata, *, box: Box, labelNames=()
) -> None:
    """Make a scalar volume of each label's probability, 0 to 1; the segmentation refers to them.

    Args:
        probabilities: (classes, z, y, x) on the voxels of ``box``, background first.
        labelNames: of these labels only; empty: all.
    """
    for label in metadata.labels:
        if labelNames and label.name not in labelNames:
            continue
        array = np.zeros(shapeOf(volumeNode), np.float32)
        array[box] = probabilities[label.value]
        name = slicer.mrmlScene.GenerateUniqueName(f"{volumeNode.GetName()} {label.name} probability")
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
        node.CopyOrientation(volumeNode)
        slicer.util.updateVolumeFromArray(node, array)
        node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
        node.CreateDefaultDisplayNodes()
        _placeBeside(node, volumeNode)
        segmentationNode.AddNodeReferenceID(PROBABILITY_ROLE, node.GetID())


def _sharedLabelmap(labels: np.ndarray, written: Sequence[Label], volumeNode, box: Box):
    """One image with the voxels of these labels, on the volume's very grid."""
    shape = tuple(part.stop - part.start for part in box)
    if labels.shape != shape:  # VTK would read beyond the end of the array
        raise ValueError(f"labels of the shape {labels.shape} do not fill a box of {shape}")
    kept = np.zeros(max(int(labels.max(initial=0)), len(written)) + 1, labels.dtype)
    for label in written:
        if label.value < len(kept):
            kept[label.value] = label.value
    z, y, x = box
    image = slicer.vtkOrientedImageData()
    image.SetExtent(x.start, x.stop - 1, y.start, y.stop - 1, z.start, z.stop - 1)
    image.GetPointData().SetScalars(numpy_to_vtk(kept[labels].ravel(), deep=True))
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    image.SetImageToWorldMatrix(matrix)
    return image


def _segment(label: Label, image, provenance: Mapping[str, str]):
    segment = slicer.vtkSegment()
    segment.SetName(label.name)
    segment.SetNameAutoGenerated(False)  # else a change of its terminology would rename it
    segment.SetColor(*(channel / 255 for channel in label.color))
    segment.SetColorAutoGenerated(False)
    segment.SetTag(segment.GetTerminologyEntryTagName(), terminology_entry(label.terminology))
    for key, value in {**provenance, "label": label.name}.items():
        segment.SetTag(PREFIX + key, tag_text(value))
    segment.AddRepresentation(_LABELMAP, image)
    segment.SetLabelValue(label.value)
    return segment


def _newNode(volumeNode, segments, written, metadata, provenance):
    scene = slicer.mrmlScene
    name = scene.GenerateUniqueName(f"{volumeNode.GetName()} {metadata.title}")
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    try:
        # First the transform: the reference geometry is given in the coordinates that it leads from.
        node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
        node.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)
        with slicer.util.NodeModify(node):
            _addTo(node, segments, written, metadata, replace=False)
            _setAttributes(node, provenance)
        _placeBeside(node, volumeNode)
    except Exception:
        scene.RemoveNode(node)
        raise
    return node


def _addTo(segmentationNode, segments, written: Sequence[Label], metadata: ModelMetadata, replace: bool) -> None:
    """Add the segments; where ``replace``, each in the place and with the ID of the one it replaces."""
    segmentation = segmentationNode.GetSegmentation()
    for label, segment in zip(written, segments, strict=True):
        old = [one for one in segmentation.GetSegmentIDs() if _isOf(segmentation.GetSegment(one), metadata, label)]
        segmentId, following = f"{metadata.name}_{label.value}", ""
        if replace and old:
            segmentId = old[0]
            index = segmentation.GetSegmentIndex(segmentId)
            for one in old:
                segmentation.RemoveSegment(one)  # also wipes its voxels from a layer that it shares
            following = segmentation.GetNthSegmentID(index) if index < segmentation.GetNumberOfSegments() else ""
        elif segmentation.GetSegment(segmentId) is not None:
            segmentId = segmentation.GenerateUniqueSegmentID(segmentId)
        segment.SetName(_uniqueName(segmentation, label.name))
        if not segmentation.AddSegment(segment, segmentId, following):
            raise OutputError(f"The segment '{label.name}' cannot be added to '{segmentationNode.GetName()}'.")


def _isOf(segment, metadata: ModelMetadata, label: Label) -> bool:
    return tagOf(segment, "model") == metadata.name and tagOf(segment, "label") == tag_text(label.name)


def _uniqueName(segmentation, name: str) -> str:
    taken = {segmentation.GetSegment(one).GetName() for one in segmentation.GetSegmentIDs()}
    candidates = (name, *(f"{name} ({number})" for number in range(2, len(taken) + 2)))
    return next(one for one in candidates if one not in taken)


def _setAttributes(node, provenance: Mapping[str, str]) -> None:
    for key, value in provenance.items():
        node.SetAttribute(PREFIX + key, tag_text(value))


def _placeBeside(node, volumeNode) -> None:
    """Into the folder, patient or study of the volume."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    volumeItem = hierarchy.GetItemByDataNode(volumeNode)
    parent = hierarchy.GetItemParent(volumeItem) if volumeItem else hierarchy.GetSceneItemID()
    item = hierarchy.GetItemByDataNode(node)
    if item:
        hierarchy.SetItemParent(item, parent)
    else:
        hierarchy.CreateItem(parent, node)
