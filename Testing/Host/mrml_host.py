"""A real MRML scene without the application: the compiled classes of the ``slicer-core`` wheel, wired as it wires them.

Scene, nodes, logics, storage, conversion and editing are Slicer's own code. Not here: Qt, module panels, views, and the
subject hierarchy's plugins, which in the application give every node an item.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import slicer
import slicer.util
import vtk

# In the order in which the application makes them. Without terminologies: the wheel does not have their lists.
_LOGICS = {
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Units": "vtkSlicerUnitsLogic",
    "Volumes": "vtkSlicerVolumesLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "Models": "vtkSlicerModelsLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "Sequences": "vtkSlicerSequencesLogic",
}


class MrmlHost:
    """Fills ``slicer.mrmlScene``, ``slicer.modules.<name>.logic()`` and the few members of ``slicer.app`` without Qt.

    Args:
        folder: for temporary files and the cache.
    """

    def __init__(self, folder: Path):
        vtk.vtkOutputWindow.GetInstance().SetDisplayModeToAlwaysStdErr()
        temporary, cache = folder / "temporary", folder / "cache"
        temporary.mkdir(parents=True, exist_ok=True)
        cache.mkdir(exist_ok=True)
        self.scene = slicer.vtkMRMLScene()
        self.applicationLogic = slicer.vtkSlicerApplicationLogic()
        self.applicationLogic.SetMRMLScene(self.scene)
        self.applicationLogic.SetTemporaryPath(str(temporary))
        # The application has one logic for each view; code that asks for them must find a list.
        self.applicationLogic.SetSliceLogics(vtk.vtkCollection())
        self.applicationLogic.SetViewLogics(vtk.vtkCollection())
        colors = self.applicationLogic.GetColorLogic()
        colors.SetMRMLScene(self.scene)
        colors.AddDefaultColorNodes()
        self.modules = SimpleNamespace(colors=SimpleNamespace(logic=lambda: colors))
        self.applicationLogic.SetModuleLogic("Colors", colors)
        for name, className in _LOGICS.items():
            self._addLogic(name, getattr(slicer, className)())
        self._remoteIO = self._readerOfBundles(cache)
        self.app = SimpleNamespace(
            temporaryPath=str(temporary),
            applicationVersion="5.11.0",
            revision="0",
            applicationLogic=lambda: self.applicationLogic,
        )
        mine = {"mrmlScene": self.scene, "modules": self.modules, "app": self.app}
        self._before = {name: getattr(slicer, name) for name in mine if hasattr(slicer, name)}
        vars(slicer).update(mine)

    def loadVolume(self, path: Path):
        """A volume node from a file, by the logic that the application uses."""
        name = path.name.split(".")[0]
        node = slicer.modules.volumes.logic().AddArchetypeVolume(str(path), name)
        if node is None:
            raise OSError(f"{path} cannot be read")
        return node

    def editor(self, segmentationNode, volumeNode):
        """The Segment Editor's logic on this segmentation, undo switched on, as the panel's widget sets it up."""
        editor = slicer.vtkSlicerSegmentEditorLogic()
        editor.SetMRMLScene(self.scene)
        editor.SetMRMLApplicationLogic(self.applicationLogic)
        editor.SetSegmentEditorNode(self.scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode"))
        history = slicer.vtkSegmentationHistory()
        history.SetSegmentation(segmentationNode.GetSegmentation())
        editor.SetSegmentationHistory(history)
        editor.SetMaximumNumberOfUndoStates(10)
        editor.SetSegmentationNode(segmentationNode)
        editor.SetSourceVolumeNode(volumeNode)
        return editor

    def saveBundle(self, path: Path) -> None:
        """Save the scene with its data as ``.mrb``."""
        if not self.scene.WriteToMRB(str(path)):
            raise OSError(f"{path} cannot be written")

    def openBundle(self, path: Path) -> None:
        """Replace the scene by one saved as ``.mrb``."""
        if not self.scene.ReadFromMRB(str(path), True):
            raise OSError(f"{path} cannot be read")

    def close(self) -> None:
        """Put into the module ``slicer`` what was there before."""
        self.scene.Clear(True)
        for name in ("mrmlScene", "modules", "app"):
            delattr(slicer, name)
        vars(slicer).update(self._before)

    def _addLogic(self, name: str, logic) -> None:
        logic.SetMRMLScene(self.scene)
        logic.SetMRMLApplicationLogic(self.applicationLogic)
        self.applicationLogic.SetModuleLogic(name, logic)
        setattr(self.modules, name.lower(), SimpleNamespace(logic=lambda: logic))

    def _readerOfBundles(self, cache: Path):
        """Reading ``.mrb`` goes through the manager of remote data, even for a local file."""
        remoteIO = slicer.vtkMRMLRemoteIOLogic()
        remoteIO.SetMRMLScene(self.scene)
        remoteIO.SetMRMLApplicationLogic(self.applicationLogic)
        remoteIO.GetCacheManager().SetRemoteCacheDirectory(str(cache))
        manager = slicer.vtkDataIOManagerLogic()
        manager.SetMRMLScene(self.scene)
        manager.SetMRMLApplicationLogic(self.applicationLogic)
        manager.SetAndObserveDataIOManager(remoteIO.GetDataIOManager())
        remoteIO.AddDataIOToScene()
        return remoteIO, manager
