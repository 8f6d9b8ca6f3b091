"""What the tests of the Slicer side share: grids, volumes in a real scene, models and results."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
from bundles import METADATA

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "Host"))

import slicer
import slicer.util
import vtk
from mrml_host import MrmlHost  # noqa: F401 for the tests
from usema.models.metadata import ModelMetadata
from USEMASegmentationLib.Parameters import Parameters
from USEMASegmentationLib.Scene import ResultWriter
from USEMASegmentationLib.Scene.VolumeBridge import wholeBox

MODEL = ModelMetadata.from_dict(
    {
        **METADATA,
        "schema_version": 1,
        "weights": {"file": "weights.safetensors", "sha256": "0" * 64, "bytes": 1, "dtype": "float16"},
    }
)
PROVENANCE = {
    "model": MODEL.name,
    "modelVersion": MODEL.version,
    "weightsSha256": "0" * 64,
    "device": "cpu (2 threads)",
    "attention": "PyTorch (no NVIDIA GPU)",
    "overlap": "0.5",
    "roi": "whole volume",
    "seconds": "1.5",
    "time": "2026-01-31T10:20:30+00:00",
}


ANTERIOR, POSTERIOR = f"{MODEL.name}_1", f"{MODEL.name}_2"  # the IDs of its segments


def _grid(axes, spacing=(0.8, 1.1, 2.5), origin=(11.0, -22.0, 33.0)) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(axes, float) * spacing
    matrix[:3, 3] = origin
    return matrix


def _rotation(axis, angle) -> np.ndarray:
    x, y, z = np.array(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


# IJK to RAS
GRIDS = {
    "RAS": _grid(np.eye(3)),
    "LPS": _grid(np.diag([-1, -1, 1])),
    "PIR": _grid([[0, 0, 1], [-1, 0, 0], [0, -1, 0]]),
    "oblique": _grid(_rotation((0.3, 0.5, 0.8), 0.4)),
    "left-handed": _grid(_rotation((0.9, -0.2, 0.1), 0.3) @ np.diag([1, 1, -1])),
}


def blobs(shape=(12, 16, 20)) -> np.ndarray:
    """Labels 1 and 2 as two ellipsoids, not symmetric in any axis."""
    z, y, x = (np.arange(length).reshape(-1, *[1] * after) for after, length in zip((2, 1, 0), shape, strict=True))
    labels = np.zeros(shape, np.uint8)
    labels[((z - 4) / 3) ** 2 + ((y - 5) / 4) ** 2 + ((x - 6) / 5) ** 2 < 1] = 1
    labels[((z - 7) / 3) ** 2 + ((y - 11) / 3) ** 2 + ((x - 13) / 4) ** 2 < 1] = 2
    return labels


def addVolume(array: np.ndarray, ijkToRas: np.ndarray, name: str = "Volume"):
    return slicer.util.addVolumeFromArray(array, ijkToRAS=ijkToRas, name=name)


def transformNode(matrix: np.ndarray):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    return node


def segmentOf(segmentationNode, segmentId: str):
    return segmentationNode.GetSegmentation().GetSegment(segmentId)


def statusOf(segmentationNode, segmentId: str) -> str:
    """How far the work on a segment is, in the words of a file."""
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    return logic.GetSegmentStatusAsMachineReadableString(logic.GetSegmentStatus(segmentOf(segmentationNode, segmentId)))


def complete(segmentationNode, *segmentIds: str) -> None:
    """The user says that the work on segments is completed."""
    for one in segmentIds:
        segment, logic = segmentOf(segmentationNode, one), slicer.vtkSlicerSegmentationsModuleLogic
        logic.SetSegmentStatus(segment, logic.Completed)


def voxels(segmentationNode, segmentId: str, volumeNode) -> np.ndarray:
    """Where a segment is, on the volume's grid."""
    return slicer.util.arrayFromSegmentBinaryLabelmap(segmentationNode, segmentId, volumeNode) > 0


def worldPoints(segmentationNode, segmentId: str) -> np.ndarray:
    """(n, 3) sorted RAS positions of a segment's voxels, its parent transforms applied."""
    image = slicer.vtkOrientedImageData()
    segmentationNode.GetBinaryLabelmapRepresentation(segmentId, image)
    scalars = image.GetPointData().GetScalars()
    indices = np.flatnonzero(vtk.util.numpy_support.vtk_to_numpy(scalars))
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    toWorld = slicer.util.arrayFromVTKMatrix(matrix)
    if segmentationNode.GetParentTransformNode() is not None:
        segmentationNode.GetParentTransformNode().GetMatrixTransformToWorld(matrix)
        toWorld = slicer.util.arrayFromVTKMatrix(matrix) @ toWorld
    first, size = np.array(image.GetExtent()[::2]), image.GetDimensions()
    ijk = np.stack(np.unravel_index(indices, size, order="F"), axis=1) + first
    points = ijk @ toWorld[:3, :3].T + toWorld[:3, 3]
    return points[np.lexsort(points.round(3).T)]


def labelsOf(segmentationNode, volumeNode) -> np.ndarray:
    """The first two segments as a label map on the volume's grid."""
    first, second = segmentationNode.GetSegmentation().GetSegmentIDs()[:2]
    return voxels(segmentationNode, first, volumeNode) + 2 * voxels(segmentationNode, second, volumeNode).astype(
        np.uint8
    )


def write(
    array, volumeNode, metadata=MODEL, provenance=PROVENANCE, *, box=None, probabilities=None, hook=None, **options
):
    """A result into the scene as the logic writes it; gives the segmentation node. Options are those of Parameters."""
    result = ResultWriter.Result(array, probabilities, provenance, metadata, box or wholeBox(volumeNode))
    parameters = Parameters.fromWords({"inputVolume": volumeNode, **options})
    return ResultWriter.write(result, parameters, hook).segmentation


def nodes() -> list[str]:
    """What of volumes and segmentations is in the scene, by name, with the number of segments."""
    found = [node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLVolumeNode")]
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        found.append(f"{node.GetName()}: {node.GetSegmentation().GetNumberOfSegments()}")
    return found


def pollUntil(logic, *states):
    """Drive the logic as the panel's timer does, until it is in one of these states."""
    deadline = time.monotonic() + 200
    while (status := logic.poll()).state not in states:
        assert time.monotonic() < deadline, status
        time.sleep(0.01)
    return status


def commandOf(process: int) -> str:
    """As it was started; empty if it has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def children() -> set[int]:
    """The processes that this one has started and that still run.

    Without the one by which Python's multiprocessing, once a library has used it, cleans up when all ends.
    """
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue  # it has ended meanwhile
        if int(parent) == os.getpid() and state != "Z" and "resource_tracker" not in commandOf(int(path.parent.name)):
            found.add(int(path.parent.name))
    return found
