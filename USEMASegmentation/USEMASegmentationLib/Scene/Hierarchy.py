"""What a node needs beside its data: its place in the subject hierarchy, and how it is shown."""

from __future__ import annotations

from contextlib import ExitStack

import slicer
from usema.volumes.told import Told


def addHidden(node, name: str):
    """A new node into the scene, in no list of the application: they look whether one is hidden when it comes, and not
    again."""
    node.SetName(name)
    node.SetHideFromEditors(True)
    return slicer.mrmlScene.AddNode(node)


def placeBeside(node, volumeNode) -> None:
    """Into the folder, patient or study of the volume."""
    hierarchy = _hierarchy()
    volumeItem = hierarchy.GetItemByDataNode(volumeNode)
    parent = hierarchy.GetItemParent(volumeItem) if volumeItem else hierarchy.GetSceneItemID()
    item = hierarchy.GetItemByDataNode(node)
    if item:
        hierarchy.SetItemParent(item, parent)
    else:
        hierarchy.CreateItem(parent, node)


def createDisplay(node, undo: ExitStack) -> None:
    """What the views need to show the node, where it is not there; closing ``undo`` takes it back."""
    if node.GetDisplayNode() is None:
        node.CreateDefaultDisplayNodes()
        undo.callback(slicer.mrmlScene.RemoveNode, node.GetDisplayNode())  # the scene would keep it


def patientOf(node) -> str:
    """The name of the patient that the node belongs to; empty: not known."""
    hierarchy = _hierarchy()
    item, level = hierarchy.GetItemByDataNode(node), slicer.vtkMRMLSubjectHierarchyConstants
    patient = hierarchy.GetItemAncestorAtLevel(item, level.GetDICOMLevelPatient()) if item else 0
    return hierarchy.GetItemName(patient) if patient else ""


def modalityOf(volumeNode) -> str:
    """What DICOM says, such as "MR"; empty for volumes from other files, which do not tell."""
    hierarchy = _hierarchy()
    item = hierarchy.GetItemByDataNode(volumeNode)
    attribute = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMSeriesModalityAttributeName()
    return hierarchy.GetItemAttribute(item, attribute) if item else ""


def toldOf(volumeNode) -> Told:
    """What DICOM and the names in the scene say of a volume; of a series its name is the description."""
    hierarchy, constants = _hierarchy(), slicer.vtkMRMLSubjectHierarchyConstants
    item = hierarchy.GetItemByDataNode(volumeNode)
    texts = [volumeNode.GetName() or ""]
    if item:
        study = hierarchy.GetItemAncestorAtLevel(item, constants.GetDICOMLevelStudy())
        attribute = constants.GetDICOMStudyDescriptionAttributeName()
        texts = [hierarchy.GetItemName(item), *texts, hierarchy.GetItemAttribute(study, attribute) if study else ""]
    return Told(modalityOf(volumeNode), tuple(dict.fromkeys(filter(None, texts))))


def _hierarchy():
    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
