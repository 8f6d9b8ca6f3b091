"""The chosen model: its state in words, and how it gets to this computer. Knows the widgets' functions, but no Qt."""

from __future__ import annotations

from collections.abc import Callable

import slicer
from slicer.i18n import tr as _
from usema.errors import UsemaError
from usema.store.consent import Question
from usema.store.finding import Measures
from usema.store.library import AVAILABLE, UPDATE, KnownModel

from ..ModelStore import ModelStore
from ..Parameters import Readiness
from . import ShelfTexts, StoreTexts
from .RunTexts import asHtml
from .Signals import connect
from .TaskDisplay import TaskDisplay

UNFOLDED_SETTING = "USEMA/LimitsUnfolded"


class ModelSection:
    """Model selector, description and download.

    Args:
        ui: the panel's widgets.
        store: does the work.
        installer: knows what downloading needs.
        settings: a QSettings; whether limits and licence are unfolded is remembered there.
        started: called when a task has begun, which ``store.poll()`` has to carry on.
    """

    def __init__(self, ui, store: ModelStore, installer, settings, started: Callable[[], None]):
        self.ui = ui
        self.store = store
        self.installer = installer
        self.settings = settings
        self.started = started
        self.models: dict[str, KnownModel] = {}
        self.volume: Measures | None = None  # the chosen one's
        self.segmentsNext: object = None  # what Segment was clicked for, while its model is being downloaded
        self._fromShelf: list[str] = []  # names of public models that were chosen; the others are not listed
        self._shown = ""
        self.display = TaskDisplay(ui.downloadBar, ui.downloadLabel, {"download"})
        connect(ui.downloadButton, "clicked(bool)", self.onDownloadOrCancel)
        connect(ui.aboutButton, "toggled(bool)", self.onUnfolded)
        ui.aboutButton.checked = slicer.util.toBool(settings.value(UNFOLDED_SETTING, False))
        self.onUnfolded(ui.aboutButton.checked)

    def fill(self) -> None:
        """Looks which models there are; ``show`` chooses one."""
        known = self.store.library()
        self.models = {model.name: model for model in known.models}
        for name in self._fromShelf:
            self.models.setdefault(name, known.get(name))
        selector = self.ui.modelSelector
        selector.blockSignals(True)
        selector.clear()
        for name, model in self.models.items():
            selector.addItem(StoreTexts.choice(model), name)
        selector.blockSignals(False)

    def knows(self, name: str) -> bool:
        """Whether there is such a model; one from the shelf is then among those to choose from."""
        if name not in self.models and self.store.find(name) is not None:
            self._fromShelf.append(name)
            self.fill()
        return name in self.models

    def nameToBegin(self) -> str:
        """The model to be chosen at first: one that is here."""
        names = [name for name, model in self.models.items() if model.bundle] or list(self.models)
        return names[0] if names else ""

    def furtherChannels(self, name: str) -> list[str]:
        """Names of a model's input volumes after the first; none as long as it is not here."""
        model = self.models.get(name)
        return [*model.bundle.metadata.inputs[1:]] if model and model.bundle else []

    def isMissing(self, name: str) -> bool:
        """Whether a model has to be downloaded before it can segment."""
        return name in self.models and self.models[name].state == AVAILABLE

    def readiness(self, name: str) -> Readiness:
        """Of a model that is missing: Segment offers to download it."""
        model = self.models[name]
        if model.why_not:
            return Readiness(False, model.why_not)
        status = self.store.status
        if self.store.busy:
            coming = (status.task, status.modelName) == ("download", name)
            reason = _("This model is being downloaded.") if coming else _("Wait until the other task is done.")
            if coming and self.segmentsNext is not None:
                reason = _("This model is being downloaded; then the volume is segmented.")
            return Readiness(False, reason)
        text = _("This model is not on this computer yet. Segment downloads it first ({size}).")
        found = self.store.describe(model, self.volume)
        warnings = [ShelfTexts.memory(found)] if ShelfTexts.memoryIsShort(found) else []
        return Readiness(True, warnings=[text.format(size=ShelfTexts.sizeOf(found)), *warnings])

    def show(self, name: str) -> None:
        """The description of a model, and what can be done to get it."""
        model = self.models.get(name)
        if name != self._shown:
            self._shown = name
            self.display.clear()
        self.ui.modelSelector.setCurrentIndex(max(0, self.ui.modelSelector.findData(name)))
        known = model is not None
        self.ui.modelSelector.toolTip = asHtml(StoreTexts.choice(model)) if known else ""
        self.ui.modelFindsLabel.text = StoreTexts.findsOf(model) if known else _("No model is installed.")
        self.ui.modelInfoLabel.text = StoreTexts.termsOf(model) if known else ""
        for label in (self.ui.modelFindsLabel, self.ui.modelInfoLabel):
            label.toolTip = StoreTexts.aboutModel(model) if known else ""
        self.ui.aboutButton.visible = bool(self.ui.modelInfoLabel.text)
        self.update()

    def onUnfolded(self, unfolded: bool) -> None:
        """Limits, licence and version, shown or not as the user last chose on this computer."""
        self.ui.aboutButton.text = f"{'▾' if unfolded else '▸'} {_('Limits and licence')}"
        self.ui.modelInfoLabel.visible = unfolded
        self.settings.setValue(UNFOLDED_SETTING, unfolded)

    def update(self) -> None:
        """Button, progress and message of the download."""
        self.display.update(self.store)
        button, model = self.ui.downloadButton, self.models.get(self.ui.modelSelector.currentData)
        if self.display.running:
            button.text, button.toolTip = _("Cancel"), _("Stop the download. It goes on from there the next time.")
            button.enabled, button.visible = self.store.status.state != "cancelling", True
            return
        offered = model is not None and model.state in (AVAILABLE, UPDATE)
        button.visible = offered
        if offered:
            button.text = _("Update...") if model.state == UPDATE else _("Download...")
            size = ShelfTexts.sizeOf(self.store.describe(model, self.volume))
            words = model.why_not or _("Download this model ({size}). You are asked first.").format(size=size)
            button.toolTip = asHtml(words)
            button.enabled = not model.why_not and not self.store.busy

    def onDownloadOrCancel(self, checked: bool = False) -> None:
        if self.display.running:
            self.segmentsNext = None  # also where the last bytes come before the engine hears of it
            self.store.cancel()
            self.update()
        else:
            self.offer(self.ui.modelSelector.currentData)

    def offer(self, name: str, thenSegments: object = None) -> None:
        """Asks whether to download a model, and begins.

        Args:
            thenSegments: what Segment was clicked for; None: it was not.
        """
        try:
            model = self.models[name]
            question = self.store.questionOf(model.entry)
            if self._agreed(model, question, thenSegments is not None):
                self.store.download(name, consent=question, shown=model.entry)
                self.segmentsNext = thenSegments
                self.started()
        except UsemaError as error:
            self.display.showError(error)
        self.update()

    def isToSegment(self, subject: object) -> bool:
        """Whether a download that has just ended was begun to segment that, and the model is here now."""
        wanted, self.segmentsNext = self.segmentsNext, None
        return wanted is not None and wanted == subject and self.store.status.state == "done"

    def _agreed(self, model: KnownModel, question: Question | None, thenSegments: bool) -> bool:
        if model.why_not or self.store.busy:
            return True  # the store says why not
        missing = self.installer.missingForStore()
        found, packages = self.store.describe(model, self.volume), [one.title for one in missing]
        text = StoreTexts.downloadQuestion(model.entry, found, question, packages, thenSegments)
        if not slicer.util.confirmOkCancelDisplay(text, windowTitle="USEMA Segmentation"):
            return False
        if missing:
            self.installer.installForStore(agreed=True)
        if found.public is not None and self.installer.missing():  # to convert a model takes what running one does
            self.installer.install()
        return True
