"""What a person does: choose a volume and a model, segment, correct, download. Knows neither trame nor Qt.

It drives the panel's own logic. What is to be seen goes to a ``Page``.
"""

from __future__ import annotations

from typing import Any, Protocol

import slicer
from usema.errors import UsemaError
from usema.store.consent import Question
from usema.store.library import AVAILABLE, UPDATE, KnownModel
from USEMASegmentationLib.Logic import USEMASegmentationLogic
from USEMASegmentationLib.Panel import RunTexts, ShelfTexts, SliceViews, StoreTexts
from USEMASegmentationLib.Parameters import Readiness
from USEMASegmentationLib.Scene.VolumeBridge import measuresOf, referenceVolume

from .reviewing import Reviewing
from .scene import SEGMENTATIONS, VOLUMES, nodes_of


class Page(Protocol):
    """What shows it."""

    def show(self, **words: Any) -> None:
        """Show values under their names; ``WORDS`` lists them."""

    def display(self, volume, segmentation) -> None:
        """Show a volume in the views, and a segmentation, or None, to be corrected."""

    def look(self, place: tuple[float, float, float]) -> None:
        """Take the slice views to a place: RAS millimetres in the world."""


# name -> what is shown at first
WORDS: dict[str, Any] = {
    "volumes": [],  # of {title, value}
    "volume": "",
    "models": [],
    "model": "",
    "search": "",
    "finds": "",  # what the model finds
    "limits": "",
    "licence": "",
    "ready": False,  # Segment may be clicked
    "reason": "",  # why not, or what speaks against it
    "busy": False,
    "progress": 0,  # percent; 0 while nothing is known
    "step": "",
    "message": "",
    "hint": "",
    "notes": [],
    "failed": False,
    "detail": "",
    "segmentations": [],
    "segmentation": "",
    "download": "",  # text of the button that downloads the model; empty: nothing to download
    "downloading": False,
    "downloaded": 0,  # percent
    "downloadStep": "",
    "reviewable": False,  # the segmentation that is shown has a list of doubtful regions, or can get one
    "regions": "",  # what is said of it
    "regionsLeft": 0,
    "region": False,  # one is looked at
    "question": "",  # HTML of what is asked before a download; empty: nothing is asked
}


