"""Stand-ins for the ctk and qMRML widgets of the panel: their properties, signals and slots; looks are not theirs.

Plain PySide classes, which pythonqt.py shows as PythonQt would. The scene behind them is real, and so is the segment
editor's logic. MRML nodes travel through signals as Python objects.
"""

from types import SimpleNamespace

import slicer
from PySide6 import QtGui, QtWidgets
from PySide6.QtCore import Property, Signal, Slot
from pythonqt import standIn, stored
from shiboken6 import isValid


@standIn
class ctkCollapsibleButton(QtWidgets.QWidget):
    contentsCollapsed = Signal(bool)
    text = stored(str, "text", "")

    def collapse(self, collapsed):
        if collapsed != self.isCollapsed:
            self.isCollapsed = collapsed
            self.contentsCollapsed.emit(collapsed)

    isCollapsed = False
    collapsed = Property(bool, lambda self: self.isCollapsed, collapse)


standIn(type("ctkSliderWidget", (QtWidgets.QDoubleSpinBox,), {}))


@standIn
class qMRMLWidget(QtWidgets.QWidget):
    mrmlSceneChanged = Signal(object)

    @Slot(object)
    def setMRMLScene(self, scene):
        self.mrmlSceneChanged.emit(scene)


@standIn
class qMRMLNodeComboBox(QtWidgets.QComboBox):
    """Follows the scene as the real one does: takes the first node where it may not be empty."""

    currentNodeChanged = Signal(object)
    nodeTypes, showChildNodeTypes = stored("QStringList", "nodeTypes", ()), stored(bool, "children", True)
    noneEnabled, noneDisplay = stored(bool, "noneEnabled", False), stored(str, "noneDisplay", "None")
    addEnabled, removeEnabled = stored(bool, "addEnabled", True), stored(bool, "removeEnabled", True)
    renameEnabled = stored(bool, "renameEnabled", False)

    def __init__(self, parent=None):
        super().__init__(parent)
        self.setMinimumContentsLength(8)
        self.setSizeAdjustPolicy(self.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.scene, self.ids, self.chosen = None, [], None
        self.activated.connect(lambda row: self.choose(self.ids[row]))

    @Slot(object)
    def setMRMLScene(self, scene):
        self.scene = scene
        for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndImportEvent, scene.EndCloseEvent):
            scene.AddObserver(event, lambda *_: self.refresh())
        self.refresh()

    def refresh(self):
        if isValid(self) and self.scene is not None:  # the scene outlives selectors
            nodes = [(node, kind) for kind in self.nodeTypes for node in slicer.util.getNodesByClass(kind, self.scene)]
            nodes = [node for node, kind in nodes if self.showChildNodeTypes or node.GetClassName() == kind]
            self.ids = [None] * self.noneEnabled + [node.GetID() for node in nodes]
            self.clear()
            self.addItems([self.noneDisplay] * self.noneEnabled + [node.GetName() for node in nodes])
            self.choose(self.chosen if self.chosen in self.ids else next(iter(self.ids), None))

    def choose(self, nodeId):
        self.setCurrentIndex(self.ids.index(nodeId) if nodeId in self.ids else -1)
        if nodeId != self.chosen:
            self.chosen = nodeId
            self.currentNodeChanged.emit(self.currentNode())

    def currentNode(self):
        return self.scene.GetNodeByID(self.chosen) if self.scene and self.chosen else None

    def setCurrentNode(self, node):
        self.choose(node.GetID() if node else None)


@standIn
class qMRMLSegmentationShow3DButton(QtWidgets.QPushButton):
    def __init__(self, parent=None):
        super().__init__(parent)
        self.setCheckable(True)
        self.toggled.connect(self.show3D)
        self.node = None

    def setSegmentationNode(self, node):
        self.node = node
        self.setEnabled(node is not None and node.GetSegmentation().GetNumberOfSegments() > 0)
        self.setChecked(node is not None and node.GetSegmentation().ContainsRepresentation("Closed surface"))

    def show3D(self, shown):
        if self.node is not None:
            self.node.CreateClosedSurfaceRepresentation() if shown else self.node.RemoveClosedSurfaceRepresentation()


