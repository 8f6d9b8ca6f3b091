"""What a model learned from the corrections of a case: in a text node that nobody sees, which is saved with the scene.

Like margins (`KeptMargins`) it belongs to a run, which the segments tell, so that undo and redo lead to the one that
fits, or to none.
"""

from __future__ import annotations

import base64
import binascii
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import slicer
from usema.errors import OutputError
from usema.models.metadata import ModelMetadata
from usema.volumes.segments import PREFIX, RUN_KEY

from ..Parameters import Parameters
from .EditMask import ownSegments, tagOf
from .Hierarchy import addHidden
from .KeptMargins import LEARNED_ROLE, nodesByRun

FILE = "delta.safetensors"
_WEIGHTS, _SLICES, _USED = (f"{PREFIX}{name}" for name in ("weightsSha256", "adaptedFrom", "used"))


@dataclass(frozen=True)
class KeptDelta:
    """Attributes:
    text: the file's bytes, in base 64.
    weights: SHA-256 of the weights that it belongs to.
    slices: which slices it was learned from, in words.
    used: the next segmentation of the case begins with it. It counts everywhere then, not near these slices alone.
    """

    text: str
    weights: str
    slices: str
    used: bool = False

    def write(self, folder: Path) -> str:
        """Into a file there, for the engine; gives its path.

        Raises:
            OutputError: it is damaged, or cannot be written.
        """
        path = folder / FILE
        try:
            path.write_bytes(base64.b64decode(self.text, validate=True))
        except (binascii.Error, OSError) as error:
            raise OutputError(
                f"What was learned cannot be used: {error}.", "Click Forget under Learn, or learn again."
            ) from error
        return str(path)


def readFile(path: str) -> str:
    """The bytes of a file as text.

    Raises:
        OutputError: it cannot be read.
    """
    try:
        return base64.b64encode(Path(path).read_bytes()).decode()
    except OSError as error:
        raise OutputError(f"What was learned cannot be read: {error.strerror or error}.", "Learn again.") from error


def commit(run: str, delta: KeptDelta, segmentationNode, undo: ExitStack) -> None:
    """Put it into the scene; the segmentation refers to it. Closing ``undo`` takes it back."""
    node = addHidden(slicer.vtkMRMLTextNode(), f"{segmentationNode.GetName()} learned")
    undo.callback(slicer.mrmlScene.RemoveNode, node)
    node.SetAttribute(PREFIX + RUN_KEY, run)
    node.SetAttribute(_WEIGHTS, delta.weights)
    node.SetAttribute(_SLICES, delta.slices)
    node.SetAttribute(_USED, "1" if delta.used else None)
    node.SetText(delta.text)
    segmentationNode.AddNodeReferenceID(LEARNED_ROLE, node.GetID())


def of(segmentationNode, tag: str) -> KeptDelta | None:
    """What was learned for segments with this tag; None: nothing."""
    node = _nodeOf(segmentationNode, tag)
    if node is None:
        return None
    weights, slices, used = (node.GetAttribute(name) or "" for name in (_WEIGHTS, _SLICES, _USED))
    return KeptDelta(node.GetText() or "", weights, slices, bool(used))


def ofNext(parameters: Parameters, metadata: ModelMetadata) -> KeptDelta | None:
    """What a result takes over from the segments that it replaces; None: nothing, or another version learned it."""
    node = parameters.segmentation
    if node is None or parameters.existing != "replace" or parameters.allFrames:
        return None
    segmentation = node.GetSegmentation()
    tags = [tagOf(segmentation.GetSegment(one), RUN_KEY) for one in ownSegments(node, metadata).values()]
    found = next(filter(None, (of(node, tag) for tag in tags)), None)
    return found if found is not None and found.weights == metadata.weights["sha256"] else None


def use(segmentationNode, tag: str, used: bool) -> None:
    """Whether the next segmentation begins with what was learned for segments with this tag."""
    node = _nodeOf(segmentationNode, tag)
    if node is not None:
        node.SetAttribute(_USED, "1" if used else None)


def forget(segmentationNode, tag: str) -> None:
    """Remove what was learned for segments with this tag; their voxels stay."""
    while (node := _nodeOf(segmentationNode, tag)) is not None:
        slicer.mrmlScene.RemoveNode(node)


def _nodeOf(segmentationNode, tag: str):
    byRun = nodesByRun(segmentationNode, LEARNED_ROLE)
    return next((byRun[run] for run in tag.split() if run in byRun), None)
