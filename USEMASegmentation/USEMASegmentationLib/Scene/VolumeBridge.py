"""The door between MRML and the engine: volume nodes as arrays and grids, regions of interest as boxes of voxels.

MRML has RAS coordinates, the engine LPS; this file is the only place that converts. Arrays are (z, y, x), boxes are
three slices in that order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import slicer
import vtk
from usema.errors import InputError
from usema.store.finding import Measures
from usema.volumes.geometry import Geometry

from ..Parameters import Parameters

Box = tuple[slice, slice, slice]

VOLUME_KINDS = ("vtkMRMLScalarVolumeNode", "vtkMRMLVectorVolumeNode")  # the latter are pictures in colour
_LEAST_VOLUME = 1e-4  # of the box that three axes of length 1 span
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def volumeInView():
    """The volume that the views show, else the first one; None without any."""
    nodes = slicer.util.getNodesByClass(VOLUME_KINDS[0])
    volumes = [node for kind in VOLUME_KINDS for node in nodes if node.GetClassName() == kind]  # no label maps
    selection = slicer.app.applicationLogic().GetSelectionNode()
    active = selection.GetActiveVolumeID() if selection else None
    return next((node for node in volumes if node.GetID() == active), volumes[0] if volumes else None)


def referenceVolume(segmentationNode, volumeNode=None):
    """The volume that the segmentation was made of; ``volumeNode`` where it does not know."""
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    volume = segmentationNode.GetNodeReference(role) if segmentationNode is not None else None
    return volumeNode if volume is None else volume


def ijkToRas(volumeNode) -> np.ndarray:
    """(4, 4) matrix from voxel index (i, j, k) to the volume's own RAS coordinates, before its parent transform."""
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def ijkToWorld(volumeNode) -> np.ndarray | None:
    """(4, 4) matrix from voxel index (i, j, k) to the world, parent transforms applied; None where these bend it."""
    transform = _linearTransformToWorld(volumeNode)
    return None if transform is None else transform @ ijkToRas(volumeNode)


def shapeOf(volumeNode) -> tuple[int, int, int]:
    """(z, y, x) of the volume's array."""
    return volumeNode.GetImageData().GetDimensions()[::-1]


def measuresOf(volumeNode) -> Measures | None:
    """What time and memory of a run depend on; None where there is nothing to segment."""
    if volumeNode is None or volumeNode.GetImageData() is None or 0 in shapeOf(volumeNode):
        return None
    return Measures(shapeOf(volumeNode), tuple(volumeNode.GetSpacing()[::-1]))


def wholeBox(volumeNode) -> Box:
    """The box of all voxels."""
    return tuple(slice(0, length) for length in shapeOf(volumeNode))


def worldGeometries(volumeNodes: Sequence, under: Sequence | None = None) -> list[Geometry]:
    """Where volumes lie in the world, their parent transforms applied: orientation and spacing as the model needs them.

    A transform that shears leaves no grid that the engine could work on. Then the first volume gets the perpendicular
    axes nearest to its own, which is close enough for orientation and spacing, and the others keep their place beside
    it. A transform that is not linear bends the grid; the volumes are then taken as they are stored.

    Args:
        under: nodes under whose parent transforms the volumes lie: frames of a sequence have none of their own. None:
            the volumes themselves.

    Raises:
        InputError: volumes under different transforms that are not linear; a spacing or a transform that leaves no
            grid.
    """
    for node in volumeNodes:
        _refuseWithoutGrid(
            ijkToRas(node),
            f"The volume '{node.GetName()}' has no grid: its spacing is {node.GetSpacing()}.",
            "Correct it in the module Volumes, or load the volume again.",
        )
    placed = volumeNodes if under is None else under
    transforms = [_linearTransformToWorld(node) for node in placed]
    if any(transform is None for transform in transforms):
        if len({node.GetTransformNodeID() for node in placed}) > 1:
            raise InputError(
                "The volumes lie under different transforms, one of which is not linear.",
                "Harden the transforms (in the Transforms module), then segment again.",
            )
        transforms = [np.eye(4)] * len(transforms)
    for node, transform in zip(volumeNodes, transforms, strict=True):
        _refuseWithoutGrid(
            transform,
            f"The transform above the volume '{node.GetName()}' leaves no grid: its matrix is "
            f"{transform[:3].tolist()}.",
            "Correct it in the module Transforms.",
        )
    matrices = [transform @ ijkToRas(node) for transform, node in zip(transforms, volumeNodes, strict=True)]
    straight = _straightened(matrices[0])
    correction = straight @ np.linalg.inv(matrices[0])
    straightened = [straight, *(correction @ matrix for matrix in matrices[1:])]
    return [_geometry(matrix, shapeOf(node)) for matrix, node in zip(straightened, volumeNodes, strict=True)]


