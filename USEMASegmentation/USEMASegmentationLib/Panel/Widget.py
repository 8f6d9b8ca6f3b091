"""The panel: shows what is, and turns clicks into calls of the logic. No numerics."""

from __future__ import annotations

import sys
from dataclasses import replace

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic, ScriptedLoadableModuleWidget
from slicer.util import VTKObservationMixin

from ..Logic import USEMASegmentationLogic
from ..ParameterNode import USEMASegmentationParameterNode
from ..Parameters import Parameters, Readiness
from ..Scene.VolumeBridge import volumeInView
from . import StoreTexts
from .AdvancedSection import AdvancedSection
from .ChannelSelectors import ChannelSelectors
from .CorrectSection import CorrectSection
from .Installer import Installer
from .ManageSection import ManageSection
from .ModelSection import ModelSection
from .RunSection import RunSection

POLL_MILLISECONDS = 100


class USEMASegmentationWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """From top to bottom in the order of the work: what is missing, segment, correct, advanced."""

    def __init__(self, parent=None):
        VTKObservationMixin.__init__(self)
        self.logic = None
        self._parameterNode = None
        self._guiTag = None
        self._missing = ""  # packages, in words
        self._shown = None  # model and labels that the list shows
        # last, because without a parent it calls setup()
        ScriptedLoadableModuleWidget.__init__(self, parent)

    # Life of the panel

    def setup(self) -> None:
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/USEMASegmentation.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        self.logic = USEMASegmentationLogic()
        self.installer = Installer()
        self._missing = self.installer.words()
        self.timer, self.storeTimer = qt.QTimer(), qt.QTimer()  # segmenting and downloading go on at the same time
        self.timer.interval = self.storeTimer.interval = POLL_MILLISECONDS
        self.modelSection = ModelSection(self.ui, self.logic.store, self.installer, self.onStoreStarted)
        self.manageSection = self._loadManageSection()
        self.channelSelectors = ChannelSelectors(self.ui.channelsSection, self.ui.channelsLayout, self.onChannelsChosen)
        self.correctSection = CorrectSection(self.ui.segmentEditor)
        self.logic.beforeWriting = self.correctSection.saveForUndo
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.runSection = RunSection(self.ui, self._stopAll)
        self.advancedSection = AdvancedSection(self.ui, self.logic, qt.QSettings(), self.updateState)
        self._fillExistingSelector()
        self.showModels()
        self._connect()
        self.initializeParameterNode()

    def _loadManageSection(self) -> ManageSection:
        widget = slicer.util.loadUI(self.resourcePath("UI/Models.ui"))
        self.ui.manageLayout.addWidget(widget)
        ui = slicer.util.childWidgetVariables(widget)
        ui.modelsTable.horizontalHeader().setSectionResizeMode(0, qt.QHeaderView.Stretch)
        return ManageSection(
            ui,
            self.logic.store,
            self.installer,
            started=self.onStoreStarted,
            changed=self.showModels,
            newItem=qt.QTableWidgetItem,
            chooseFile=lambda: qt.QFileDialog.getOpenFileName(
                slicer.util.mainWindow(), _("Model file"), "", _("Models (*.usema *.zip)")
            ),
        )

    def _fillExistingSelector(self) -> None:
        for text, value in (
            (_("makes a new segmentation"), "new"),
            (_("replaces this model's segments in it"), "replace"),
            (_("is added to it, beside what is there"), "keep"),
        ):
            self.ui.existingSelector.addItem(text, value)

    def _connect(self) -> None:
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneEndClose)
        self.timer.connect("timeout()", self.onTimer)
        self.storeTimer.connect("timeout()", self.onStoreTimer)
        self.ui.installButton.connect("clicked(bool)", self.onInstall)
        self.ui.installFromFolderButton.connect("clicked(bool)", self.onInstallFromFolder)
        self.ui.modelSelector.connect("currentIndexChanged(int)", self.onModelChosen)
        self.ui.labelsList.connect("itemChanged(QListWidgetItem*)", self.onLabelTicked)
        self.ui.segmentButton.connect("clicked(bool)", self.onSegmentOrCancel)
        self.ui.existingSelector.connect("currentIndexChanged(int)", self.onExistingChosen)
        slicer.app.connect("aboutToQuit()", self.logic.shutdown)

    def enter(self) -> None:
        self._missing = self.installer.words()
        self.showModels()  # the command line may have changed what is here
        self.initializeParameterNode()
        self.correctSection.enter()
        if self._missing and self.installer.isPending():
            # not from here: a dialog would keep the application from showing the module
            qt.QTimer.singleShot(0, self.onInstall)

    def exit(self) -> None:
        # A run goes on; its result is there when the user comes back.
        self.correctSection.exit()

    def cleanup(self) -> None:
        slicer.app.disconnect("aboutToQuit()", self.logic.shutdown)
        self.setParameterNode(None)
        self.removeObservers()
        self.correctSection.exit()
        self._stopAll()

    def onReload(self) -> None:
        # Slicer loads the module's own file again, but not what that imports.
        for name in list(sys.modules):
            if name.split(".")[0] in ("USEMASegmentationLib", "usema"):
                del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def onSceneStartClose(self, caller, event) -> None:
        self.setParameterNode(None)
        self.correctSection.close()

    def onSceneEndClose(self, caller, event) -> None:
        if self._isShown():
            self.initializeParameterNode()

    def _isShown(self) -> bool:
        # a panel in a window of its own has no module around it that could be entered
        return getattr(self.parent, "isEntered", True)

    # State of the scene

    def initializeParameterNode(self) -> None:
        nodes = ScriptedLoadableModuleLogic()
        nodes.moduleName = self.moduleName
        node = nodes.getParameterNode()
        if self._parameterNode is None or self._parameterNode.parameterNode != node:
            self.setParameterNode(USEMASegmentationParameterNode(node))
        else:
            self.updateState()

    def setParameterNode(self, parameterNode) -> None:
        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._guiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.updateState)
        self._parameterNode = parameterNode
        if parameterNode is None:
            return
        if parameterNode.inputVolume is None:
            parameterNode.inputVolume = volumeInView()
        # connectGui() does the same, but gives no tag, so that it could not be undone.
        widgets = {widget.property("SlicerParameterName"): widget for widget in vars(self.ui).values()}
        widgets.pop(None)
        self._guiTag = parameterNode.connectParametersToGui(widgets)
        self.addObserver(parameterNode, vtk.vtkCommand.ModifiedEvent, self.updateState)
        self.showModel()
        self.updateState()

    def parameters(self) -> Parameters:
        """What a click on Segment would start."""
        return replace(
            Parameters.copyOf(self._parameterNode),
            device=self.advancedSection.device(),
            show3D=self.ui.show3DButton.checked,
        )

    # Showing

    def updateState(self, caller=None, event=None) -> None:
        if self._parameterNode is None:
            return
        ui, node, busy = self.ui, self._parameterNode, self.logic.busy
        self._choose(ui.existingSelector, node.existing)
        if self._shown != (node.modelName, list(node.labels)):
            self.showModel()
        ui.setupSection.visible = bool(self._missing)
        ui.setupLabel.text = self._missing

        self.runSection.update(self.logic.status, busy, Readiness(True) if busy else self._readiness())
        self.advancedSection.update(node.modelName)
        ui.show3DButton.setSegmentationNode(node.segmentation)
        ui.segmentEditor.visible = node.segmentation is not None
        ui.correctHintLabel.visible = node.segmentation is None
        if self._isShown():
            self.correctSection.show(node.segmentation, node.inputVolume)

    def _readiness(self) -> Readiness:
        if self._missing:
            return Readiness(False, _("Install what is missing first (see above)."))
        if self.ui.labelsList.count and not self._tickedLabels():
            return Readiness(False, _("Tick at least one segment."))
        if self.modelSection.isMissing(self._parameterNode.modelName):
            return self.modelSection.readiness(self._parameterNode.modelName)
        return self.logic.check(self.parameters())

    def showModels(self) -> None:
        """All known models, and the chosen one; to be called when there are others, or another state of one."""
        self.manageSection.fill()
        self.modelSection.fill()
        if self._parameterNode is not None:
            self.showModel()
            self.updateState()

    def showModel(self) -> None:
        """The chosen model's description, labels and inputs."""
        node = self._parameterNode
        if node.modelName not in self.modelSection.models:
            self._chooseAnotherModel()
        self._shown = (node.modelName, list(node.labels))
        self.modelSection.show(node.modelName)
        model = self.modelSection.models.get(node.modelName)
        labels = self.ui.labelsList
        labels.blockSignals(True)
        labels.clear()
        for label in model.labels if model else ():
            swatch = qt.QPixmap(12, 12)
            swatch.fill(qt.QColor(*label.color))
            labels.addItem(label.name)
            item = labels.item(labels.count - 1)
            item.setIcon(qt.QIcon(swatch))
            item.setFlags(qt.Qt.ItemIsEnabled | qt.Qt.ItemIsUserCheckable)
            ticked = not node.labels or label.name in node.labels
            item.setCheckState(qt.Qt.Checked if ticked else qt.Qt.Unchecked)
        labels.blockSignals(False)
        labels.setFixedHeight(labels.sizeHintForRow(0) * min(max(labels.count, 1), 6) + 2 * labels.frameWidth)
        self.channelSelectors.show(self.modelSection.furtherChannels(node.modelName), node.channels)

    def _chooseAnotherModel(self) -> None:
        """In place of one that is not known here: it was deleted, or the scene comes from another computer."""
        node, gone = self._parameterNode, self._parameterNode.modelName
        with slicer.util.NodeModify(node):
            node.labels = []
            node.modelName = self.modelSection.nameToBegin()
        if gone:
            self.runSection.say(*StoreTexts.goneModel(gone, self.modelSection.models.get(node.modelName)))

    @staticmethod
    def _choose(selector, value: str) -> None:
        selector.setCurrentIndex(max(0, selector.findData(value)))

    def _tickedLabels(self) -> list[str]:
        items = map(self.ui.labelsList.item, range(self.ui.labelsList.count))
        return [item.text() for item in items if item.checkState() == qt.Qt.Checked]

    # Clicks

    def onModelChosen(self, index: int) -> None:
        name = self.ui.modelSelector.itemData(index)
        if self._parameterNode is not None and name != self._parameterNode.modelName:
            with slicer.util.NodeModify(self._parameterNode):
                self._parameterNode.labels = []
                self._parameterNode.modelName = name

    def onLabelTicked(self, item) -> None:
        ticked = self._tickedLabels()
        labels = [] if len(ticked) == self.ui.labelsList.count else ticked
        self._shown = (self._parameterNode.modelName, labels)
        self._parameterNode.labels = labels
        self.updateState()

    def onChannelsChosen(self, nodes: list) -> None:
        if self._parameterNode is not None:
            self._parameterNode.channels = nodes

    def onExistingChosen(self, index: int) -> None:
        if self._parameterNode is not None:
            self._parameterNode.existing = self.ui.existingSelector.itemData(index)

    def onSegmentOrCancel(self, checked: bool = False) -> None:
        with self.runSection.errorsShown():
            if self.logic.busy:
                self.logic.cancel()
            elif self.modelSection.isMissing(self._parameterNode.modelName):
                self.modelSection.offer(self._parameterNode.modelName)
            else:
                self.runSection.say("")
                self.logic.start(self.parameters())
                self.timer.start()
        self.updateState()

    def onTimer(self) -> None:
        with self.runSection.errorsShown():
            status = self.logic.poll()
            if not self.logic.busy:
                self.timer.stop()
                self.onFinished(status)
        self.updateState()

    def onStoreStarted(self) -> None:
        self.storeTimer.start()
        self.updateState()

    def onStoreTimer(self) -> None:
        with self.runSection.errorsShown():
            status = self.logic.store.poll()
            if self.logic.store.busy:
                self.modelSection.update()
                self.manageSection.update()
                return
            self.storeTimer.stop()
            self.showModels()
            if status.task == "import" and status.state == "done":
                self.ui.modelSelector.setCurrentIndex(self.ui.modelSelector.findData(status.modelName))

    def onFinished(self, status) -> None:
        self.runSection.say(status.message, status.hint, status.detail, status.warnings)
        if status.segmentation is not None and self._parameterNode is not None:
            self._parameterNode.segmentation = status.segmentation

    def _stopAll(self) -> None:
        self.timer.stop()
        self.storeTimer.stop()
        self.logic.shutdown()

    def onInstall(self, checked: bool = False, folder: str = "") -> None:
        with self.runSection.errorsShown():
            self.installer.install(folder)
            self.logic.releaseMemory()  # a worker that started without the packages would not see them
            self.runSection.say(_("Everything that segmenting needs is installed."))
        self._missing = self.installer.words()
        self.showModels()

    def onInstallFromFolder(self, checked: bool = False) -> None:
        folder = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), _("Folder of wheel files"))
        if folder:
            self.onInstall(folder=folder)
