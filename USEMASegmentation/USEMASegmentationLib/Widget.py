"""The panel: shows what is, and turns clicks into calls of the logic. No numerics."""

from __future__ import annotations

import logging
import sys
import traceback
from contextlib import contextmanager
from dataclasses import replace

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic, ScriptedLoadableModuleWidget
from slicer.util import VTKObservationMixin
from usema.errors import UsemaError

from . import Wording
from .CorrectSection import CorrectSection
from .Installer import Installer
from .Logic import USEMASegmentationLogic
from .ParameterNode import USEMASegmentationParameterNode
from .Parameters import Parameters, Readiness

DEVICE_SETTING = "USEMA/Device"
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
        self._channelSelectors = []
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
        self.correctSection = CorrectSection(self.ui.segmentEditor)
        self.logic.beforeWriting = self.correctSection.saveForUndo
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.timer = qt.QTimer()
        self.timer.interval = POLL_MILLISECONDS
        self._fillSelectors()
        self.showMessage("")
        self._connect()
        self.initializeParameterNode()

    def _fillSelectors(self) -> None:
        self._models = {bundle.metadata.name: bundle.metadata for bundle in self.logic.models()}
        for name, metadata in self._models.items():
            self.ui.modelSelector.addItem(metadata.title, name)
        for text, value in (
            (_("makes a new segmentation"), "new"),
            (_("replaces this model's segments in it"), "replace"),
            (_("is added to it, beside what is there"), "keep"),
        ):
            self.ui.existingSelector.addItem(text, value)
        for text, value in (
            (_("Automatic"), "auto"),
            (_("CPU"), "cpu"),
            (_("NVIDIA GPU"), "cuda"),
            (_("Apple GPU"), "mps"),
        ):
            self.ui.deviceSelector.addItem(text, value)
        self._choose(self.ui.deviceSelector, qt.QSettings().value(DEVICE_SETTING, "auto"))

    def _connect(self) -> None:
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneEndClose)
        self.timer.connect("timeout()", self.onTimer)
        self.ui.installButton.connect("clicked(bool)", self.onInstall)
        self.ui.installFromFolderButton.connect("clicked(bool)", self.onInstallFromFolder)
        self.ui.modelSelector.connect("currentIndexChanged(int)", self.onModelChosen)
        self.ui.labelsList.connect("itemChanged(QListWidgetItem*)", self.onLabelTicked)
        self.ui.segmentButton.connect("clicked(bool)", self.onSegmentOrCancel)
        self.ui.existingSelector.connect("currentIndexChanged(int)", self.onExistingChosen)
        self.ui.deviceSelector.connect("currentIndexChanged(int)", self.onDeviceChosen)
        self.ui.releaseButton.connect("clicked(bool)", self.onRelease)
        self.ui.diagnosticsButton.connect("clicked(bool)", self.onCopyDiagnostics)
        slicer.app.connect("aboutToQuit()", self.logic.shutdown)

    def enter(self) -> None:
        self._missing = self.installer.words()
        self.initializeParameterNode()
        self.correctSection.enter()
        if self._missing and self.installer.isPending():
            # not from here: a dialog would keep the application from showing the module
            qt.QTimer.singleShot(0, self.onInstall)

    def exit(self) -> None:
        # A run goes on; its result is there when the user comes back.
        self.correctSection.exit()

    def cleanup(self) -> None:
        self.timer.stop()
        slicer.app.disconnect("aboutToQuit()", self.logic.shutdown)
        self.setParameterNode(None)
        self.removeObservers()
        self.correctSection.exit()
        self.logic.shutdown()

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
            parameterNode.inputVolume = self._volumeInView()
        if parameterNode.modelName not in self._models and self._models:
            parameterNode.modelName = next(iter(self._models))
        # connectGui() does the same, but gives no tag, so that it could not be undone.
        widgets = {widget.property("SlicerParameterName"): widget for widget in vars(self.ui).values()}
        widgets.pop(None)
        self._guiTag = parameterNode.connectParametersToGui(widgets)
        self.addObserver(parameterNode, vtk.vtkCommand.ModifiedEvent, self.updateState)
        self.showModel()
        self.updateState()

    def _volumeInView(self):
        kind = "vtkMRMLScalarVolumeNode"
        volumes = [node for node in slicer.util.getNodesByClass(kind) if node.GetClassName() == kind]  # no label maps
        selection = slicer.app.applicationLogic().GetSelectionNode()
        active = selection.GetActiveVolumeID() if selection else None
        return next((node for node in volumes if node.GetID() == active), volumes[0] if volumes else None)

    def parameters(self) -> Parameters:
        """What a click on Segment would start."""
        return replace(
            Parameters.copyOf(self._parameterNode),
            device=self.ui.deviceSelector.currentData,
            show3D=self.ui.show3DButton.checked,
        )

    # Showing

    def updateState(self, caller=None, event=None) -> None:
        if self._parameterNode is None:
            return
        ui, node, status = self.ui, self._parameterNode, self.logic.status
        self._choose(ui.existingSelector, node.existing)
        if self._shown != (node.modelName, list(node.labels)):
            self.showModel()
        ui.setupSection.visible = bool(self._missing)
        ui.setupLabel.text = self._missing

        busy, cancelling = self.logic.busy, status.state == "cancelling"
        readiness = Readiness(True) if busy else self._readiness()
        ui.segmentButton.text = _("Cancel") if busy else _("Segment")
        ui.segmentButton.enabled = readiness.ready and not cancelling
        ui.segmentButton.toolTip = readiness.reason or (_("Stop this run.") if busy else _("Segment the volume."))
        # once a run has finished, its warnings stand in its message
        warnings = status.warnings if busy else [one for one in readiness.warnings if one not in status.warnings]
        ui.reasonLabel.text = "\n".join(filter(None, [status.message if busy else readiness.reason, *warnings]))
        ui.reasonLabel.visible = bool(ui.reasonLabel.text)
        ui.progressBar.visible = busy
        ui.releaseButton.enabled = not busy
        ui.badgeLabel.text, ui.badgeLabel.toolTip = self.logic.badge()

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
        return self.logic.check(self.parameters())

    def showModel(self) -> None:
        """The chosen model's description, labels and inputs."""
        node = self._parameterNode
        self._shown = (node.modelName, list(node.labels))
        self._choose(self.ui.modelSelector, node.modelName)
        metadata = self._models.get(node.modelName)
        self.ui.modelInfoLabel.text = Wording.describeModel(metadata) if metadata else _("No model is installed.")
        self.ui.modelInfoLabel.toolTip = Wording.aboutModel(metadata) if metadata else ""
        labels = self.ui.labelsList
        labels.blockSignals(True)
        labels.clear()
        for label in metadata.labels if metadata else ():
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
        self._showChannels([channel["name"] for channel in metadata.channels[1:]] if metadata else [])

    def _showChannels(self, names: list[str]) -> None:
        """One selector for each input volume after the first."""
        self.ui.channelsSection.visible = bool(names)
        for selector in self._channelSelectors:
            self.ui.channelsLayout.removeRow(selector)
        self._channelSelectors = []
        chosen = self._parameterNode.channels
        for index, name in enumerate(names):
            selector = slicer.qMRMLNodeComboBox()
            selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
            selector.showChildNodeTypes = False
            selector.addEnabled = selector.removeEnabled = False
            selector.setMRMLScene(slicer.mrmlScene)
            if index < len(chosen):
                selector.setCurrentNode(chosen[index])
            selector.connect("currentNodeChanged(vtkMRMLNode*)", self.onChannelChosen)
            self.ui.channelsLayout.addRow(name + ":", selector)
            self._channelSelectors.append(selector)
        self.onChannelChosen()

    def showMessage(self, text: str, hint: str = "", detail: str = "", notes=()) -> None:
        self.ui.messageLabel.text = Wording.message(text, hint, notes)
        self.ui.messageLabel.visible = bool(text)
        self.ui.detailsText.setPlainText(detail)
        self.ui.detailsButton.checked = False
        self.ui.detailsText.visible = False
        self.ui.detailsButton.visible = bool(detail)

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

    def onChannelChosen(self, node=None) -> None:
        if self._parameterNode is not None:
            self._parameterNode.channels = [selector.currentNode() for selector in self._channelSelectors]

    def onExistingChosen(self, index: int) -> None:
        if self._parameterNode is not None:
            self._parameterNode.existing = self.ui.existingSelector.itemData(index)

    def onDeviceChosen(self, index: int) -> None:
        qt.QSettings().setValue(DEVICE_SETTING, self.ui.deviceSelector.itemData(index))
        self.updateState()

    def onSegmentOrCancel(self, checked: bool = False) -> None:
        with self._errorsShown():
            if self.logic.busy:
                self.logic.cancel()
            else:
                self.showMessage("")
                self.logic.start(self.parameters())
                self.timer.start()
        self.updateState()

    def onTimer(self) -> None:
        with self._errorsShown():
            status = self.logic.poll()
            bar = self.ui.progressBar
            bar.setRange(0, status.total)  # 0 of 0 shows that something is going on
            bar.value = status.done
            bar.format = Wording.progress(status)
            if not self.logic.busy:
                self.timer.stop()
                self.onFinished(status)
        self.updateState()

    def onFinished(self, status) -> None:
        self.showMessage(status.message, status.hint, status.detail, status.warnings)
        if status.segmentation is not None and self._parameterNode is not None:
            self._parameterNode.segmentation = status.segmentation

    @contextmanager
    def _errorsShown(self):
        try:
            yield
        except UsemaError as error:
            self.showMessage(error.message, error.hint)
        except Exception:
            # A defect. Out of the timer it would come back ten times a second, and the button would stay Cancel.
            self.timer.stop()
            self.logic.shutdown()
            logging.exception("USEMA stopped")
            hint = _("Please report it, with the details and what Copy diagnostics gives.")
            self.showMessage(_("USEMA stopped because of an error of its own."), hint, traceback.format_exc())

    def onInstall(self, checked: bool = False, folder: str = "") -> None:
        with self._errorsShown():
            self.installer.install(folder)
            self.logic.releaseMemory()  # a worker that started without the packages would not see them
            self.showMessage(_("Everything that segmenting needs is installed."))
        self._missing = self.installer.words()
        self.updateState()

    def onInstallFromFolder(self, checked: bool = False) -> None:
        folder = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), _("Folder of wheel files"))
        if folder:
            self.onInstall(folder=folder)

    def onRelease(self, checked: bool = False) -> None:
        self.logic.releaseMemory()
        self.updateState()

    def onCopyDiagnostics(self, checked: bool = False) -> None:
        slicer.app.clipboard().setText(self.logic.diagnostics())
        slicer.util.showStatusMessage(_("Diagnostics copied to the clipboard"), 3000)
