"""What the page works on: volumes and segmentations of the scene."""

from __future__ import annotations

import slicer.util
from USEMASegmentationLib.Scene.VolumeBridge import VOLUME_KINDS

VOLUMES, SEGMENTATIONS = VOLUME_KINDS, ("vtkMRMLSegmentationNode",)


def nodes_of(kinds: tuple[str, ...]) -> list:
    """The nodes of these classes in the order of the scene, and of none that is made from one: a label map is no
    volume, a picture in colour is."""
    every = slicer.util.getNodesByClass("vtkMRMLDisplayableNode")
    return [node for node in every if node.GetClassName() in kinds]
