"""A result in the scene, to be reviewed: the port of `Review` on segments, text nodes and the user's masks."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
import slicer
import vtk
from usema.errors import InputError
from usema.volumes.margins import Margins
from usema.volumes.masks import (
    Box,
    PlacedMask,
    common_box,
    mask_to_text,
    relative,
    text_to_grid,
    text_to_mask,
)
from usema.volumes.segments import (
    ID_KEY,
    LABEL_KEY,
    PREFIX,
    REFINED_KEY,
    RUN_KEY,
    THRESHOLD_KEY,
    WRITTEN_KEY,
    tag_text,
)

from ..Review.Port import Change, Notes
from ..Steps import Working, atOnce, beside, inSlabs, isSmall
from . import KeptMargins, SegmentationWriter
from .BesideVolume import liesOn
from .EditMask import Edits, tagOf, timesOf
from .Images import isFlat
from .KeptDelta import KeptDelta
from .KeptDelta import commit as commitDelta
from .KeptDelta import of as deltaOf
from .KnownEdits import KnownEdits
from .SegmentChange import SegmentChange
from .SegmentVoxels import LABELMAP, SegmentVoxels, arrayOf, newImage, offsetBetween
from .Sequences import frameValueOf
from .VolumeBridge import ijkToRas, referenceVolume

_STATE = f"{PREFIX}review"


class ReviewCase:
    """The segments of a segmentation that tell of the same run. A port, see `Review.Port`.

    Args:
        segmentationNode: has them.
        tag: what they tell.
        saveForUndo: called with the segmentation right before it is changed; False: its state could not be saved.
        editorNode: whose masks count; None: there are none.
        known: what is known of the segments' edits; None: nothing.

    Raises:
        ValueError: the margins of this run, or the volume, are gone.
    """

    def __init__(
        self,
        segmentationNode,
        tag: str,
        saveForUndo: Callable[[Any], Any] | None = None,
        editorNode: Any = None,
        known: KnownEdits | None = None,
    ):
        self.node, self.tag, self.volume = segmentationNode, tag, KeptMargins.volumeOf(segmentationNode, tag)
        if (kind := segmentationNode.GetSegmentation().GetSourceRepresentationName()) != LABELMAP:
            raise ValueError(f"it is stored as '{kind}', not as voxels")
        self.margins: Margins = KeptMargins.read(segmentationNode, tag, self.volume)
        if (frame := KeptMargins.frameOf(segmentationNode, tag)) not in ("", frameValueOf(self.volume)):
            raise ValueError(f"it is of the frame {frame}, and the volume shows another one")
        self.spacing = self.volume.GetSpacing()[::-1]
        self._saveForUndo, self._editorNode = saveForUndo, editorNode
        self._known = KnownEdits() if known is None else known
        self._ids = _segmentsOf(segmentationNode, tag)
        if any(_isElsewhere(self._segment(value), self.volume) for value in self._ids):
            raise ValueError("the volume has other voxels than when it was segmented")
        if set(self.edits()) != set(self._ids):
            raise ValueError("its segments lie on another grid than the volume")

    def again(self) -> ReviewCase:
        """The same result as it is now.

        Raises:
            ValueError: as for a new one.
        """
        return ReviewCase(self.node, self.tag, self._saveForUndo, self._editorNode, self._known)

    @property
    def names(self) -> dict[int, str]:
        return {value: self._segment(value).GetName() for value in self._ids if value in self.margins.of}

    @property
    def box(self) -> Box:
        """The voxels that were segmented."""
        return KeptMargins.boxOf(self.node, self.tag)

    @property
    def delta(self) -> KeptDelta | None:
        """What the model learned for it; None: nothing."""
        return deltaOf(self.node, self.tag)

    def provenance(self, key: str) -> str:
        """What its segments tell of how they were made."""
        return next((text for value in self._ids if (text := tagOf(self._segment(value), key))), "")

    def segmentId(self, value: int) -> str:
        """The ID of a label's segment."""
        return self._ids[value]

    def color(self, value: int) -> tuple[float, float, float]:
        """Of a label's segment."""
        return self._segment(value).GetColor()

    @property
    def thresholds(self) -> dict[int, int]:
        tags = {value: tagOf(self._segment(value), THRESHOLD_KEY) for value in self._ids}
        return {value: int(tag) for value, tag in tags.items() if tag.lstrip("-").isdigit()}

    @property
    def overlaps(self) -> bool:
        mode = slicer.vtkMRMLSegmentEditorNode.OverwriteNone
        return self._editorNode is not None and self._editorNode.GetOverwriteMode() == mode

    def image(self, box: Box) -> np.ndarray:
        return slicer.util.arrayFromVolume(self.volume)[box]

    def edits(self) -> dict[int, Edits]:
        found = self._known.of(self.node, self._ids.values(), self.volume)
        return {value: found[name] for value, name in self._ids.items() if found[name] is not None}

    def refined(self) -> dict[int, PlacedMask]:
        found = {}
        for value in self._ids:
            try:
                mask, affine = text_to_mask(tagOf(self._segment(value), REFINED_KEY))
            except ValueError:
                continue
            found[value] = mask.shifted(offsetBetween(affine, ijkToRas(self.volume)) or (0, 0, 0))
        return found

    def others(self, box: Box) -> np.ndarray:
        return atOnce(self.lookingAtOthers(box))

    def lookingAtOthers(self, box: Box) -> Working:
        found, voxels, held = np.zeros([part.stop - part.start for part in box], bool), SegmentVoxels(), []
        segmentation = self.node.GetSegmentation()
        for one in set(segmentation.GetSegmentIDs()) - set(self._ids.values()):
            segment = segmentation.GetSegment(one)
            labels = voxels.mapOf(segment)
            offset = None if labels is None else offsetBetween(labels.affine, ijkToRas(self.volume))
            if offset is not None:
                held.append((labels, segment.GetLabelValue(), offset))
        size = voxels.size
        if held and not isSmall(size):
            yield from voxels.copying()

        def look() -> np.ndarray:
            for labels, value, offset in held:
                mask = voxels.where(labels, value).shifted(offset)
                inner = common_box(mask.box, box)
                if inner is not None:
                    found[relative(inner, box)] |= mask.array[relative(inner, mask.box)]
            return found

        return (yield from beside(look, size))

    def editable(self, value: int, box: Box) -> np.ndarray | None:
        return atOnce(self.lookingWhereEditable(value, box))

    def lookingWhereEditable(self, value: int, box: Box) -> Working:
        node = self._editorNode
        everywhere = slicer.vtkMRMLSegmentationNode.EditAllowedEverywhere
        if node is None or (node.GetMaskMode() == everywhere and not node.GetSourceVolumeIntensityMask()):
            return None
        allowed = np.ones([part.stop - part.start for part in box], bool)
        if not allowed.size:
            return allowed
        if node.GetMaskMode() != everywhere:
            grid = newImage(np.zeros(allowed.shape, np.uint8), box, ijkToRas(self.volume))
            mask = slicer.vtkOrientedImageData()
            # Slicer's own rule; 1 is where nothing may be edited
            self.node.GenerateEditMask(mask, node.GetMaskMode(), grid, self._ids[value], node.GetMaskSegmentID() or "")
            outside = arrayOf(mask)
            yield from inSlabs(allowed.shape, lambda part: np.equal(outside[part], 0, out=allowed[part]))
        if node.GetSourceVolumeIntensityMask():
            yield from self._withinRange(allowed, box)
        return allowed

    def moment(self) -> tuple:
        times = timesOf(self.node, self.node.GetSegmentation().GetSegmentIDs())
        masks = 0 if self._editorNode is None else self._editorNode.GetMTime()
        image = self.volume.GetImageData()
        voxels = 0 if image is None else image.GetMTime()
        return times, masks, voxels, self.volume.GetMTime(), json.dumps(self.state)

    def yields(self, value: int) -> bool:
        node, kinds = self._editorNode, slicer.vtkMRMLSegmentEditorNode
        mode = kinds.OverwriteAllSegments if node is None else node.GetOverwriteMode()
        if mode == kinds.OverwriteVisibleSegments and self.node.GetDisplayNode() is not None:
            return bool(self.node.GetDisplayNode().GetSegmentVisibility(self._ids[value]))
        return mode != kinds.OverwriteNone

    def mark(self, marks: Mapping[int, str]) -> None:
        logic = slicer.vtkSlicerSegmentationsModuleLogic
        for value, mark in marks.items():
            if value in self.names:
                segment, status = self._segment(value), getattr(logic, mark)
                if logic.GetSegmentStatus(segment) != status:  # a changed segment has nothing to be redone
                    logic.SetSegmentStatus(segment, status)

    def write(self, changes: Mapping[int, Change], notes: Notes) -> None:
        atOnce(self.writing(changes, notes, self.moment()))

    def writing(self, changes: Mapping[int, Change], notes: Notes, moment: Hashable) -> Working:
        edits, toRas, voxels = self.edits(), ijkToRas(self.volume), 0
        for value, change in changes.items():
            voxels += sum(one.array.size for one in (edits[value].written, change.added, change.removed))

        def prepare() -> dict[int, SegmentChange]:
            return {value: SegmentChange.of(change, edits[value].written, toRas) for value, change in changes.items()}

        prepared = yield from beside(prepare, voxels)
        if self.moment() != moment:
            return False
        self._write(prepared, notes)
        return True

    def _write(self, changes: Mapping[int, SegmentChange], notes: Notes) -> None:
        if self._saveForUndo is not None and self._saveForUndo(self.node) is False:
            raise InputError(
                f"'{self.node.GetName()}' could not be saved for undo: nothing was changed.",
                "Open it in the section Correct, then do it again.",
            )
        toRas = ijkToRas(self.volume)
        with slicer.util.NodeModify(self.node):
            for value, change in changes.items():
                change.write(change.lost, self.node, self._ids[value], toRas)
            for value, change in changes.items():
                change.write(change.won, self.node, self._ids[value], toRas)
            for value, change in changes.items():
                self._tag(value, WRITTEN_KEY, change.written)
            for value, steps in notes.thresholds.items():
                self._tag(value, THRESHOLD_KEY, str(steps))
            for value, mask in notes.refined.items():
                self._tag(value, REFINED_KEY, mask_to_text(mask, toRas))
            for key, text in notes.provenance.items():
                for value in self._ids:
                    self._tag(value, key, tag_text(text))
            if notes.margins is not None:
                self._keep(notes)
        if notes.provenance:
            SegmentationWriter.setAttributes(self.node, notes.provenance, ExitStack())
            for value in changes:
                SegmentationWriter.reopen(self._segment(value), ExitStack())

    # The list of regions

    @property
    def state(self) -> dict:
        """What the user has said of regions; kept with the segmentation."""
        try:
            states = json.loads(self.node.GetAttribute(_STATE) or "{}")
            return dict(states.get(self.tag.split()[-1], {}))
        except (ValueError, TypeError, AttributeError):
            return {}

    @state.setter
    def state(self, state: dict) -> None:
        try:
            states = dict(json.loads(self.node.GetAttribute(_STATE) or "{}"))
        except (ValueError, TypeError):
            states = {}
        runs = KeptMargins.runsOf(self.node) | KeptMargins.keptRuns(self.node)  # undo leads to these
        states = {run: one for run, one in states.items() if run in runs} | {self.tag.split()[-1]: state}
        self.node.SetAttribute(_STATE, json.dumps(states))

    def worldOf(self, index: tuple[float, float, float]) -> tuple[float, float, float]:
        """RAS millimetres in the world of a voxel (z, y, x), the volume's transforms applied."""
        point = (ijkToRas(self.volume) @ [*index[::-1], 1.0])[:3]
        if self.volume.GetParentTransformNode() is None:
            return tuple(point)
        toWorld = vtk.vtkGeneralTransform()
        slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(self.volume.GetParentTransformNode(), None, toWorld)
        return tuple(toWorld.TransformPoint(point))

    def middleOf(self, axis: int, index: int) -> tuple[int, ...]:
        """Index (z, y, x) of the middle of a slice of what was segmented."""
        return tuple(index if one == axis else (part.start + part.stop) // 2 for one, part in enumerate(self.box))

    @property
    def directions(self) -> np.ndarray:
        """(3, 3): the columns are the directions of i, j, k in RAS."""
        matrix = ijkToRas(self.volume)[:3, :3]
        return matrix / np.linalg.norm(matrix, axis=0)

    # Steps

    def _segment(self, value: int):
        return self.node.GetSegmentation().GetSegment(self._ids[value])

    def _tag(self, value: int, key: str, text: str) -> None:
        self._segment(value).SetTag(PREFIX + key, text)

    def _keep(self, notes: Notes) -> None:
        """Margins over those that were kept, under a run of their own, or in place of them if they are of all."""
        run, before, box = KeptMargins.newRun(), KeptMargins.runsOf(self.node), notes.box
        labels, frame = KeptMargins.labelsOf(self.node, self.tag), frameValueOf(self.volume)
        text = notes.margins.pasted([-part.start for part in box], [part.stop - part.start for part in box]).to_text()
        KeptMargins.commit(run, text, labels, box, self.node, self.volume, ExitStack(), frame)
        anew = notes.delta is not None and KeptMargins.liesIn(self.node, self.tag, box)
        if notes.delta:
            delta = KeptDelta(notes.delta, self.provenance("weightsSha256"), notes.provenance.get("adaptedFrom", ""))
            commitDelta(run, delta, self.node, ExitStack())
        slices = {key: said for key, said in self.state.items() if key == "slices"}
        for value in self._ids:
            self._tag(value, RUN_KEY, run if anew else f"{run} {self.tag}")
        if anew:
            self.tag = run
            self.state = slices
        KeptMargins.forget(self.node, before | {run})

    def _withinRange(self, allowed: np.ndarray, box: Box) -> Working:
        source = self._editorNode.GetSourceVolumeNode()
        if not liesOn(source, self.volume):
            raise InputError(
                "The intensity range that limits editing is of a volume on another grid than the one segmented.",
                "Choose the segmented volume there, or switch the range off, in the section Correct under Masking.",
            )
        low, high = self._editorNode.GetSourceVolumeIntensityMaskRange()
        values = slicer.util.arrayFromVolume(source)[box]

        def limit(part: slice) -> None:
            allowed[part] &= (values[part] >= low) & (values[part] <= high)

        yield from inSlabs(allowed.shape, limit)


def casesOf(
    segmentationNode, saveForUndo=None, editorNode=None, known: KnownEdits | None = None
) -> tuple[list[ReviewCase], str]:
    """The results in a segmentation that can be reviewed, and why others cannot; empty: there are no others.

    Args:
        saveForUndo, editorNode, known: see `ReviewCase`.
    """
    segmentation = segmentationNode.GetSegmentation()
    segments = [segmentation.GetSegment(one) for one in segmentation.GetSegmentIDs()]
    cases, reason = [], ""
    results = {tagOf(segment, RUN_KEY): segment for segment in segments if tagOf(segment, "model")}
    for tag, segment in results.items():
        try:
            case = ReviewCase(segmentationNode, tag, saveForUndo, editorNode, known)
            if case.names:
                cases.append(case)
        except ValueError as error:
            reason = str(error) if tag else _whyNotKept(segment, segmentationNode)
    return cases, reason


def _isElsewhere(segment, volumeNode) -> bool:
    """Whether the volume's voxels are counted from another place than when the segment was written, as after a crop."""
    offset = offsetBetween(text_to_grid(tagOf(segment, WRITTEN_KEY)), ijkToRas(volumeNode))
    return offset not in (None, (0, 0, 0))


def _whyNotKept(segment, segmentationNode) -> str:
    if tagOf(segment, "frame"):
        return "frames that were segmented together keep nothing of how sure the model was: segment this frame alone"
    if isFlat(referenceVolume(segmentationNode)):
        return "models for images keep nothing of how sure they were"
    return (
        "how sure the model was has not been kept, as by an older USEMA, by models of several networks for different "
        "labels, and by scripts that say so"
    )


def _segmentsOf(segmentationNode, tag: str) -> dict[int, str]:
    """IDs of the segments by label; copies that the user made are not among them."""
    segmentation, found = segmentationNode.GetSegmentation(), {}
    values = {tag_text(name): value for value, name in KeptMargins.labelsOf(segmentationNode, tag).items()}
    for one in segmentation.GetSegmentIDs():
        segment = segmentation.GetSegment(one)
        value = values.get(tagOf(segment, LABEL_KEY))
        if value is not None and tagOf(segment, RUN_KEY) == tag and tagOf(segment, ID_KEY) == one:
            found.setdefault(value, one)
    return found