def cropped(geometry: Geometry, box: Box) -> Geometry:
    """The grid of a box of voxels."""
    start = np.array([part.start for part in box[::-1]])
    size = tuple(part.stop - part.start for part in box[::-1])
    return replace(geometry, size=size, origin=tuple(geometry.affine[:3, :3] @ start + geometry.origin))


def roiBox(roiNode, volumeNode) -> Box:
    """The voxels that a markups ROI touches; of a rotated one, the voxels of the box around it.

    Both nodes' parent transforms are applied, linear or not.

    Raises:
        InputError: the ROI is not placed, or lies outside the volume.
    """
    size = roiNode.GetSize()
    if roiNode.GetNumberOfControlPoints() == 0 or not all(0 < length < math.inf for length in size):
        raise InputError(f"The ROI '{roiNode.GetName()}' has no extent.", "Place it, or choose no ROI.")
    worldToVolume = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(None, volumeNode.GetParentTransformNode(), worldToVolume)
    objectToWorld = slicer.util.arrayFromVTKMatrix(roiNode.GetObjectToWorldMatrix())
    rasToIjk = np.linalg.inv(ijkToRas(volumeNode))
    corners = []
    for signs in np.ndindex(2, 2, 2):
        world = objectToWorld @ np.append((np.array(signs) - 0.5) * size, 1.0)
        corners.append((rasToIjk @ np.append(worldToVolume.TransformPoint(world[:3]), 1.0))[:3])
    if not np.isfinite(corners).all():
        raise InputError(f"The ROI '{roiNode.GetName()}' lies nowhere: {corners[0]}.", "Place it again.")
    # Voxel i reaches from i - 1/2 to i + 1/2. Rounding must not add a voxel to an ROI that ends on its border.
    low = np.floor(np.min(corners, axis=0) + 0.5 + 1e-6).astype(int)
    high = np.ceil(np.max(corners, axis=0) + 0.5 - 1e-6).astype(int)
    low = np.maximum(low[::-1], 0)
    high = np.minimum(high[::-1], shapeOf(volumeNode))
    if (high <= low).any():
        raise InputError(
            f"The ROI '{roiNode.GetName()}' lies outside the volume '{volumeNode.GetName()}'.",
            "Move it onto the anatomy, or choose no ROI.",
        )
    return tuple(slice(int(first), int(last)) for first, last in zip(low, high, strict=True))


def boxOf(parameters: Parameters) -> Box:
    """The voxels of the input volume that are to be segmented. Raises InputError as `roiBox` does."""
    volume = parameters.inputVolume
    return wholeBox(volume) if parameters.roi is None else roiBox(parameters.roi, volume)


def isBent(volumeNode) -> bool:
    """Whether a transform above the volume is not linear."""
    transform = volumeNode.GetParentTransformNode()
    return transform is not None and not transform.IsTransformToWorldLinear()


def _refuseWithoutGrid(matrix: np.ndarray, message: str, hint: str) -> None:
    axes = matrix[:3, :3]
    lengths = np.linalg.norm(axes, axis=0)
    if not np.isfinite(matrix).all() or not lengths.all() or abs(np.linalg.det(axes / lengths)) < _LEAST_VOLUME:
        raise InputError(message, hint)


def _linearTransformToWorld(node) -> np.ndarray | None:
    """(4, 4) matrix of the parent transform, identity where there is none; None: it is not linear."""
    transformNode = node.GetParentTransformNode()
    if transformNode is None:
        return np.eye(4)
    matrix = vtk.vtkMatrix4x4()
    if not transformNode.IsTransformToWorldLinear():
        return None
    transformNode.GetMatrixTransformToWorld(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def _straightened(matrix: np.ndarray) -> np.ndarray:
    """The matrix itself, or where its axes are not perpendicular, the nearest whose axes are."""
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    axes = matrix[:3, :3] / spacing
    if np.abs(axes.T @ axes - np.eye(3)).max() <= 1e-6:
        return matrix
    u, _, v = np.linalg.svd(axes)
    straight = matrix.copy()
    straight[:3, :3] = (u @ v) * spacing
    return straight


def _geometry(matrix: np.ndarray, shape: tuple[int, int, int]) -> Geometry:
    lps = _RAS_TO_LPS @ matrix
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    return Geometry(shape[::-1], tuple(spacing), tuple(lps[:3, 3]), tuple((lps[:3, :3] / spacing).flat))
