"""A region of the size that a model of crops is for, where the slices cross: two clicks to the right input."""

from __future__ import annotations

import numpy as np
import slicer
from usema.errors import UsemaError
from usema.inference.checks import shows_more_than_a_crop
from usema.models.metadata import ModelMetadata

from ..Parameters import Parameters
from . import Preflight
from .VolumeBridge import worldGeometries

_VIEWS = ("Red", "Yellow", "Green")


def sizeOffered(parameters: Parameters) -> tuple[float, float, float] | None:
    """Millimetres along R, A and S; None where no region is called for: one is chosen, the model takes any volume or
    finds its way in a whole one, or the volume is a crop already."""
    volume = parameters.inputVolume
    if volume is None or volume.GetImageData() is None or parameters.roi is not None or not parameters.modelName:
        return None
    try:
        metadata = Preflight.modelHere(parameters.modelName).metadata
        geometry = worldGeometries([volume])[0]
    except UsemaError:  # the panel says so
        return None
    if metadata.crop_first or metadata.find_regions or not shows_more_than_a_crop(metadata, geometry):
        return None
    return cropSize(metadata, geometry.orientation)


def cropSize(metadata: ModelMetadata, orientation: str) -> tuple[float, float, float]:
    """The middle of the training crops' lengths along R, A and S, in millimetres.

    Args:
        orientation: of the volume; the extent is told along its axes where the model names none.
    """
    extent, axes = metadata.expected_extent_mm, metadata.orientation or orientation
    lengths = {}
    for letter, low, high in zip(axes, extent["min"], extent["max"], strict=True):
        lengths[next(pair for pair in ("RL", "AP", "SI") if letter in pair)] = float(round((low + high) / 2))
    return lengths["RL"], lengths["AP"], lengths["SI"]


def place(parameters: Parameters):
    """Adds the region to the scene, with its middle where the slices cross, inside the volume; returns its node.

    Raises:
        ValueError: none is called for.
    """
    size = sizeOffered(parameters)
    if size is None:
        raise ValueError("no region is called for")
    volume = parameters.inputVolume
    bounds = np.zeros(6)
    volume.GetRASBounds(bounds)
    low, high = bounds[::2], bounds[1::2]
    middle = (low + high) / 2
    crossing = slicesCross()
    if crossing is not None and (crossing >= low).all() and (crossing <= high).all():
        middle = crossing
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", f"{volume.GetName()} region")
    node.SetCenter(*(float(value) for value in middle))
    node.SetSize(*size)
    node.CreateDefaultDisplayNodes()
    if node.GetDisplayNode() is not None:
        node.GetDisplayNode().SetFillOpacity(0.1)
    return node


def slicesCross() -> np.ndarray | None:
    """The point (R, A, S) in all three slice views; None where they have none."""
    normals, offsets = [], []
    for view in _VIEWS:
        node = slicer.mrmlScene.GetSingletonNode(view, "vtkMRMLSliceNode")
        if node is None:
            return None
        toRas = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())
        normals.append(toRas[:3, 2])
        offsets.append(toRas[:3, 2] @ toRas[:3, 3])
    if abs(np.linalg.det(normals)) < 0.1:  # two views show nearly the same plane
        return None
    return np.linalg.solve(normals, offsets)
