"""The panel: shows what is, and turns clicks into calls of the logic. No numerics."""

from __future__ import annotations

import logging
import sys
from contextlib import ExitStack
from dataclasses import replace

import qt
import slicer
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget
from slicer.util import VTKObservationMixin

from ..Logic import USEMASegmentationLogic
from ..Parameters import Parameters, Readiness
from ..Scene import Terminologies
from ..Scene.Hierarchy import modalityOf
from ..Scene.Sequences import frameOf
from ..Scene.VolumeBridge import measuresOf
from ..Steps import atOnce
from . import SliceViews, StoreTexts
from .AdvancedSection import AdvancedSection
from .ChannelSelectors import ChannelSelectors
from .CorrectSection import CorrectSection
from .Failure import showFailure
from .Installer import Installer
from .InstallSection import InstallSection
from .LabelsList import LabelsList
from .ManageForm import loadManageSection
from .MeasureSection import MeasureSection
from .ModelSection import ModelSection
from .NextResultSection import NextResultSection
from .ParameterBinding import ParameterBinding
from .RegionSection import RegionSection
from .ResultDisplay import ResultDisplay
from .ReviewSection import ReviewSection
from .Room import giveRoom
from .RunSection import RunSection
from .ShelfSection import ShelfSection
from .Signals import connect
from .SurfaceSection import SurfaceSection
from .TrainingSection import TrainingSection
from .WarmUp import WarmUp

POLL_MILLISECONDS = 100
MOVING_MILLISECONDS = 10  # between two moments of work that the logic does in the main thread


class USEMASegmentationWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """From top to bottom in the order of the work: what is missing, segment, correct, models, advanced."""

    def __init__(self, parent=None):
        VTKObservationMixin.__init__(self)
        self.ui = None
        self.logic = None
        self.binding = None
        self._isReady = False  # setup went through to its end
        self._endings = ExitStack()  # undoes what setup has begun, also one that failed half-way
        self._editTold = False  # that voxels were edited, and are still to be counted
        self._shown = None  # model and labels that the list shows
        self._subject = None  # volume and model that the last message was about
        # last, because without a parent it calls setup()
        ScriptedLoadableModuleWidget.__init__(self, parent)

    # Life of the panel

    def setup(self) -> None:
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = None
        try:
            uiWidget = slicer.util.loadUI(self.resourcePath("UI/USEMASegmentation.ui"))
            self.layout.addWidget(uiWidget)
            self._build(uiWidget)
            self._isReady = True
            if getattr(self.parent, "isEntered", False):  # reloaded: the application does not enter it again
                self.enter()
        except Exception as error:
            self.cleanup()
            if uiWidget is not None:
                uiWidget.visible = False
            showFailure(self.layout, error)

    def _build(self, uiWidget) -> None:
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        self.logic = USEMASegmentationLogic()
        self._endings.callback(self.logic.shutdown)
        self.warmUp = WarmUp(self.logic, self._isShown)
        self._endings.callback(self.warmUp.close)
        self._timer(lambda: giveRoom(uiWidget)).start()
        self.installer = Installer()
        self.timer, self.storeTimer = self._timer(self.onTimer), self._timer(self.onStoreTimer)  # both may be at work
        self.modelSection = ModelSection(self.ui, self.logic.store, self.installer, qt.QSettings(), self.onStoreStarted)
        self.manageSection = loadManageSection(self)
        self.channelSelectors = ChannelSelectors(self.ui.channelsSection, self.onChannelsChosen)
        self.shelfSection = ShelfSection(self.ui, self.logic.store, self.onShelfChosen)
        self.labelsList = LabelsList(self.ui, self.onLabelTicked)
        self.correctSection = CorrectSection(self.ui.segmentEditor, self.onEdited)
        self._endings.callback(self.correctSection.exit)
        self._endings.callback(self.correctSection.close)
        self.resultDisplay = ResultDisplay(self.correctSection, lambda: self._parameterNode, self._isShown)
        self.logic.beforeWriting, self.logic.afterWriting = self.correctSection.saveForUndo, self.resultDisplay.showing
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.runSection = RunSection(self.ui, self._stopAll)
        self.installSection = InstallSection(
            self.ui, self.installer, self.runSection, self.logic.releaseMemory, self.showModels
        )
        self.measureSection = MeasureSection(self.ui, self.runSection, self._timer)
        self.regionSection = RegionSection(self.ui, self.runSection, self.parameters)
        self.surfaceSection = SurfaceSection(self.ui)
        self.trainingSection = TrainingSection(self.ui, self.runSection, self.parameters, self.installer)
        reviewUi = self._form("UI/Review.ui", self.ui.reviewFrame)
        self.reviewSection = ReviewSection(
            reviewUi, self.correctSection, self.runSection.errorsShown, self.logic.learning, self._timer,
            self.parameters, self.updateState,
        )  # fmt: skip
        self._endings.callback(self.reviewSection.close)
        self.advancedSection = AdvancedSection(self.ui, self.logic, self.installer, qt.QSettings(), self.updateState)
        self.nextResultSection = NextResultSection(
            self.ui, self.logic, self.onExistingChosen, self._timer(self.updateCorrections)
        )
        self.binding = ParameterBinding(self.moduleName, vars(self.ui).values(), self.updateState, self._timer)
        self._endings.callback(self.binding.release)
        self.showModels()
        self._connect()
        self.initializeParameterNode()

    def _timer(self, slot):
        timer = qt.QTimer()
        timer.interval = POLL_MILLISECONDS
        connect(timer, "timeout()", slot)
        self._endings.callback(timer.stop)
        return timer

    def _form(self, name: str, frame):
        """Loads a section of its own into the panel."""
        widget = slicer.util.loadUI(self.resourcePath(name))
        frame.layout().addWidget(widget)
        return slicer.util.childWidgetVariables(widget)

    def _connect(self) -> None:
        self._endings.callback(self.removeObservers)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartImportEvent, self.onSceneStartImport)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneReplaced)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneReplaced)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeRemovedEvent, lambda *_: self.onEdited())
        connect(self.ui.modelSelector, "currentIndexChanged(int)", self.onModelChosen)
        connect(self.ui.segmentButton, "clicked(bool)", self.onSegmentOrCancel)
        connect(slicer.app, "aboutToQuit()", self.logic.shutdown)
        self._endings.callback(slicer.app.disconnect, "aboutToQuit()", self.logic.shutdown)

    def enter(self) -> None:
        if not self._isReady:
            return
        with self.runSection.errorsShown():
            self.installSection.look()
            self.showModels()  # the command line may have changed what is here
            if not self.binding.isCurrent():
                self.initializeParameterNode()
            self.correctSection.enter()
            self.reviewSection.enter()
            self.warmUp.again()
            self.updateState()
        self.installSection.offer()

    def exit(self) -> None:
        if self._isReady:  # a run goes on; its result is there when the user comes back
            self.correctSection.exit()
            self.reviewSection.exit()

    def cleanup(self) -> None:
        self._isReady = False
        try:
            self._endings.close()  # each ending is tried, whatever the others do
        except Exception:
            logging.exception("USEMA Segmentation did not close as it should")

    def onReload(self) -> None:
        # Slicer loads the module's own file again, but not what that imports.
        for name in list(sys.modules):
            if name.split(".")[0] in ("USEMASegmentationLib", "usema"):
                del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def onSceneStartClose(self, caller, event) -> None:
        self.binding.release()
        self.reviewSection.close()
        self.correctSection.close()

    def onSceneStartImport(self, caller, event) -> None:
        self.binding.release()  # half a scene is nothing to be shown

    def onSceneReplaced(self, caller, event) -> None:
        """Closed, or another was loaded into it."""
        with self.runSection.errorsShown():
            SliceViews.lookAway()  # it may have been saved while a region was looked at
            if self._isShown():
                self.initializeParameterNode()
                qt.QTimer.singleShot(0, self.updateState)  # when loading has ended, the editor has forgotten it
            else:
                self.binding.release()  # until the user comes back

    def _isShown(self) -> bool:
        # a panel in a window of its own has no module around it that could be entered
        return getattr(self.parent, "isEntered", True)

    # State of the scene

    @property
    def _parameterNode(self):
        return self.binding.node

    def initializeParameterNode(self) -> None:
        """Shows the choices that the scene has now."""
        self.binding.renew()
        self.showModel()
        self.updateState()

    def parameters(self) -> Parameters:
        """What a click on Segment would start."""
        return replace(
            Parameters.copyOf(self._parameterNode),
            device=self.advancedSection.device(),
            show3D=self.ui.show3DButton.checked,
            allFrames=self._parameterNode.allFrames and frameOf(self._parameterNode.inputVolume) is not None,
        )

    # Showing

    def updateState(self) -> None:
        if self._parameterNode is None:
            return
        ui, node, busy = self.ui, self._parameterNode, self.logic.busy
        volume = self.modelSection.volume = measuresOf(node.inputVolume)
        if self._shown != (node.modelName, list(node.labels)):
            self.showModel()
        self.installSection.update()
        if not busy and self._subject != (subject := self._subjectNow()):
            self._subject = subject
            self.runSection.say("")
        readiness = Readiness(True) if busy else self._readiness()
        self.runSection.update(self.logic.status, busy, readiness)
        here = readiness.ready and not self.modelSection.isMissing(node.modelName)
        self.warmUp.update(self._subjectNow() if here else None)
        self.measureSection.update(None if busy else node.segmentation, node.inputVolume)
        self.regionSection.update(busy)
        self.trainingSection.update(busy)
        self.advancedSection.update(node, self.modelSection.models.get(node.modelName))
        self.shelfSection.preset("" if node.inputVolume is None else modalityOf(node.inputVolume), volume)
        ui.allFramesCheckBox.visible = frameOf(node.inputVolume) is not None
        self.surfaceSection.update(node.segmentation, node.inputVolume)
        ui.segmentEditor.visible = node.segmentation is not None
        ui.correctHintLabel.visible = node.segmentation is None
        self.updateCorrections()
        self.resultDisplay.open()

    def updateCorrections(self) -> None:
        """What the user has corrected by now."""
        self._editTold = False
        if self._parameterNode is not None and not self.logic.busy:
            self.nextResultSection.update(self.parameters())
            self.reviewSection.show(self._parameterNode.segmentation)

    def _subjectNow(self) -> tuple[str | None, str]:
        """What a message is about; with another volume or model, it is no longer true."""
        volume = self._parameterNode.inputVolume
        return (None if volume is None else volume.GetID()), self._parameterNode.modelName

    def _readiness(self) -> Readiness:
        if self.installSection.missing:
            return Readiness(False, _("Install what is missing first (see above)."))
        if self.labelsList.isNoneTicked():
            return Readiness(False, _("Tick at least one segment."))
        if self.modelSection.isMissing(self._parameterNode.modelName):
            return self.modelSection.readiness(self._parameterNode.modelName)
        return self.logic.check(self.parameters())

    def showModels(self) -> None:
        """All known models, and the chosen one; to be called when there are others, or another state of one."""
        self.manageSection.fill()
        self.modelSection.fill()
        self.shelfSection.fill()
        Terminologies.offer()
        if self._parameterNode is not None:
            self.showModel()
            self.updateState()

    def showModel(self) -> None:
        """The chosen model's description, labels and inputs."""
        node = self._parameterNode
        if not self.modelSection.knows(node.modelName):
            self._chooseAnotherModel()
        self._shown = (node.modelName, list(node.labels))
        self.modelSection.show(node.modelName)
        model = self.modelSection.models.get(node.modelName)
        self.labelsList.show(() if model is None else model.labels, node.labels)
        self.channelSelectors.show(self.modelSection.furtherChannels(node.modelName), node.channels)

    def _chooseAnotherModel(self) -> None:
        """In place of one that is not known here: it was deleted, or the scene comes from another computer."""
        node, gone = self._parameterNode, self._parameterNode.modelName
        with slicer.util.NodeModify(node):
            node.labels = []
            node.modelName = self.modelSection.nameToBegin()
        self._subject = self._subjectNow()
        if gone:
            self.runSection.say(*StoreTexts.goneModel(gone, self.modelSection.models.get(node.modelName)))

    # Clicks

    def onModelChosen(self, index: int) -> None:
        name = self.ui.modelSelector.itemData(index)
        if self._parameterNode is not None and name != self._parameterNode.modelName:
            self.onShelfChosen(name, [])

    def onShelfChosen(self, name: str, labels: list[str]) -> None:
        if self._parameterNode is not None:
            with slicer.util.NodeModify(self._parameterNode):
                self._parameterNode.labels = labels
                self._parameterNode.modelName = name

    def onLabelTicked(self) -> None:
        labels = self.labelsList.chosen()
        self._shown = (self._parameterNode.modelName, labels)
        self._parameterNode.labels = labels
        self.updateState()

    def onChannelsChosen(self, nodes: list) -> None:
        if self._parameterNode is not None:
            self._parameterNode.channels = nodes

    def onExistingChosen(self, existing: str) -> None:
        if self._parameterNode is not None:
            self._parameterNode.existing = existing

    def onSegmentOrCancel(self, checked: bool = False) -> None:
        with self.runSection.errorsShown():
            if self.logic.busy:
                self.runSection.second.unless(self.logic.cancel)
            elif self.modelSection.isMissing(self._parameterNode.modelName):
                self.modelSection.offer(self._parameterNode.modelName, self._subjectNow())
            else:
                self._start()
        self.updateState()

    def _start(self) -> None:
        self.runSection.say("")
        self.logic.start(self.parameters())
        self.timer.start()

    def onTimer(self) -> None:
        with self.runSection.errorsShown():
            status, moving = self.logic.poll(), self.logic.isMoving
            self.timer.interval = MOVING_MILLISECONDS if moving else POLL_MILLISECONDS
            if moving:
                return
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
            if self.modelSection.isToSegment(None if self._parameterNode is None else self._subjectNow()):
                self._start()
                self.updateState()
            if status.task == "import" and status.state == "done":
                self.ui.modelSelector.setCurrentIndex(self.ui.modelSelector.findData(status.modelName))

    def onFinished(self, status) -> None:
        if status.segmentation is not None and self._parameterNode is not None:
            atOnce(self.resultDisplay.showing(status.segmentation))  # what is shown already takes no time
        if self._parameterNode is not None:
            self._subject = self._subjectNow()
        notes = [] if status.state == "cancelled" else status.warnings  # those are of a result
        self.runSection.say(status.message, status.hint, status.detail, notes)

    def _stopAll(self) -> None:
        self.timer.stop()
        self.storeTimer.stop()
        self.logic.shutdown()

    def onEdited(self) -> None:
        # Slicer tells of it while the voxels are still being written, and more than once a stroke.
        if not self._editTold:
            self._editTold = True
            qt.QTimer.singleShot(0, self.updateCorrections)
