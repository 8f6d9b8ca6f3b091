"""What segments measure, by 3D Slicer's own module Segment Statistics, as a table in the scene."""

from __future__ import annotations

import slicer
from usema.errors import InputError, MissingDependencyError

from .VolumeBridge import referenceVolume

# Beside what the module measures by itself: the longest diameter, which takes longer.
_DIAMETER = "LabelmapSegmentStatisticsPlugin.feret_diameter_mm.enabled"


def isAvailable() -> bool:
    """Whether the application has the module."""
    return hasattr(slicer.modules, "segmentstatistics")


def measure(segmentationNode, volumeNode=None):
    """A new table with volume, longest diameter, and intensities of all segments; it is shown.

    Args:
        volumeNode: whose intensities are measured, where the segmentation does not know which volume it was made of.

    Returns:
        the table node.

    Raises:
        InputError: there is no volume.
        MissingDependencyError: the application does not have the module.
    """
    if not isAvailable():
        raise MissingDependencyError(
            "This application has no module Segment Statistics.", "Measure in 3D Slicer, or with usema segment."
        )
    from SegmentStatistics import SegmentStatisticsLogic

    volume = referenceVolume(segmentationNode, volumeNode)
    if volume is None:
        raise InputError(
            f"The volume of the segmentation '{segmentationNode.GetName()}' is not in the scene.", "Load it again."
        )
    logic = SegmentStatisticsLogic()
    parameters = logic.getParameterNode()
    try:
        parameters.SetParameter("Segmentation", segmentationNode.GetID())
        parameters.SetParameter("ScalarVolume", volume.GetID())
        parameters.SetParameter("visibleSegmentsOnly", "False")
        parameters.SetParameter(_DIAMETER, "True")
        logic.computeStatistics()
        table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", f"{segmentationNode.GetName()} measurements")
        logic.exportToTable(table)
        logic.showTable(table)
    finally:
        slicer.mrmlScene.RemoveNode(parameters)
    return table
