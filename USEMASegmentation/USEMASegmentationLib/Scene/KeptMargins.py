"""The margins of results in the scene: in text nodes that nobody sees, which are saved with it.

The margins of a run belong to the voxels that it wrote. So each run has a name, the segments tell it in a tag, and undo
and redo, which bring tags back together with voxels, lead to the margins that fit, as long as they are there.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from weakref import WeakValueDictionary

import slicer
from usema.models.metadata import ModelMetadata
from usema.volumes.margins import Margins
from usema.volumes.masks import Box, common_box
from usema.volumes.segments import PREFIX, RUN_KEY

from .EditMask import tagOf
from .Hierarchy import addHidden
from .Sequences import framesIn
from .VolumeBridge import referenceVolume, shapeOf

ROLE = "USEMA.margins"  # under which a segmentation refers to them
LEARNED_ROLE = "USEMA.delta"  # and to what a model learned, see `KeptDelta`: the same runs tell of it
_READ: WeakValueDictionary[tuple, Margins] = WeakValueDictionary()
_LABELS, _BOX, _FRAME, _OF = (f"{PREFIX}{name}" for name in ("labels", "box", "frame", "volume"))


def newRun() -> str:
    """The name of a run."""
    return uuid.uuid4().hex[:12]


def commit(
    run: str,
    text: str,
    labels: Mapping[int, str],
    box: Box,
    segmentationNode,
    volumeNode,
    undo: ExitStack,
    frame: str = "",
) -> None:
    """Put the margins of a run into the scene; the segmentation refers to them. Closing ``undo`` takes them back.

    Args:
        text: ``Margins.to_text`` of the box.
        labels: names by value.
        box: which voxels of the volume they are of.
        volumeNode: what was segmented; the segmentation itself refers to the one that it was first made of.
        frame: which frame of a sequence the volume showed, as `Sequences.frameValueOf` tells it.
    """
    node = addHidden(slicer.vtkMRMLTextNode(), f"{segmentationNode.GetName()} margins")
    undo.callback(slicer.mrmlScene.RemoveNode, node)
    node.SetAttribute(PREFIX + RUN_KEY, run)
    node.SetAttribute(_LABELS, json.dumps(labels))
    node.SetAttribute(_BOX, json.dumps([[part.start, part.stop] for part in box]))
    node.SetAttribute(_OF, volumeNode.GetName())
    node.SetNodeReferenceID(_OF, volumeNode.GetID())
    if frame:
        node.SetAttribute(_FRAME, frame)
    node.SetText(text)
    segmentationNode.AddNodeReferenceID(ROLE, node.GetID())


def namesOf(metadata: ModelMetadata) -> dict[int, str]:
    """The labels of a model, by value."""
    return {label.value: label.name for label in metadata.labels}


def runsOf(segmentationNode) -> set[str]:
    """The runs that the segments tell of."""
    segmentation = segmentationNode.GetSegmentation()
    tags = (tagOf(segmentation.GetSegment(one), RUN_KEY) for one in segmentation.GetSegmentIDs())
    return {run for tag in tags for run in tag.split()}


def forget(segmentationNode, runs: set[str]) -> None:
    """Remove the margins of all runs but these: undo does not lead that far. And those whose segmentation is gone.

    What a copy of the segmentation tells of stays, and what its other frames do, if it shows those of a sequence.
    """
    others = [node for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode") if node is not segmentationNode]
    told = runs.union(*map(runsOf, others), *map(runsOf, framesIn("vtkMRMLSegmentationNode")))
    held, own = set().union(*map(_referred, others)), _referred(segmentationNode)
    for node in slicer.util.getNodesByClass("vtkMRMLTextNode"):
        run = node.GetAttribute(PREFIX + RUN_KEY)
        if run is not None and run not in told and (node.GetID() in own or node.GetID() not in held):
            slicer.mrmlScene.RemoveNode(node)


def labelsOf(segmentationNode, tag: str) -> dict[int, str]:
    """The names of the labels, by value, that the margins of a segment with this tag are of; none: they are gone."""
    nodes = nodesByRun(segmentationNode)
    if not tag or any(run not in nodes for run in tag.split()):
        return {}
    return {int(value): name for value, name in json.loads(nodes[tag.split()[0]].GetAttribute(_LABELS)).items()}


def frameOf(segmentationNode, tag: str) -> str:
    """Which frame of a sequence a segment with this tag is of; empty: the volume showed none."""
    node = nodesByRun(segmentationNode).get((tag.split() or [""])[-1])
    return (node.GetAttribute(_FRAME) or "") if node is not None else ""


def volumeOf(segmentationNode, tag: str = ""):
    """The volume that a segment with this tag was made of; that of the segmentation where only it knows.

    Raises:
        ValueError: it is not in the scene.
    """
    first = referenceVolume(segmentationNode)
    if first is None or first.GetImageData() is None:
        raise ValueError(
            "no volume in the scene belongs to it, as to copies and to what was loaded from a file: segment again"
        )
    node = nodesByRun(segmentationNode).get((tag.split() or [""])[0])
    if node is None or node.GetAttribute(_OF) is None:  # an older USEMA did not say
        return first
    volume = node.GetNodeReference(_OF)
    if volume is None or volume.GetImageData() is None:
        raise ValueError(f"'{node.GetAttribute(_OF)}', which it was made of, is not in the scene any more")
    return volume


def keptRuns(segmentationNode) -> set[str]:
    """The runs whose margins it still refers to."""
    return set(nodesByRun(segmentationNode))


def boxOf(segmentationNode, tag: str) -> Box:
    """The voxels of the volume that a segment with this tag is of: those of its first run."""
    return _boxOf(nodesByRun(segmentationNode)[tag.split()[-1]])


def liesIn(segmentationNode, tag: str, box: Box) -> bool:
    """Whether all margins that a segment with this tag has are of voxels in the box."""
    nodes = nodesByRun(segmentationNode)
    return all(common_box(one, box) == one for one in (_boxOf(nodes[run]) for run in tag.split()))


def read(segmentationNode, tag: str, volumeNode) -> Margins:
    """The margins that a segment with this tag has, on the volume's grid.

    Raises:
        ValueError: they are gone or damaged, or of another grid.
    """
    nodes, margins = nodesByRun(segmentationNode), None
    for run in reversed(tag.split()):
        if run not in nodes:
            raise ValueError("how sure the model was is not in the scene any more")
        box = _boxOf(nodes[run])
        if any(part.stop > length for part, length in zip(box, shapeOf(volumeNode), strict=True)):
            raise ValueError("the volume has other voxels than when it was segmented")
        newer = _marginsIn(nodes[run], [part.start for part in box], shapeOf(volumeNode))
        margins = newer if margins is None else margins.under(newer, box)
    if margins is None:
        raise ValueError("how sure the model was has not been kept")
    return margins


def _marginsIn(node, start: list[int], shape: tuple[int, int, int]) -> Margins:
    """Taking a long text out of the scene takes a moment: as long as somebody holds what was read, that is given."""
    key = (node.GetID(), node.GetMTime(), *start, *shape)
    margins = _READ.get(key)
    if margins is None:
        margins = _READ[key] = Margins.from_text(node.GetText() or "", start, shape)
    return margins


def nodesByRun(segmentationNode, role: str = ROLE) -> dict:
    """The text nodes that the segmentation refers to under a role, by run."""
    number = segmentationNode.GetNumberOfNodeReferences(role)
    nodes = (segmentationNode.GetNthNodeReference(role, n) for n in range(number))
    return {node.GetAttribute(PREFIX + RUN_KEY): node for node in nodes if node is not None}


def _referred(segmentationNode) -> set[str]:
    """IDs of all that is kept for it."""
    found = set()
    for role in (ROLE, LEARNED_ROLE):
        number = segmentationNode.GetNumberOfNodeReferences(role)
        found |= {segmentationNode.GetNthNodeReferenceID(role, n) for n in range(number)}
    return found


def _boxOf(node) -> Box:
    return tuple(slice(*ends) for ends in json.loads(node.GetAttribute(_BOX)))