class ThresholdEffect:
    """The script of the effect of that name: it asks for voxels when it is told of a new volume, and when chosen."""

    def __init__(self, logic):
        def sourceVolumeImageData():
            return logic.GetAlignedSourceVolume() if logic.UpdateAlignedSourceVolume() else None

        self.range, self.seen = None, 0  # of its slider; how many voxels it has looked at
        self.scriptedEffect = SimpleNamespace(self=lambda: self, sourceVolumeImageData=sourceVolumeImageData)

    def sourceVolumeNodeChanged(self):
        image = self.scriptedEffect.sourceVolumeImageData()
        if image:
            self.range, self.seen = image.GetScalarRange(), image.GetNumberOfPoints()

    activate = sourceVolumeNodeChanged


@standIn
class qMRMLSegmentEditorWidget(qMRMLWidget):
    """The real vtkSlicerSegmentEditorLogic, under an empty widget."""

    segmentationNodeSelectorVisible = stored(bool, "segmentationSelector", True)
    sourceVolumeNodeSelectorVisible = stored(bool, "volumeSelector", True)
    switchToSegmentationsButtonVisible = stored(bool, "switchButton", True)
    maximumNumberOfUndoStates = Property(
        int, lambda s: s.editor.GetMaximumNumberOfUndoStates(), lambda s, n: s.editor.SetMaximumNumberOfUndoStates(n)
    )

    def __init__(self, parent=None):
        super().__init__(parent)
        self.editor, self.shortcuts = slicer.vtkSlicerSegmentEditorLogic(), []
        self.threshold, self.told, self.active = ThresholdEffect(self.editor), None, None

    @Slot(object)
    def setMRMLScene(self, scene):
        self.editor.SetMRMLScene(scene)
        self.editor.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        # as the application's: when a scene has been loaded, it edits nothing, whatever it was given meanwhile
        scene.AddObserver(scene.EndBatchProcessEvent, lambda *_: self.editor.SetSegmentationNode(None))

    def installKeyboardShortcuts(self):
        for keys, slot in (("Z", self.undo), ("Ctrl+Z", self.undo), ("Y", self.redo), ("Ctrl+Y", self.redo)):
            self.shortcuts.append(QtGui.QShortcut(QtGui.QKeySequence(keys), self.window(), slot))

    def uninstallKeyboardShortcuts(self):
        while self.shortcuts:
            self.shortcuts.pop().setParent(None)

    def setActiveEffect(self, effect=None):
        assert effect in (None, self.threshold.scriptedEffect), "the stand-in has one effect"
        self.active = effect
        if effect is not None:
            effect.self().activate()

    def effectByName(self, name):
        return self.threshold.scriptedEffect if name == "Threshold" else None

    def activeEffect(self):
        return self.active

    def setSegmentationNode(self, node):
        self.editor.SetSegmentationNode(node)
        if node is not None:  # the application takes the volume that it was made of
            self.setSourceVolumeNode(node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole()))

    def setSourceVolumeNode(self, node):
        self.editor.SetSourceVolumeNode(node)
        if node is not self.told:
            self.told = node
            self.threshold.sourceVolumeNodeChanged()

    def _ofLogic(name):
        return lambda self, *arguments: getattr(self.editor, name)(*arguments)

    def segmentationNode(self):
        """What the editor's own selector shows: the first one of the scene, where none is edited."""
        edited, scene = self.editor.GetSegmentationNode(), self.editor.GetMRMLScene()
        return edited if edited is not None else scene.GetFirstNodeByClass("vtkMRMLSegmentationNode")

    sourceVolumeNode = _ofLogic("GetSourceVolumeNode")
    mrmlSegmentEditorNode, setMRMLSegmentEditorNode = _ofLogic("GetSegmentEditorNode"), _ofLogic("SetSegmentEditorNode")
    saveStateForUndo = _ofLogic("SaveStateForUndo")
    undo, redo = _ofLogic("Undo"), _ofLogic("Redo")

    def removeViewObservations(self):
        """There are no views."""
