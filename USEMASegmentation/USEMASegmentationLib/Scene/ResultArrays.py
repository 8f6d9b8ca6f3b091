"""What a result becomes before anything is written: voxels and looks of each segment. All that takes memory is here.

What the user corrected stays, unless it shall not: within the voxels that were segmented, the model's labels take the
place of what it wrote before; outside of them, and where the user changed one of its segments, all of its segments stay
as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from usema.models.metadata import Label, ModelMetadata
from usema.volumes.masks import (
    NOTHING,
    PlacedMask,
    box_around,
    common_box,
    label_boxes,
    label_mask,
    mask_to_text,
    relative,
)
from usema.volumes.segments import (
    LEARNED_KEYS,
    PREFIX,
    REFINED_KEY,
    RUN_KEY,
    THRESHOLD_KEY,
    WRITTEN_KEY,
    SegmentLook,
    segment_id,
    segment_look,
)

from .EditMask import Edits, editsOn, ownSegments, tagOf, union, withoutEdits
from .SegmentVoxels import SegmentVoxels, newImage
from .VolumeBridge import Box, ijkToRas, wholeBox


@dataclass(frozen=True, eq=False)
class Written:
    """A label as it will be written; ``image`` holds its voxels with the label's value, beside those of others."""

    label: Label
    look: SegmentLook
    image: Any
    replaces: bool = False  # there is a segment of this ID: it gets other voxels and tags


@dataclass(eq=False)
class Prepared:
    """A result ready to be written.

    Attributes:
        volume: what was segmented.
        target: the segmentation to write into; None: a new one.
        keptVoxels: how many voxels that the user changed stay as they are.
        warnings: what could not be done as it was asked for.
    """

    volume: Any
    metadata: ModelMetadata
    provenance: Mapping[str, str]
    target: Any = None
    written: list[Written] = field(default_factory=list)
    keptVoxels: int = 0
    warnings: list[str] = field(default_factory=list)


def prepare(
    labels: np.ndarray,
    volumeNode,
    metadata: ModelMetadata,
    provenance: Mapping[str, str],
    *,
    box: Box | None = None,
    labelNames: Sequence[str] = (),
    target=None,
    existing: str = "new",
    overwriteCorrections: bool = False,
    run: str = "",
) -> Prepared:
    """Make the voxels and the looks of each segment; the scene stays as it is.

    Args:
        labels: integers (z, y, x), the values of ``metadata.result_labels`` and 0, on the voxels of ``box``.
        volumeNode: the volume that was segmented; gives geometry, transform, name and place.
        provenance: how the result was made. Kept in attributes of the node, which survive in ``.mrb``, and in tags of
            each segment, which survive in ``.seg.nrrd``, each under its name with "USEMA." before it.
        box: which voxels of the volume; None: all. Outside of it, segments that are replaced stay as they are.
        labelNames: write these labels only; empty: all.
        target: the segmentation to write into, on the volume's grid, unless ``existing`` is "new".
        existing: see ``Parameters``, as ``overwriteCorrections``.
        run: the name under which the margins of this result are kept; empty: they are not.

    Raises:
        ValueError: ``labels`` does not have the shape of the box, or no integers.
    """
    box = box or wholeBox(volumeNode)
    if labels.shape != tuple(part.stop - part.start for part in box) or labels.dtype.kind not in "iu":
        raise ValueError(f"labels of the shape {labels.shape} and the type {labels.dtype} do not fill a box of {box}")
    prepared = Prepared(volumeNode, metadata, provenance, None if existing == "new" else target)
    chosen = [label for label in metadata.result_labels if not labelNames or label.name in labelNames]
    replaces = prepared.target is not None and existing == "replace"
    own, edits = _former(prepared, chosen, overwriteCorrections) if replaces else ({}, {})
    kept = NOTHING
    if not overwriteCorrections:
        kept = union([one.changed for one in edits.values()], box)
        prepared.keptVoxels = union([edits[one.value].changed for one in chosen if one.value in edits], box).count
    taken = set(prepared.target.GetSegmentation().GetSegmentIDs()) if prepared.target is not None else set()
    start, affine = tuple(part.start for part in box[::-1]), ijkToRas(volumeNode)
    boxes, layers = label_boxes(labels, start), _Layers(labels.dtype, [box, *(one.box for one in edits.values())])
    for label in chosen:
        found = label_mask(labels, label.value, boxes, start)
        former = edits.get(label.value, Edits(NOTHING, NOTHING)) if replaces else None
        now, model = (found, found) if former is None else _merged(found, former, box, kept)
        name = own.get(label.value) or _freeId(segment_id(metadata.name, label.value), taken)
        taken.add(name)
        look = segment_look(label, provenance, name)
        look.tags[PREFIX + WRITTEN_KEY] = mask_to_text(model, affine)
        if label.value in own and box == wholeBox(volumeNode):
            look.tags.update({PREFIX + key: "" for key in LEARNED_KEYS if key not in provenance})
        look.tags.update(_reviewTags(run, prepared, own.get(label.value), box))
        prepared.written.append(Written(label, look, layers.add(now, label.value), label.value in own))
    images = [newImage(array, layers.box, affine) for array in layers.arrays]
    prepared.written = [replace(one, image=images[one.image]) for one in prepared.written]
    return prepared


