"""What the segments of an image measure as they are now, as tables in the scene."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import slicer
from usema.measure import KNOWN, Measurement, Scale, measure
from usema.measure.objects import object_columns, object_rows
from usema.measure.values import MEASURED_KEY, SPLIT_KEY
from usema.volumes.segments import ID_KEY, LABEL_KEY

from . import Objects
from .EditMask import tagOf
from .Images import isPixelSizeKnown, pixelOf
from .SegmentVoxels import imageOf
from .Tables import addTable
from .VolumeBridge import shapeOf


def measureImage(segmentationNode, volumeNode) -> tuple[list, list[str]]:
    """New tables: what each segment and each model's result measures, and of a model that splits what it finds into
    objects, each object.

    Args:
        volumeNode: of one slice, on whose grid the segments lie.

    Returns:
        the table nodes, and sentences on what the numbers are not.
    """
    name, scale = segmentationNode.GetName(), _scale(volumeNode)
    masks, rows, doubts = list(_masks(segmentationNode, volumeNode)), [], []
    for _, segment, mask in masks:
        rows += [(segment.GetName(), one) for one in _ofMask(mask, scale)]
    split = []
    for run in dict.fromkeys(_run(one, segment) for one, segment, _ in masks):
        own = [(segment, mask) for one, segment, mask in masks if _run(one, segment) == run]
        measurements, words, objects = _ofRun(run, own, segmentationNode, volumeNode, scale)
        rows += [(", ".join(segment.GetName() for segment, _ in own), one) for one in measurements]
        doubts += words
        if objects is not None:
            split.append(objects)
    columns = {
        "Segment": [title for title, _ in rows],
        "Measurement": [one.name for _, one in rows],
        "Value": [float(one.value) for _, one in rows],
        "Unit": [one.unit for _, one in rows],
    }
    if not scale.known:
        doubts.append("The size of a pixel is not known, so lengths and areas are in pixels.")
    return [addTable(f"{name} measurements", columns), *(_objectTable(name, one, scale) for one in split)], doubts


def _scale(volumeNode) -> Scale:
    return Scale(*pixelOf(volumeNode), True) if isPixelSizeKnown(volumeNode) else Scale()


def _ofMask(mask: np.ndarray, scale: Scale) -> list[Measurement]:
    pixels = int(np.count_nonzero(mask))
    return [
        Measurement("Area", pixels * scale.x * scale.y, scale.area),
        Measurement("Share of the image", 100 * pixels / mask.size, "%"),
    ]


def _ofRun(run: tuple[str, ...], segments: list[tuple], segmentationNode, volumeNode, scale: Scale):
    """What a model measures of its segments, what speaks against it, and the objects (1, y, x) or None."""
    _model, names, split = run
    shape, objects, doubts = shapeOf(volumeNode), None, []
    labels = np.zeros(shape, np.uint16)
    for segment, mask in segments:
        labels[mask] = _value(segment)
        if split and tagOf(segment, LABEL_KEY) == split:
            if Objects.of(segmentationNode, volumeNode) is None:
                doubts.append("What touches was told apart by its shape alone.")
            objects = Objects.brought(mask, segmentationNode, volumeNode)
    labels, objects = (None if one is None else one.take(0, shape.index(1))[None] for one in (labels, objects))
    found, words = measure([name for name in names.split() if name in KNOWN], labels, objects, scale)
    return found[0], [*doubts, *words], objects


def _masks(segmentationNode, volumeNode) -> Iterator[tuple]:
    """The ID of each segment, the segment, and its mask on the volume's grid."""
    segmentation = segmentationNode.GetSegmentation()
    for one in segmentation.GetSegmentIDs():
        segment, mask = segmentation.GetSegment(one), np.zeros(shapeOf(volumeNode), bool)
        if imageOf(segment) is not None:
            mask[...] = slicer.util.arrayFromSegmentBinaryLabelmap(segmentationNode, one, volumeNode)
        yield one, segment, mask


def _run(segmentId: str, segment) -> tuple[str, str, str]:
    """Which segments are measured together: the model, what it measured, what it split; nothing of a user's copy."""
    own = tagOf(segment, ID_KEY) == segmentId
    return tuple(tagOf(segment, key) if own else "" for key in ("model", MEASURED_KEY, SPLIT_KEY))


def _value(segment) -> int:
    """The label's value in the model; of a segment that no model wrote, 1."""
    number = tagOf(segment, ID_KEY).rpartition("_")[2]
    return int(number) if number.isdigit() else 1


def _objectTable(name: str, objects: np.ndarray, scale: Scale):
    header = [title for title in object_columns(scale) if title != "frame"]
    rows = list(object_rows(objects, scale))
    return addTable(f"{name} objects table", {title: [row[title] for row in rows] for title in header})
