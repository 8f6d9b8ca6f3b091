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

from .Images import isFlat
from .SegmentVoxels import SegmentVoxels, affineOf, imageOf, offsetBetween
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
        return self._where(np.not_equal)

    @cached_property
    def added(self) -> PlacedMask:
        return self._where(np.greater)

    @cached_property
    def removed(self) -> PlacedMask:
        return self._where(np.less)

    def shifted(self, offset: tuple[int, int, int]) -> Edits:
        return Edits(self.now.shifted(offset), self.written.shifted(offset))

    def _where(self, compare) -> PlacedMask:
        box = self.box
        return PlacedMask(compare(self.now.on(box), self.written.on(box)), tuple(part.start for part in box[::-1]))


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


def editsOf(segment, voxels: SegmentVoxels | None = None) -> Edits | None:
    """What the user changed in a segment that a model wrote, in the indices of its image; None: it does not tell."""
    try:
        written, affine = text_to_mask(tagOf(segment, WRITTEN_KEY))
    except ValueError:
        return None
    image = imageOf(segment)
    # A transform that was hardened moves the grid and leaves the indices.
    offset = (0, 0, 0) if image is None else offsetBetween(affine, affineOf(image)) or (0, 0, 0)
    return Edits((voxels or SegmentVoxels()).of(segment), written.shifted(offset))


def editsOn(segment, volumeNode, voxels: SegmentVoxels | None = None) -> Edits | None:
    """As `editsOf`, but in the indices of the volume's voxels; None also where the grids do not fit."""
    edits, image = editsOf(segment, voxels), imageOf(segment)
    if edits is None:
        return None
    # Where nothing is left of it, it can only lie where it was written.
    affine = text_to_mask(tagOf(segment, WRITTEN_KEY))[1] if image is None else affineOf(image)
    offset = offsetBetween(affine, ijkToRas(volumeNode))
    return None if offset is None else edits.shifted(offset)


def withoutEdits(segment, volumeNode) -> Edits:
    """Of a segment that does not tell: as if the user had changed nothing."""
    image, now = imageOf(segment), SegmentVoxels().of(segment)
    offset = None if image is None else offsetBetween(affineOf(image), ijkToRas(volumeNode))
    now = NOTHING if offset is None else now.shifted(offset)
    return Edits(now, now)


def corrections(
    segmentationNode, metadata: ModelMetadata, volumeNode, box: Box, labelNames: Sequence[str] = ()
) -> Corrections:
    """What the user changed in the segments that a result of this model would replace.

    Args:
        box: the voxels of the volume that are segmented.
        labelNames: these labels only; empty: all.
    """
    own, segmentation = ownSegments(segmentationNode, metadata), segmentationNode.GetSegmentation()
    changed, unknown, voxels = [], [], SegmentVoxels()
    for label in metadata.labels:
        if label.value not in own or (labelNames and label.name not in labelNames):
            continue
        segment = segmentation.GetSegment(own[label.value])
        edits = editsOn(segment, volumeNode, voxels)
        if edits is None:
            unknown.append(segment.GetName())
        else:
            changed.append(edits.changed)
    count = union(changed, box).count
    volume = None if isFlat(volumeNode) else millilitres(count, volumeNode.GetSpacing())
    return Corrections(count, volume, unknown)


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
