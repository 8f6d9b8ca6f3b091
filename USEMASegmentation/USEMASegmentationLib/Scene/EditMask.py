"""Which voxels the user changed since the model wrote them.

Each segment that a model wrote carries what it wrote, as text in a tag (`usema.volumes.masks`). What the user changed
is the difference to what the segment holds now. So nothing has to watch the user, and undo, redo, reload,
``.seg.nrrd`` and ``.mrb`` keep it true: they bring back voxels and tags together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import vtk
from usema.models.metadata import ModelMetadata
from usema.volumes.masks import NOTHING, PlacedMask, box_around, common_box, relative, text_to_mask
from usema.volumes.segments import ID_KEY, LABEL_KEY, PREFIX, WRITTEN_KEY, millilitres, segment_id, tag_text

from ..Steps import Working, atOnce, beside, isSmall
from .Images import isFlat
from .SegmentVoxels import LabelMap, SegmentVoxels, imageOf, offsetBetween
from .VolumeBridge import Box, ijkToRas


@dataclass(frozen=True, eq=False)
class Edits:
    """A segment's voxels now and as the model wrote them, in the indices of one grid."""

    now: PlacedMask
    written: PlacedMask

    @cached_property
    def box(self) -> Box:
        """Where one of them may be set."""
        return box_around(self.now.box, self.written.box)

    @cached_property
    def changed(self) -> PlacedMask:
        """What the user added or removed."""
        box = self.box
        found = PlacedMask(self.now.on(box) != self.written.on(box), tuple(part.start for part in box[::-1])).trimmed()
        return PlacedMask(found.array.copy(), found.start)  # often little of much

    @cached_property
    def added(self) -> PlacedMask:
        return self._changedWhere(self.now)

    @cached_property
    def removed(self) -> PlacedMask:
        return self._changedWhere(self.written)

    def shifted(self, offset: tuple[int, int, int]) -> Edits:
        return Edits(self.now.shifted(offset), self.written.shifted(offset))

    def _changedWhere(self, mask: PlacedMask) -> PlacedMask:
        changed = self.changed
        return PlacedMask(changed.array & mask.on(changed.box), changed.start).trimmed()


@dataclass(frozen=True)
class Corrections:
    """What a run would overwrite unless it keeps it.

    Attributes:
        voxels: that the user changed.
        millilitres: their volume; None of a single slice.
        unknown: names of segments that do not tell what the model wrote: made by an older USEMA.
    """

    voxels: int = 0
    millilitres: float | None = 0.0
    unknown: list[str] = field(default_factory=list)


def tagOf(segment, key: str) -> str:
    """What a segment tells about where it comes from, such as "model"; empty: nothing."""
    value = vtk.reference("")
    segment.GetTag(PREFIX + key, value)
    return str(value)


def ownSegments(segmentationNode, metadata: ModelMetadata) -> dict[int, str]:
    """The IDs of the segments that this model wrote, by the value of the label.

    A copy that the user made has another ID than the one that it tells, and is the user's. So is one whose tags the
    user took away. Where a label was written more than once, the first one counts.
    """
    segmentation, model = segmentationNode.GetSegmentation(), tag_text(metadata.name)
    usual = {tag_text(label.name): segment_id(metadata.name, label.value) for label in metadata.labels}
    told: dict[str, list[str]] = {}  # name of a label -> IDs
    for one in segmentation.GetSegmentIDs():
        segment = segmentation.GetSegment(one)
        label = tagOf(segment, LABEL_KEY)
        if tagOf(segment, "model") == model and (tagOf(segment, ID_KEY) or usual.get(label)) == one:
            told.setdefault(label, []).append(one)
    found = {}
    for label in metadata.labels:
        there = told.get(tag_text(label.name), [])
        if there:
            found[label.value] = min(there, key=lambda one: one != usual[tag_text(label.name)])  # else the first
    return found


