"""What the page works on: volumes and segmentations of the scene."""

from __future__ import annotations

import slicer
import slicer.util

VOLUME, SEGMENTATION = "vtkMRMLScalarVolumeNode", "vtkMRMLSegmentationNode"


def nodes_of(kind: str) -> list:
    """The nodes of this class, and of none that is made from it: a label map is no volume."""
    return [node for node in slicer.util.getNodesByClass(kind) if node.GetClassName() == kind]
