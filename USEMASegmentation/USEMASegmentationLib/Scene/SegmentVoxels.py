"""The door between segments and arrays: which voxels a segment has, and images for new ones.

Arrays are (z, y, x), boxes three slices in that order. Several segments may share one image, each with a value of its
own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import slicer
import vtk
from usema.volumes.masks import NOTHING, PlacedMask, label_boxes, label_mask
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from ..Steps import Working, copying
from .VolumeBridge import Box

LABELMAP = "Binary labelmap"
_SAME_AXES = 1e-4  # of a voxel per voxel
_WHOLE_VOXELS = 0.05


def imageOf(segment):
    """The image that the segment's voxels lie in; None: it has none."""
    image = segment.GetRepresentation(LABELMAP)
    return image if image is not None and image.GetNumberOfPoints() else None


def arrayOf(image) -> np.ndarray:
    """The image's own voxels, not a copy."""
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])


def affineOf(image) -> np.ndarray:
    """(4, 4) from voxel index (i, j, k) to the segmentation's RAS coordinates."""
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def boxOf(image) -> Box:
    """The indices that the image covers."""
    x0, x1, y0, y1, z0, z1 = image.GetExtent()
    return slice(z0, z1 + 1), slice(y0, y1 + 1), slice(x0, x1 + 1)


@dataclass(eq=False)
class LabelMap:
    """What an image of segments holds.

    Attributes:
        array: (z, y, x), the image's own voxels, or after `SegmentVoxels.copying` a copy.
        start: index (i, j, k) of the first one.
        affine: (4, 4) from voxel index (i, j, k) to the segmentation's RAS coordinates.
    """

    array: np.ndarray
    start: tuple[int, int, int]
    affine: np.ndarray

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres along x, y, z."""
        return tuple(float(one) for one in np.linalg.norm(self.affine[:3, :3], axis=0))


class SegmentVoxels:
    """Where segments are, in the indices of their images. Looks through each image once, however many share it."""

    def __init__(self):
        self._maps: dict[int, tuple] = {}  # id of an image -> image, so that the id stays its own, and label map
        self._boxes: dict[int, dict] = {}  # id of a label map -> boxes of values

    def of(self, segment) -> PlacedMask:
        """The segment's voxels, without margins."""
        return self.where(self.mapOf(segment), segment.GetLabelValue())

    def mapOf(self, segment) -> LabelMap | None:
        """What the segment's image holds, one for all that share it; None: it has none."""
        image = imageOf(segment)
        if image is None:
            return None
        if id(image) not in self._maps:
            self._maps[id(image)] = image, LabelMap(arrayOf(image), image.GetExtent()[::2], affineOf(image))
        return self._maps[id(image)][1]

    def where(self, labels: LabelMap | None, value: int) -> PlacedMask:
        """The voxels of a value, without margins; touches nothing of the scene."""
        if labels is None:
            return NOTHING
        array, start = labels.array, labels.start
        if array.dtype.kind not in "iu" or array.dtype.itemsize > 2:  # as other programs and scripts leave them
            return PlacedMask(array == value, start).trimmed()
        if id(labels) not in self._boxes:
            self._boxes[id(labels)] = label_boxes(array, start)
        return label_mask(array, value, self._boxes[id(labels)], start)

    def copying(self) -> Working:
        """Makes copies of all that was asked for by `mapOf`, so that another thread may look at it."""
        for _, labels in self._maps.values():
            copy = np.empty_like(labels.array)
            yield from copying(labels.array, copy)
            labels.array = copy
        self._maps = {number: (None, labels) for number, (_, labels) in self._maps.items()}

    @property
    def size(self) -> int:
        """How many voxels all that was asked for has."""
        return sum(labels.array.size for _, labels in self._maps.values())


def offsetBetween(affine: np.ndarray, other: np.ndarray) -> tuple[int, int, int] | None:
    """What to add to an index (i, j, k) on one grid to get the same place's on the other.

    Returns:
        None if the voxels of the two do not lie on each other, or one of the two is no grid.
    """
    if not np.isfinite(affine).all() or not np.isfinite(other).all() or not np.linalg.det(other):
        return None
    between = np.linalg.inv(other) @ affine
    shift = between[:3, 3]
    if np.abs(between[:3, :3] - np.eye(3)).max() > _SAME_AXES or np.abs(shift - shift.round()).max() > _WHOLE_VOXELS:
        return None
    return tuple(int(one) for one in shift.round())


def newImage(array: np.ndarray, box: Box, affine: np.ndarray):
    """An image of these voxels at this place. It holds the array itself, which is its own from now on."""
    if array.shape != tuple(part.stop - part.start for part in box):  # VTK would read beyond the end of the array
        raise ValueError(f"labels of the shape {array.shape} do not fill a box of {box}")
    z, y, x = box
    image = slicer.vtkOrientedImageData()
    image.SetExtent(x.start, x.stop - 1, y.start, y.stop - 1, z.start, z.stop - 1)
    image.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(array).reshape(-1)))
    image.SetImageToWorldMatrix(slicer.util.vtkMatrixFromArray(affine))
    return image