@dataclass(frozen=True, eq=False)
class Held:
    """What a segment holds, taken out of the scene once; all else touches nothing of the scene.

    Attributes:
        labels: what its image holds; None: it has none.
        value: its own there.
        written: the tag that tells what the model wrote.
    """

    labels: LabelMap | None
    value: int
    written: str

    @classmethod
    def by(cls, segment, voxels: SegmentVoxels) -> Held:
        return cls(voxels.mapOf(segment), segment.GetLabelValue(), tagOf(segment, WRITTEN_KEY))

    def edits(self, voxels: SegmentVoxels) -> Edits | None:
        """What the user changed, in the indices of the image; None: the segment does not tell."""
        try:
            written, affine = text_to_mask(self.written)
        except ValueError:
            return None
        # A transform that was hardened moves the grid and leaves the indices.
        offset = (0, 0, 0) if self.labels is None else offsetBetween(affine, self.labels.affine) or (0, 0, 0)
        return Edits(voxels.where(self.labels, self.value), written.shifted(offset))

    def editsOn(self, toRas: np.ndarray, voxels: SegmentVoxels) -> Edits | None:
        """As `edits`, but in the indices of a volume's voxels; None also where the grids do not fit."""
        edits = self.edits(voxels)
        if edits is None:
            return None
        # Where nothing is left of it, it can only lie where it was written.
        affine = text_to_mask(self.written)[1] if self.labels is None else self.labels.affine
        offset = offsetBetween(affine, toRas)
        return None if offset is None else edits.shifted(offset)

    def withoutEdits(self, toRas: np.ndarray, voxels: SegmentVoxels) -> Edits:
        """Of a segment that does not tell: as if the user had changed nothing."""
        offset = None if self.labels is None else offsetBetween(self.labels.affine, toRas)
        now = NOTHING if offset is None else voxels.where(self.labels, self.value).shifted(offset)
        return Edits(now, now)


def editsOf(segment, voxels: SegmentVoxels | None = None) -> Edits | None:
    """What the user changed in a segment that a model wrote, in the indices of its image; None: it does not tell."""
    voxels = voxels or SegmentVoxels()
    return Held.by(segment, voxels).edits(voxels)


def editsOn(segment, volumeNode, voxels: SegmentVoxels | None = None) -> Edits | None:
    """As `editsOf`, but in the indices of the volume's voxels; None also where the grids do not fit."""
    voxels = voxels or SegmentVoxels()
    return Held.by(segment, voxels).editsOn(ijkToRas(volumeNode), voxels)


def corrections(
    segmentationNode, metadata: ModelMetadata, volumeNode, box: Box, labelNames: Sequence[str] = ()
) -> Corrections:
    """As `counting`, without a pause."""
    return atOnce(counting(segmentationNode, metadata, volumeNode, box, labelNames))


def counting(
    segmentationNode, metadata: ModelMetadata, volumeNode, box: Box, labelNames: Sequence[str] = ()
) -> Working:
    """Counts, a moment at a time, what the user changed in the segments that a result of this model would replace;
    returns `Corrections`.

    Args:
        box: the voxels of the volume that are segmented.
        labelNames: these labels only; empty: all.
    """
    own, segmentation = ownSegments(segmentationNode, metadata), segmentationNode.GetSegmentation()
    voxels, held, toRas = SegmentVoxels(), [], ijkToRas(volumeNode)
    for label in metadata.labels:
        if label.value in own and (not labelNames or label.name in labelNames):
            segment = segmentation.GetSegment(own[label.value])
            held.append((segment.GetName(), Held.by(segment, voxels)))
    size, spacing = voxels.size, None if isFlat(volumeNode) else volumeNode.GetSpacing()
    if not isSmall(size):
        yield from voxels.copying()

    def count() -> Corrections:
        edits = [(name, one.editsOn(toRas, voxels)) for name, one in held]
        changed = union([found.changed for _, found in edits if found is not None], box).count
        volume = None if spacing is None else millilitres(changed, spacing)
        return Corrections(changed, volume, [name for name, found in edits if found is None])

    return (yield from beside(count, size))


def stateOf(segmentationNode, metadata: ModelMetadata) -> tuple:
    """What tells, without looking at voxels, whether the corrections may have changed."""
    own = ownSegments(segmentationNode, metadata).values()
    return metadata.name, *timesOf(segmentationNode, own)


def timesOf(segmentationNode, segmentIds: Iterable[str]) -> tuple:
    """What tells, without looking at voxels, whether these segments may have changed."""
    segmentation, state = segmentationNode.GetSegmentation(), [segmentationNode.GetID()]
    for name in segmentIds:
        segment = segmentation.GetSegment(name)
        image = imageOf(segment)
        state.append((name, segment.GetMTime(), 0 if image is None else image.GetMTime()))
    return tuple(state)


def union(masks: Sequence[PlacedMask], box: Box) -> PlacedMask:
    """What is set in any of them, within the box."""
    inner = [common_box(mask.box, box) for mask in masks]
    around = box_around(*(one for one in inner if one is not None))
    array = np.zeros([part.stop - part.start for part in around], bool)
    for mask, part in zip(masks, inner, strict=True):
        if part is not None:
            array[relative(part, around)] |= mask.array[relative(part, mask.box)]
    return PlacedMask(array, tuple(part.start for part in around[::-1]))
