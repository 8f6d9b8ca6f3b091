"""A corrected segmentation as a case of a training set: volumes, and the model's label values on their grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import slicer
from usema.errors import InputError
from usema.models.label_names import same
from usema.models.metadata import ModelMetadata
from usema.volumes.segments import LABEL_KEY, tag_text
from usema.volumes.volume import Volume

from .EditMask import tagOf
from .SegmentVoxels import SegmentVoxels, affineOf, imageOf, offsetBetween
from .Targets import whyNotInto
from .VolumeBridge import ijkToRas, shapeOf, wholeBox, worldGeometries


def volumesOf(volumeNodes: Sequence) -> list[Volume]:
    """The voxels and the grids of volumes; the arrays are the scene's own."""
    geometries = worldGeometries(volumeNodes)
    return [
        Volume(slicer.util.arrayFromVolume(node), geometry)
        for node, geometry in zip(volumeNodes, geometries, strict=True)
    ]


def labelsOf(segmentationNode, volumeNode, metadata: ModelMetadata) -> np.ndarray:
    """The model's label values (z, y, x) on the volume's voxels, of segments as they are now.

    A segment is known by what the model called it, whatever the user calls it now, else by its name.

    Raises:
        InputError: a segment is none of the model's, a label has none or two, two overlap, or one lies on another grid
            or beyond the volume; or they are no voxels, or do not move with the volume.
    """
    if problem := whyNotInto(segmentationNode, volumeNode):
        raise InputError(
            problem,
            "Its source has to be Binary labelmap (see the module Segmentations), and it has to lie under the volume's "
            "transform (see Transforms).",
        )
    segmentation, known = segmentationNode.GetSegmentation(), {same(label.name): label for label in metadata.labels}
    labels, found, voxels = np.zeros(shapeOf(volumeNode), np.uint16), {}, SegmentVoxels()
    for one in segmentation.GetSegmentIDs():
        segment = segmentation.GetSegment(one)
        name, own = segment.GetName(), tagOf(segment, "model") == tag_text(metadata.name)
        label = known.get(same(tagOf(segment, LABEL_KEY) if own else name)) or known.get(same(name))
        if label is None:
            raise InputError(
                f"The segment '{name}' is none of the model's: {', '.join(one.name for one in metadata.labels)}.",
                "Rename it to one of these, or delete it from this segmentation.",
            )
        if label.value in found:
            raise InputError(
                f"The segments '{found[label.value]}' and '{name}' are both '{label.name}'.", "Delete one of the two."
            )
        found[label.value] = name
        _add(labels, segment, label.value, volumeNode, voxels, found)
    _refuseIncomplete(found, metadata)
    return labels


def _add(labels: np.ndarray, segment, value: int, volumeNode, voxels: SegmentVoxels, found: dict[int, str]) -> None:
    image, name = imageOf(segment), segment.GetName()
    if image is None:
        return
    offset = offsetBetween(affineOf(image), ijkToRas(volumeNode))
    mask = voxels.of(segment)
    if offset is None:
        raise InputError(
            f"The segment '{name}' does not lie on the voxels of '{volumeNode.GetName()}'.",
            "Choose the volume that it was drawn on.",
        )
    mask = mask.shifted(offset)
    inside = mask.on(wholeBox(volumeNode))
    if int(inside.sum()) < mask.count:
        raise InputError(
            f"The segment '{name}' reaches beyond the volume '{volumeNode.GetName()}'.",
            "Choose the volume that it was drawn on.",
        )
    taken = labels[inside]
    if taken.any():
        other = found[int(taken[taken > 0][0])]
        raise InputError(
            f"The segments '{other}' and '{name}' overlap in {int((taken > 0).sum())} voxels.",
            "Give each voxel to one of them: in the Segment Editor's masking, overwrite all segments.",
        )
    labels[inside] = value


def _refuseIncomplete(found: dict[int, str], metadata: ModelMetadata) -> None:
    """Every label of the network, or of each region that is there, needs a segment, even an empty one."""
    regions = [] if metadata.find_regions is None else [one["labels"] for one in metadata.find_regions["regions"]]
    own = [label.value for label in metadata.labels if label.value not in metadata.region_values]
    groups = [group for group in (own, *regions) if set(group) & found.keys()] or [own]
    names = {label.value: label.name for label in metadata.labels}
    missing = [names[value] for group in groups for value in group if value not in found]
    if missing:
        raise InputError(
            f"The segmentation has no segment '{missing[0]}'.",
            "Add it, empty if there is none of it in this volume: the network would learn that it is background.",
        )
