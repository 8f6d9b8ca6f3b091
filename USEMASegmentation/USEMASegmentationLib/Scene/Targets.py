"""Whether a result may be written into a segmentation that is there."""

from __future__ import annotations

import numpy as np
import slicer
from usema.volumes.masks import box_around, common_box

from .Hierarchy import patientOf
from .SegmentVoxels import LABELMAP, affineOf, boxOf, imageOf, offsetBetween
from .VolumeBridge import ijkToRas, wholeBox


def whyNotInto(segmentationNode, volumeNode) -> str:
    """Why nothing can be written into this segmentation for the volume; empty: it can."""
    name, segmentation = segmentationNode.GetName(), segmentationNode.GetSegmentation()
    # Adding to a segmentation of surfaces would turn the labels into surfaces and drop the voxels.
    if segmentation.GetNumberOfSegments() and segmentation.GetSourceRepresentationName() != LABELMAP:
        return f"The segmentation '{name}' is stored as '{segmentation.GetSourceRepresentationName()}', not as voxels."
    if segmentationNode.GetTransformNodeID() != volumeNode.GetTransformNodeID():
        return f"The segmentation '{name}' does not lie under the same transform as '{volumeNode.GetName()}'."
    return ""


def whyElsewhere(segmentationNode, volumeNode) -> str:
    """Why a result is better kept in a segmentation of its own than in this one; empty: it is not."""
    name, volume = segmentationNode.GetName(), volumeNode.GetName()
    patients = [patientOf(node) for node in (segmentationNode, volumeNode)]
    if all(patients) and patients[0] != patients[1]:
        return f"The segmentation '{name}' is of another patient than the volume '{volume}'."
    affine = ijkToRas(volumeNode)
    grids = _grids(segmentationNode)
    offsets = [offsetBetween(other, affine) for other, _ in grids]
    if None in offsets:
        # A file has one grid for all segments: saving would resample those that lie on another.
        return f"The segmentation '{name}' lies on another grid than the volume '{volume}'."
    if grids:
        boxes = [
            tuple(slice(part.start + by, part.stop + by) for part, by in zip(box, offset[::-1], strict=True))
            for (_, box), offset in zip(grids, offsets, strict=True)
        ]
        if common_box(box_around(*boxes), wholeBox(volumeNode)) is None:
            return f"The segmentation '{name}' lies outside the volume '{volume}'."
    return ""


def _grids(segmentationNode) -> list[tuple[np.ndarray, tuple[slice, slice, slice]]]:
    """(index to RAS, indices) of the images of its segments, and of its own geometry; none if it has no segments."""
    segmentation, grids = segmentationNode.GetSegmentation(), []
    if not segmentation.GetNumberOfSegments():
        return []
    images = (imageOf(segmentation.GetSegment(one)) for one in segmentation.GetSegmentIDs())
    for image in {id(one): one for one in images if one is not None}.values():
        grids.append((affineOf(image), boxOf(image)))
    name = slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()
    text = segmentation.GetConversionParameter(name)
    image = slicer.vtkOrientedImageData()
    if text and slicer.vtkSegmentationConverter.DeserializeImageGeometry(text, image, False):
        grids.append((affineOf(image), boxOf(image)))
    return grids
