"""What segments measure, by 3D Slicer's own module Segment Statistics, as a table in the scene."""

from __future__ import annotations

import slicer
from usema.errors import InputError, MissingDependencyError

from ..Steps import NextTurn, Working, atOnce, beside, isSmall
from .EditMask import timesOf
from .SegmentVoxels import SegmentVoxels
from .VolumeBridge import referenceVolume

_DIAMETER = "LabelmapSegmentStatisticsPlugin.feret_diameter_mm"  # which the module does not measure by itself


def isAvailable() -> bool:
    """Whether the application has the module."""
    return hasattr(slicer.modules, "segmentstatistics")


def measure(segmentationNode, volumeNode=None):
    """As `measuring`, without a pause."""
    return atOnce(measuring(segmentationNode, volumeNode))


def measuring(segmentationNode, volumeNode=None) -> Working:
    """Makes a table with volume, longest diameter, and intensities of all segments, one of them a turn; it is shown.

    Args:
        volumeNode: whose intensities are measured, where the segmentation does not know which volume it was made of.

    Returns:
        the table node.

    Raises:
        InputError: there is no segment or no volume, or it or the segmentation was removed meanwhile.
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
    if not segmentationNode.GetSegmentation().GetNumberOfSegments():
        raise InputError(
            f"The segmentation '{segmentationNode.GetName()}' has no segment to be measured.", "Segment or draw first."
        )
    logic = SegmentStatisticsLogic()
    parameters = logic.getParameterNode()
    try:
        parameters.SetParameter("Segmentation", segmentationNode.GetID())
        parameters.SetParameter("ScalarVolume", volume.GetID())
        parameters.SetParameter("visibleSegmentsOnly", "False")
        moment = None
        while moment != _momentOf(segmentationNode, volume):  # what the user changed meanwhile is measured anew
            moment = _momentOf(segmentationNode, volume)
            if segmentationNode.GetParentTransformNode() is None:
                yield from _measuringEach(logic, segmentationNode, volume)
            else:  # the module measures a copy in the world
                parameters.SetParameter(f"{_DIAMETER}.enabled", "True")
                logic.computeStatistics()
        name = slicer.mrmlScene.GenerateUniqueName(f"{segmentationNode.GetName()} measurements")
        table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", name)
        logic.exportToTable(table)
        logic.showTable(table)
    finally:
        if slicer.mrmlScene.IsNodePresent(parameters):
            slicer.mrmlScene.RemoveNode(parameters)
    return table


def _measuringEach(logic, segmentationNode, volume) -> Working:
    """The longest diameters beside, exactly as the module measures them: that compares all voxels of a surface with
    each other, which takes minutes for a large organ."""
    logic.reset()
    segmentation, voxels, held = segmentationNode.GetSegmentation(), SegmentVoxels(), {}
    for name in segmentation.GetSegmentIDs():
        held[name] = voxels.mapOf(segmentation.GetSegment(name)), segmentation.GetSegment(name).GetLabelValue()
    for name in held:
        logic.updateStatisticsForSegment(name)
        if not isSmall(voxels.size):
            yield NextTurn()
            _refuseGone(segmentationNode, volume)
    if not isSmall(voxels.size):
        yield from voxels.copying()

    def look() -> dict[str, float]:
        from usema.volumes.measures import longest_diameter

        masks = {name: (labels, voxels.where(labels, value).array) for name, (labels, value) in held.items()}
        return {name: longest_diameter(mask, labels.spacing) for name, (labels, mask) in masks.items() if mask.size}

    diameters = yield from beside(look, voxels.size)
    _refuseGone(segmentationNode, volume)
    statistics = logic.getStatistics()
    for name, diameter in diameters.items():
        statistics[name, _DIAMETER] = diameter
        statistics["MeasurementInfo"][_DIAMETER] = logic.getMeasurementInfo(_DIAMETER)


def _momentOf(segmentationNode, volume) -> tuple:
    """What tells, without looking at voxels, whether something may have changed."""
    ids = segmentationNode.GetSegmentation().GetSegmentIDs()
    return timesOf(segmentationNode, ids), segmentationNode.GetTransformNodeID(), volume.GetImageData().GetMTime()


def _refuseGone(*nodes) -> None:
    if not all(map(slicer.mrmlScene.IsNodePresent, nodes)) or nodes[-1].GetImageData() is None:
        raise InputError("The segmentation or its volume was removed while it was measured.")
