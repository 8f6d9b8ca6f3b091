"""Prepared segments into the scene. What fails half way can be taken back, so that the scene is as it was."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack

import slicer
import vtk
from usema.errors import OutputError
from usema.volumes.segments import LEARNED_KEYS, PREFIX

from ..Steps import NextTurn, Working
from .EditMask import tagOf
from .Hierarchy import createDisplay, placeBeside
from .Images import isFlat
from .ResultArrays import Prepared, Written
from .SegmentVoxels import LABELMAP, arrayOf, imageOf
from .VolumeBridge import referenceVolume

_SURFACE = "Closed surface"


def commit(prepared: Prepared, undo: ExitStack):
    """Write what was prepared. Every label becomes a segment, an empty one where nothing was found.

    Args:
        undo: takes it back when it is closed; to be emptied once all is well.

    Returns:
        (the segmentation node, a last step that cannot be taken back and cannot fail).

    Raises:
        OutputError: a segment cannot be added.
    """
    node = prepared.target if prepared.target is not None else _newNode(prepared, undo)
    segmentation = node.GetSegmentation()
    if not segmentation.GetNumberOfSegments():
        geometry = slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()
        undo.callback(segmentation.SetConversionParameter, geometry, segmentation.GetConversionParameter(geometry))
        node.SetReferenceImageGeometryParameterFromVolumeNode(prepared.volume)
    elif referenceVolume(node) is None:  # a copy, or from a file: on the volume's grid, else it would not be the target
        role = node.GetReferenceImageGeometryReferenceRole()
        undo.callback(node.SetNodeReferenceID, role, node.GetNodeReferenceID(role))
        node.SetNodeReferenceID(role, prepared.volume.GetID())
    with slicer.util.NodeModify(node):
        last = [_write(node, one, prepared.images[one.layer], undo) for one in prepared.written]
        setAttributes(node, prepared.provenance, undo)
    createDisplay(node, undo)
    return node, lambda: [step() for step in last]


def hasSurfaces(node) -> bool:
    """Whether its segments have surfaces."""
    return node is not None and node.GetSegmentation().ContainsRepresentation(_SURFACE)


def surfacing(node, prepared: Prepared, had: bool, show3D: bool) -> Working:
    """Makes the surfaces of what has other voxels than before, a segment at each turn. Until then it has the one that
    it had, or an empty one, because all segments have to have the same kinds of representation.

    Args:
        had: there were surfaces before, which shall be of what was written; 3D Slicer may have removed them all since.
        show3D: make them in any case, and show them; a single slice has none.
    """
    segmentation, shown = node.GetSegmentation(), show3D and not isFlat(prepared.volume)
    if not had and not shown:
        return
    stale = [one.look.id for one in prepared.written if one.differs or not _hasSurface(segmentation, one.look.id)]
    if not hasSurfaces(node):
        stale = list(segmentation.GetSegmentIDs())
        for name in stale:
            segmentation.GetSegment(name).AddRepresentation(_SURFACE, vtk.vtkPolyData())
    for name in stale:
        yield NextTurn()
        if hasSurfaces(node) and segmentation.GetSegment(name) is not None:  # the user may edit in between
            _makeSurface(segmentation, name)
    segmentation.InvokeEvent(segmentation.ContainedRepresentationNamesModified)
    if shown:
        node.GetDisplayNode().SetVisibility3D(True)


def _hasSurface(segmentation, name: str) -> bool:
    """Whether a segment has one that is not empty, as one is that was still to be made."""
    surface = segmentation.GetSegment(name).GetRepresentation(_SURFACE)
    return surface is not None and surface.GetNumberOfPoints() > 0


def _makeSurface(segmentation, name: str) -> None:
    """As `CreateRepresentation` does it, of one segment."""
    paths = slicer.vtkSegmentationConversionPaths()
    segmentation.GetPossibleConversions(_SURFACE, paths)
    path = slicer.vtkSegmentationConverter.GetCheapestPath(paths)
    for number in range(path.GetNumberOfRules()):
        rule = path.GetRule(number)
        rule.PreConvert(segmentation)
        rule.Convert(segmentation.GetSegment(name))
        rule.PostConvert(segmentation)
    segmentation.InvokeEvent(segmentation.RepresentationModified, name)


def fill(node, prepared: Prepared) -> None:
    """Write what was prepared into an empty segmentation that is in no scene, as a frame of a sequence.

    Raises:
        OutputError: a segment cannot be added.
    """
    segmentation, image = node.GetSegmentation(), slicer.vtkOrientedImageData()
    matrix = vtk.vtkMatrix4x4()
    prepared.volume.GetIJKToRASMatrix(matrix)
    image.SetImageToWorldMatrix(matrix)
    image.SetExtent(prepared.volume.GetImageData().GetExtent())
    segmentation.SetConversionParameter(
        slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName(),
        slicer.vtkSegmentationConverter.SerializeImageGeometry(image),
    )
    with ExitStack() as undo:
        for one in prepared.written:
            _write(node, one, prepared.images[one.layer], undo)
        setAttributes(node, prepared.provenance, undo)
        undo.pop_all()


def _newNode(prepared: Prepared, undo: ExitStack):
    scene, volume = slicer.mrmlScene, prepared.volume
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", _nameFor(volume, prepared.metadata.title))
    undo.callback(scene.RemoveNode, node)
    # Before the reference geometry, which is given in the coordinates that the transform leads from.
    node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    placeBeside(node, volume)
    return node


def _nameFor(volumeNode, title: str) -> str:
    """Volume and model, short enough for a selector; where a node has that name already, the time tells them apart."""
    scene = slicer.mrmlScene
    name = f"{volumeNode.GetName()} {re.split(r' *[,(]', title)[0]}"
    for one in (name, *(f"{name} {time.strftime(clock)}" for clock in ("%H:%M", "%H:%M:%S"))):
        if scene.GetFirstNodeByName(one) is None:
            return one
    return scene.GenerateUniqueName(name)


def _write(node, one: Written, image, undo: ExitStack) -> Callable[[], None]:
    """Write a segment; returns the last step for it."""
    segmentation, look = node.GetSegmentation(), one.look
    if one.replaces:
        return _exchange(segmentation, one, image, undo)
    segment = slicer.vtkSegment()
    segment.SetName(_uniqueName(segmentation, look.name))
    segment.SetNameAutoGenerated(False)  # else a change of its terminology would rename it
    segment.SetColor(*look.color)
    segment.SetColorAutoGenerated(False)
    for key, text in look.tags.items():
        segment.SetTag(key, text)
    segment.AddRepresentation(LABELMAP, image)
    if hasSurfaces(node):
        segment.AddRepresentation(_SURFACE, vtk.vtkPolyData())  # else it would be made here, before all else is done
    segment.SetLabelValue(one.label.value)
    if not segmentation.AddSegment(segment, look.id):
        raise OutputError(f"The segment '{look.name}' cannot be added to '{node.GetName()}'.")
    undo.callback(segmentation.RemoveSegment, look.id)
    return lambda: None


def _exchange(segmentation, one: Written, image, undo: ExitStack) -> Callable[[], None]:
    """Other voxels and tags for a segment; its ID, name, colour, codes and place stay: they are the user's. So does its
    status, but for what was completed, if its voxels differ: see `reopen`.

    Returns:
        a step that takes its former voxels out of an image that it shared with segments which stay.
    """
    segment = segmentation.GetSegment(one.look.id)
    before, value = segment.GetRepresentation(LABELMAP), segment.GetLabelValue()
    texts = {key: text for key, text in one.look.tags.items() if key.startswith(PREFIX)}
    undo.callback(_hold, segment, before, value, {key: tagOf(segment, key.removeprefix(PREFIX)) for key in texts})
    _hold(segment, image, one.label.value, texts)
    if one.differs:
        reopen(segment, undo)

    def wipe():
        others = (segmentation.GetSegment(other) for other in segmentation.GetSegmentIDs())
        if before is not None and any(imageOf(other) is before for other in others):
            for plane in arrayOf(before):
                plane[plane == value] = 0
            before.GetPointData().GetScalars().Modified()
            before.Modified()

    return wipe


def reopen(segment, undo: ExitStack) -> None:
    """A model has changed its voxels: nobody has completed these. A flag stays, because it asks that somebody looks."""
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    if logic.GetSegmentStatus(segment) == logic.Completed:
        undo.callback(logic.SetSegmentStatus, segment, logic.Completed)
        logic.SetSegmentStatus(segment, logic.InProgress)


def _hold(segment, image, labelValue: int, tags: Mapping[str, str]) -> None:
    if image is None:
        segment.RemoveRepresentation(LABELMAP)
    else:
        segment.AddRepresentation(LABELMAP, image)
    segment.SetLabelValue(labelValue)
    for key, text in tags.items():
        segment.SetTag(key, text)


def _uniqueName(segmentation, name: str) -> str:
    taken = {segmentation.GetSegment(one).GetName() for one in segmentation.GetSegmentIDs()}
    candidates = (name, *(f"{name} ({number})" for number in range(2, len(taken) + 2)))
    return next(one for one in candidates if one not in taken)


def setAttributes(node, provenance: Mapping[str, str], undo: ExitStack) -> None:
    """What the segments tell of their making; where they differ, all of it."""
    segmentation = node.GetSegmentation()
    segments = [segmentation.GetSegment(one) for one in segmentation.GetSegmentIDs()]
    names = [name for name in node.GetAttributeNames() or () if name.startswith(PREFIX)]
    for key in dict.fromkeys([*(PREFIX + key for key in provenance), *names]):
        texts = dict.fromkeys(filter(None, (tagOf(segment, key.removeprefix(PREFIX)) for segment in segments)))
        if texts or key.removeprefix(PREFIX) in LEARNED_KEYS:
            undo.callback(node.SetAttribute, key, node.GetAttribute(key))
            node.SetAttribute(key, "; ".join(texts) or None)