def _reviewTags(run: str, prepared: Prepared, former: str | None, box: Box) -> dict[str, str]:
    """Whose margins a segment has from now on; of one that is replaced in a part, the earlier ones in the rest."""
    if former is None:
        return {PREFIX + RUN_KEY: run} if run else {}
    if box == wholeBox(prepared.volume):
        return {PREFIX + RUN_KEY: run, PREFIX + THRESHOLD_KEY: "", PREFIX + REFINED_KEY: ""}
    before = tagOf(prepared.target.GetSegmentation().GetSegment(former), RUN_KEY)
    return {PREFIX + RUN_KEY: f"{run} {before}" if run and before else ""}


def _former(prepared: Prepared, chosen: Sequence[Label], overwrite: bool) -> tuple[dict[int, str], dict[int, Edits]]:
    """By the label's value: IDs of the segments to be replaced, and the edits of all segments of this model."""
    segmentation, volume = prepared.target.GetSegmentation(), prepared.volume
    own, edits, voxels = ownSegments(prepared.target, prepared.metadata), {}, SegmentVoxels()
    for value, name in list(own.items()):
        segment = segmentation.GetSegment(name)
        found = editsOn(segment, volume, voxels)
        if found is not None:
            edits[value] = found
        elif overwrite:
            edits[value] = withoutEdits(segment, volume)
        else:
            del own[value]
            if any(label.value == value for label in chosen):
                prepared.warnings.append(
                    f"What was corrected in '{segment.GetName()}' cannot be told, because an older USEMA made it: it "
                    "was kept, and the result stands beside it."
                )
    return own, edits


def _merged(found: PlacedMask, former: Edits, box: Box, kept: PlacedMask) -> tuple[PlacedMask, PlacedMask]:
    """(voxels, what counts as written by the model): both as before outside the box and where something is kept.

    As written by the model, so that what the user corrected once counts as corrected after the next result too.
    """
    around = box_around(found.box, former.box)
    stays = np.ones([part.stop - part.start for part in around], bool)
    inner = common_box(around, box)
    if inner is not None:
        stays[relative(inner, around)] = kept.on(inner)
    start, new = tuple(part.start for part in around[::-1]), found.on(around)
    before = (former.now.on(around), former.written.on(around))
    now, written = (PlacedMask(np.where(stays, one, new), start) for one in before)
    return now, written


class _Layers:
    """Arrays that hold several masks each, as far as they do not overlap: the user may have let them."""

    def __init__(self, dtype, boxes: Iterable[Box]):
        self.box = box_around(*boxes)
        self.arrays: list[np.ndarray] = []
        self._dtype = dtype

    def add(self, mask: PlacedMask, value: int) -> int:
        """Which of ``arrays`` holds it now."""
        place = relative(mask.box, self.box) if mask.array.size else None
        free = (n for n, one in enumerate(self.arrays) if place is None or not one[place][mask.array].any())
        index = next(free, len(self.arrays))
        if index == len(self.arrays):
            shape = [part.stop - part.start for part in self.box]
            self.arrays.append(np.zeros(shape, np.promote_types(self._dtype, np.min_scalar_type(value))))
        if place is not None:
            self.arrays[index][place][mask.array] = value
        return index


def _freeId(name: str, taken: set[str]) -> str:
    candidates = (name, *(f"{name}_{number}" for number in range(1, len(taken) + 2)))
    return next(one for one in candidates if one not in taken)
