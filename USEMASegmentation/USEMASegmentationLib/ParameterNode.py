"""The panel's choices, kept in the scene. Only the application has ``slicer.parameterNodeWrapper``."""

from __future__ import annotations

from typing import Annotated

from slicer import vtkMRMLMarkupsROINode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper

from .Parameters import EXISTING


@parameterNodeWrapper
class USEMASegmentationParameterNode:
    """The fields of ``Parameters``, which says what each means; the logic takes either."""

    inputVolume: vtkMRMLScalarVolumeNode
    channels: list[vtkMRMLScalarVolumeNode]
    modelName: str
    labels: list[str]
    segmentation: vtkMRMLSegmentationNode
    existing: Annotated[str, Choice(EXISTING)] = "new"
    roi: vtkMRMLMarkupsROINode
    device: str = "auto"
    overlap: Annotated[float, WithinRange(0, 0.9)] = 0.5
    mirror: bool = False
    keepProbabilities: bool = False
    show3D: bool = False
