"""The door between segments and arrays: which voxels a segment has, and images for new ones.

Arrays are (z, y, x), boxes three slices in that order. Several segments may share one image, each with a value of its
own.
"""

from __future__ import annotations

import numpy as np
import slicer
import vtk
from usema.volumes.masks import NOTHING, PlacedMask, label_boxes, label_mask
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

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


class SegmentVoxels:
    """Where segments are, in the indices of their images. Looks through each image once, however many share it."""

    def __init__(self):
        self._boxes: dict[int, tuple] = {}  # id of an image -> image, so that the id stays its own, and boxes of values

    def of(self, segment) -> PlacedMask:
        """The segment's voxels, without margins."""
        image = imageOf(segment)
        if image is None:
            return NOTHING
        array, start = arrayOf(image), image.GetExtent()[::2]
        if array.dtype.kind not in "iu" or array.dtype.itemsize > 2:  # as other programs and scripts leave them
            return PlacedMask(array == segment.GetLabelValue(), start).trimmed()
        if id(image) not in self._boxes:
            self._boxes[id(image)] = (image, label_boxes(array, start))
        return label_mask(array, segment.GetLabelValue(), self._boxes[id(image)][1], start)


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
    """An image of these voxels at this place."""
    if array.shape != tuple(part.stop - part.start for part in box):  # VTK would read beyond the end of the array
        raise ValueError(f"labels of the shape {array.shape} do not fill a box of {box}")
    z, y, x = box
    image = slicer.vtkOrientedImageData()
    image.SetExtent(x.start, x.stop - 1, y.start, y.stop - 1, z.start, z.stop - 1)
    image.GetPointData().SetScalars(numpy_to_vtk(array.ravel(), deep=True))
    image.SetImageToWorldMatrix(slicer.util.vtkMatrixFromArray(affine))
    return image
