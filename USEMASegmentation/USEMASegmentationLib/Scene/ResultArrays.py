"""What a result becomes before anything is written: voxels and looks of each segment. All that takes memory is here.

What the user corrected stays, unless it shall not: within the voxels that were segmented, the model's labels take the
place of what it wrote before; outside of them, and where the user changed one of its segments, all of its segments stay
as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
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

from .EditMask import Edits, Held, ownSegments, tagOf, union
from .SegmentVoxels import SegmentVoxels, newImage
from .VolumeBridge import Box, ijkToRas, wholeBox


@dataclass(frozen=True, eq=False)
class Written:
    """A label as it will be written."""

    label: Label
    look: SegmentLook
    layer: int  # which of the images holds its voxels, with the label's value, beside those of others
    replaces: bool = False  # there is a segment of this ID: it gets other voxels and tags
    differs: bool = True  # its voxels are not those of before


@dataclass(eq=False)
class Prepared:
    """A result ready to be written.

    Attributes:
        volume: what was segmented.
        target: the segmentation to write into; None: a new one.
        layers: (z, y, x) on the voxels of ``layersBox``; they become the images of the segments.
        affine: (4, 4) from voxel index (i, j, k) to the volume's own RAS coordinates.
        keptVoxels: how many voxels that the user changed stay as they are.
        warnings: what could not be done as it was asked for.
    """

    volume: Any
    metadata: ModelMetadata
    provenance: Mapping[str, str]
    target: Any = None
    written: list[Written] = field(default_factory=list)
    layers: list[np.ndarray] = field(default_factory=list)
    layersBox: Box = (slice(0, 0),) * 3
    affine: np.ndarray | None = None
    keptVoxels: int = 0
    warnings: list[str] = field(default_factory=list)

    @cached_property
    def images(self) -> list:
        """The layers as images, which hold the arrays themselves."""
        return [newImage(array, self.layersBox, self.affine) for array in self.layers]


@dataclass(frozen=True, eq=False)
class Gathered:
    """All of the scene that `compute` needs, taken out of it.

    Attributes:
        chosen: the labels to be written.
        own: the model's segments that are replaced: value of the label -> what it holds.
        ids, names, runs: of these segments, by the value of the label; ``runs`` are the tags that tell of margins.
        voxels: what the segments' images hold.
        taken: IDs of all segments of the target.
    """

    volume: Any
    target: Any
    metadata: ModelMetadata
    provenance: Mapping[str, str]
    box: Box
    isWhole: bool
    affine: np.ndarray
    chosen: list[Label]
    replaces: bool
    overwrite: bool
    run: str
    own: dict[int, Held]
    ids: dict[int, str]
    names: dict[int, str]
    runs: dict[int, str]
    voxels: SegmentVoxels
    taken: set[str]


def gather(
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
) -> Gathered:
    """What of the scene a result depends on. Looks at no voxels.

    Args:
        volumeNode: the volume that was segmented; gives geometry, transform, name and place.
        provenance: how the result was made. Kept in attributes of the node, which survive in ``.mrb``, and in tags of
            each segment, which survive in ``.seg.nrrd``, each under its name with "USEMA." before it.
        box: which voxels of the volume; None: all. Outside of it, segments that are replaced stay as they are.
        labelNames: write these labels only; empty: all.
        target: the segmentation to write into, on the volume's grid, unless ``existing`` is "new".
        existing: see ``Parameters``, as ``overwriteCorrections``.
        run: the name under which the margins of this result are kept; empty: they are not.
    """
    target = None if existing == "new" else target
    replaces = target is not None and existing == "replace"
    ids = ownSegments(target, metadata) if replaces else {}
    voxels, segmentation = SegmentVoxels(), None if target is None else target.GetSegmentation()
    segments = {value: segmentation.GetSegment(name) for value, name in ids.items()}
    return Gathered(
        volumeNode,
        target,
        metadata,
        provenance,
        box or wholeBox(volumeNode),
        box is None or box == wholeBox(volumeNode),
        ijkToRas(volumeNode),
        [label for label in metadata.result_labels if not labelNames or label.name in labelNames],
        replaces,
        overwriteCorrections,
        run,
        own={value: Held.by(segment, voxels) for value, segment in segments.items()},
        ids=ids,
        names={value: segment.GetName() for value, segment in segments.items()},
        runs={value: tagOf(segment, RUN_KEY) for value, segment in segments.items()},
        voxels=voxels,
        taken=set() if segmentation is None else set(segmentation.GetSegmentIDs()),
    )


def compute(labels: np.ndarray, scene: Gathered) -> Prepared:
    """Makes the voxels and the looks of each segment; touches nothing of the scene but to name it in what is returned.

    Args:
        labels: integers (z, y, x), the values of ``metadata.result_labels`` and 0, on the voxels of the box.

    Raises:
        ValueError: ``labels`` does not have the shape of the box, or no integers.
    """
    box = scene.box
    if labels.shape != tuple(part.stop - part.start for part in box) or labels.dtype.kind not in "iu":
        raise ValueError(f"labels of the shape {labels.shape} and the type {labels.dtype} do not fill a box of {box}")
    prepared = Prepared(scene.volume, scene.metadata, scene.provenance, scene.target, affine=scene.affine)
    own, edits = _former(prepared, scene)
    kept = NOTHING
    if edits and not scene.overwrite:
        kept = union([one.changed for one in edits.values()], box)
        wanted = [edits[one.value].changed for one in scene.chosen if one.value in edits]
        prepared.keptVoxels = union(wanted, box).count
        kept = kept if kept.count else NOTHING
    start, taken = tuple(part.start for part in box[::-1]), set(scene.taken)
    boxes = label_boxes(labels, start)
    found = {label.value: label_mask(labels, label.value, boxes, start) for label in scene.chosen}
    layers = _Layers(labels.dtype, [*(one.box for one in found.values()), *(one.box for one in edits.values())], box)
    for label in scene.chosen:
        now = model = found.pop(label.value)
        former = edits.get(label.value, Edits(NOTHING, NOTHING))
        if edits:
            now, model = _merged(now, former, box, kept)
        name = own.get(label.value) or _freeId(segment_id(scene.metadata.name, label.value), taken)
        taken.add(name)
        look = segment_look(label, scene.provenance, name)
        look.tags[PREFIX + WRITTEN_KEY] = mask_to_text(model, scene.affine)
        if label.value in own and scene.isWhole:
            look.tags.update({PREFIX + key: "" for key in LEARNED_KEYS if key not in scene.provenance})
        look.tags.update(_reviewTags(scene, label.value if label.value in own else None))
        layer, replaces = layers.add(now, label.value), label.value in own
        prepared.written.append(Written(label, look, layer, replaces, not replaces or _differ(now, former.now)))
    prepared.layers, prepared.layersBox = layers.arrays, layers.box
    return prepared


def _differ(one: PlacedMask, other: PlacedMask) -> bool:
    """Whether not the same voxels are set."""
    if one.count != other.count:
        return True
    around = box_around(one.box, other.box)
    return bool((one.on(around) != other.on(around)).any())


def _reviewTags(scene: Gathered, former: int | None) -> dict[str, str]:
    """Whose margins a segment has from now on; of one that is replaced in a part, the earlier ones in the rest."""
    run = scene.run
    if former is None:
        return {PREFIX + RUN_KEY: run} if run else {}
    if scene.isWhole:
        return {PREFIX + RUN_KEY: run, PREFIX + THRESHOLD_KEY: "", PREFIX + REFINED_KEY: ""}
    before = scene.runs[former]
    return {PREFIX + RUN_KEY: f"{run} {before}" if run and before else ""}


def _former(prepared: Prepared, scene: Gathered) -> tuple[dict[int, str], dict[int, Edits]]:
    """By the label's value: IDs of the segments to be replaced, and the edits of all segments of this model."""
    own, edits = dict(scene.ids), {}
    for value, held in scene.own.items():
        found = held.editsOn(scene.affine, scene.voxels)
        if found is not None:
            edits[value] = found
        elif scene.overwrite:
            edits[value] = held.withoutEdits(scene.affine, scene.voxels)
        else:
            del own[value]
            if any(label.value == value for label in scene.chosen):
                prepared.warnings.append(
                    f"What was corrected in '{scene.names[value]}' cannot be told, because an older USEMA made it: it "
                    "was kept, and the result stands beside it."
                )
    return own, edits