class Flow:
    """One person's work.

    Args:
        page: shows it.
        logic: segments; None: a new one.
    """

    def __init__(self, page: Page, logic: USEMASegmentationLogic | None = None):
        self.page = page
        self.logic = logic or USEMASegmentationLogic()
        self._models: dict[str, KnownModel] = {}
        self._volume = self._segmentation = ""  # IDs
        self._model = ""
        self._asked: tuple[KnownModel, Question | None] | None = None
        self._downloading = False
        page.show(**WORDS)
        self.reviewing = Reviewing(page.show, page.look)
        self.search("")

    # What there is

    def look(self) -> None:
        """Look what is in the scene, with what was painted by hand, and whether Segment would begin."""
        volumes = {one.GetID(): one.GetName() for one in nodes_of(VOLUMES)}
        # Without a segment it is one to paint by hand, which nobody painted yet.
        painted = [one for one in nodes_of(SEGMENTATIONS) if one.GetSegmentation().GetNumberOfSegments()]
        segmentations = {one.GetID(): one.GetName() for one in painted}
        self._volume = self._volume if self._volume in volumes else next(reversed(volumes), "")
        if self._segmentation not in segmentations:
            of_volume = (one.GetID() for one in reversed(painted) if referenceVolume(one) is self.volume)
            self._segmentation = next(of_volume, "")
        self.page.show(
            volumes=_choices(volumes),
            volume=self._volume,
            segmentations=_choices(segmentations),
            segmentation=self._segmentation,
        )
        self._tell()

    def search(self, text: str) -> None:
        """List the models that a person means; without a text, those that are here and in lists of models."""
        store = self.logic.store
        found = [one.model for one in store.search(text)] if text.strip() else store.library().models
        self._models = {model.name: model for model in found}
        if self._model not in self._models:
            here = [name for name, model in self._models.items() if model.bundle]
            self._model = (here or [*self._models, ""])[0]
        titles = {name: StoreTexts.choice(model) for name, model in self._models.items()}
        self.page.show(models=_choices(titles), search=text)
        self.choose_model(self._model)

    @property
    def volume(self):
        """The node that is to be segmented, or None."""
        return slicer.mrmlScene.GetNodeByID(self._volume) if self._volume else None

    @property
    def segmentation(self):
        """The node that is to be corrected, or None."""
        return slicer.mrmlScene.GetNodeByID(self._segmentation) if self._segmentation else None

    # What is chosen

    def choose_volume(self, identifier: str) -> None:
        """Show a volume, with the last segmentation that was made of it."""
        self._volume = identifier
        self._segmentation = ""  # the look takes the last one of the volume
        self.look()
        self.page.display(self.volume, self.segmentation)
        self.reviewing.of(self.segmentation)

    def choose_segmentation(self, identifier: str) -> None:
        """Show a segmentation, on the volume that it was made of."""
        self._segmentation = identifier
        made_of = referenceVolume(self.segmentation)
        if made_of is not None:
            self._volume = made_of.GetID()
        self.look()
        self.page.display(self.volume, self.segmentation)
        self.reviewing.of(self.segmentation)

    def choose_model(self, name: str) -> None:
        """Say what a model finds, and how it can be had."""
        self._model = name
        model = self._models.get(name)
        self.page.show(model=name, **self._words_of(model))
        self._tell()

    # What is done

    def segment_or_cancel(self) -> None:
        """The button: begins, or stops what runs. ``poll`` carries it on."""
        if self.logic.busy:
            self.logic.cancel()
        else:
            self._say("")
            self._shown(lambda: self.logic.start(inputVolume=self.volume, modelName=self._model))
        self._tell()

    def ask_to_download(self) -> None:
        """Show what a download means; ``download`` or ``decline`` answers."""
        model = self._models[self._model]
        question = self.logic.store.questionOf(model.entry)
        self._asked = model, question
        found = self.logic.store.describe(model, measuresOf(self.volume))
        self.page.show(question=StoreTexts.downloadQuestion(model.entry, found, question))

    def decline(self) -> None:
        """No."""
        self._asked = None
        self.page.show(question="")

    def download(self) -> None:
        """Yes to what was asked; a second click, or one in another tab, comes when nothing is asked any more."""
        if self._asked is None:
            return
        model, question = self._asked
        self.decline()
        self._say("")
        self._shown(lambda: self.logic.store.download(model.name, consent=question, shown=model.entry))
        self._downloading = self.logic.store.busy
        self._tell()

    def cancel_download(self) -> None:
        """What has come stays for the next time."""
        self.logic.store.cancel()

    @property
    def busy(self) -> bool:
        """Whether ``poll`` has to be called again."""
        return self.logic.busy or self.logic.store.busy

    def poll(self) -> None:
        """Carry on what runs, and show how far it is. Call it every 100 ms while ``busy``."""
        if self.logic.busy:
            self._shown(self.logic.poll)
            if not self.logic.busy:
                self._ended()
        if self.logic.store.busy:
            self._shown(self.logic.store.poll)
        if self._downloading and not self.logic.store.busy:
            self._downloading = False
            status = self.logic.store.status
            self._say(status.message or f"{status.title} is here now.", status.hint, status.state == "failed")
            self.search("")
        self._tell()

    def close(self) -> None:
        """End whatever runs."""
        self.logic.shutdown()

    # What is said

    def _ended(self) -> None:
        status = self.logic.status
        result = status.segmentation
        made_of = referenceVolume(result)
        elsewhere = made_of is not None and made_of is not self.volume
        notes = [*status.warnings]
        if elsewhere:  # the person went on to another volume, and may paint there
            notes.append(f"It is of {made_of.GetName()}: choose {result.GetName()} under Segmentation to see it.")
        self._say(status.message, status.hint, status.state == "failed", status.detail, notes)
        if elsewhere:
            self.look()
        elif result is not None:
            self.choose_segmentation(result.GetID())
            middle = SliceViews.middleOf(result)
            if self.volume is not None and SliceViews.isFirst(self.volume) and middle is not None:
                self.page.look(middle)  # what was found may lie in no slice that is shown

    def _say(self, text: str, hint: str = "", failed: bool = False, detail: str = "", notes: list[str] = ()) -> None:
        self.page.show(message=text, hint=hint, failed=failed, detail=detail, notes=[*notes])

    def _shown(self, action) -> None:
        """Run an action; an error becomes a message."""
        try:
            action()
        except UsemaError as error:
            self._say(error.message, error.hint, failed=True)

    def _tell(self) -> None:
        status, store = self.logic.status, self.logic.store.status
        busy = self.logic.busy
        ready, reason = busy, status.message
        if not busy:
            readiness = self._readiness()
            ready, reason = readiness.ready, readiness.reason or "\n".join(readiness.warnings)
        self.page.show(
            busy=busy,
            ready=ready and status.state != "cancelling",
            reason=reason,
            progress=_percent(status) if busy else 0,
            step=RunTexts.progress(status) if busy else "",
            downloading=self._downloading,
            downloaded=_percent(store),
            downloadStep=store.message,
        )

    def _readiness(self):
        model = self._models.get(self._model)
        if model is not None and model.state == AVAILABLE:
            return Readiness(False, model.why_not or "This model is not on this computer yet: download it first.")
        if self.volume is None:
            return Readiness(False, "Open a volume or an image first: a file or a folder of DICOM images.")
        return self.logic.check(inputVolume=self.volume, modelName=self._model)

    def _words_of(self, model: KnownModel | None) -> dict[str, str]:
        if model is None:
            return {"finds": "No model is known by these words.", "limits": "", "licence": "", "download": ""}
        offered = model.state in (AVAILABLE, UPDATE) and not model.why_not
        size = ShelfTexts.sizeOf(self.logic.store.describe(model)) if offered else ""
        return {
            "finds": StoreTexts.findsOf(model),
            "limits": model.bundle.metadata.limits if model.bundle else "",
            "licence": f"{model.licence.name}, {StoreTexts.describeState(model)}" if model.licence else "",
            "download": f"{'Update' if model.state == UPDATE else 'Download'} ({size})" if offered else "",
        }


def _choices(titles: dict[str, str]) -> list[dict[str, str]]:
    return [{"title": title, "value": value} for value, title in titles.items()]


def _percent(status) -> int:
    return round(100 * status.done / status.total) if status.total else 0