def _merged(found: PlacedMask, former: Edits, box: Box, kept: PlacedMask) -> tuple[PlacedMask, PlacedMask]:
    """(voxels, what counts as written by the model): both as before outside the box and where something is kept.

    As written by the model, so that what the user corrected once counts as corrected after the next result too.
    """
    around = box_around(found.box, former.box)
    if kept is NOTHING and box_around(around, box) == box:
        return found, found
    stays = np.ones([part.stop - part.start for part in around], bool)
    inner = common_box(around, box)
    if inner is not None:
        stays[relative(inner, around)] = kept.on(inner)
    start, new = tuple(part.start for part in around[::-1]), found.on(around)
    before = (former.now.on(around), former.written.on(around))
    now, written = (PlacedMask(np.where(stays, one, new), start) for one in before)
    return now, written


class _Layers:
    """Arrays that hold several masks each, as far as they do not overlap: the user may have let them.

    Args:
        boxes: where the masks lie.
        otherwise: where there is a voxel for masks that are all empty.
    """

    def __init__(self, dtype, boxes: Iterable[Box], otherwise: Box):
        around = box_around(*boxes)
        self.box = around if around[0].stop > around[0].start else tuple(slice(p.start, p.start + 1) for p in otherwise)
        self.arrays: list[np.ndarray] = []
        self._dtype = dtype

    def add(self, mask: PlacedMask, value: int) -> int:
        """Which of ``arrays`` holds it now."""
        place = relative(mask.box, self.box) if mask.array.size else None
        free = (n for n, one in enumerate(self.arrays) if place is None or not (one[place] * mask.array).any())
        index = next(free, len(self.arrays))
        if index == len(self.arrays):
            shape = [part.stop - part.start for part in self.box]
            self.arrays.append(np.zeros(shape, np.promote_types(self._dtype, np.min_scalar_type(value))))
        if place is not None:
            np.copyto(self.arrays[index][place], value, where=mask.array, casting="unsafe")
        return index


def _freeId(name: str, taken: set[str]) -> str:
    candidates = (name, *(f"{name}_{number}" for number in range(1, len(taken) + 2)))
    return next(one for one in candidates if one not in taken)
