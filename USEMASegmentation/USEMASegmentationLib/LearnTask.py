"""The model learns from the corrections of one case, in the worker; what it finds then is written as one step of undo.

No Qt. It works like the logic: ``start``, then ``poll`` every 100 ms while ``busy``; or ``finish`` from a script.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import slicer
from usema.errors import InputError, OutputError, UsemaError
from usema.inference.checks import meant
from usema.inference.speeds import EXACT
from usema.models.adaptable import why_not
from usema.models.bundle import Bundle
from usema.serving.protocol import RunOptions
from usema.serving.sharing import WorkerHold
from usema.volumes.margins import Margins
from usema.volumes.masks import Box

from .Parameters import TaskStatus
from .Review import Learn
from .Review.Changes import editedIn
from .Review.Slices import Slice, slicesOf, told
from .Scene import KeptDelta, Preflight
from .Scene.ExchangeFolder import ExchangeFolder
from .Scene.ReviewCase import ReviewCase
from .Scene.VolumeBridge import cropped, shapeOf, worldGeometries
from .Scene.Watch import Watch
from .WorkerTask import WorkerTask

ALLOWED_SECONDS = 600.0  # more is asked for
AUTO, LEARNED = "auto", "learned"  # ways, as the engine calls them


@dataclass
class LearnStatus(TaskStatus):
    """How far the present or the last task is. It has one more state, "asking": see ``question``.

    Attributes:
        phase: "looking", "checking", "learning", "propagating" or "segmenting".
        seconds: that all of it takes, as estimated before it began; None: not known yet.
        question: to be answered before anything is written, or before what takes long is begun.
        changedVoxels: how many were changed.
    """

    phase: str = ""
    seconds: float | None = None
    question: str = ""
    changedVoxels: int = 0


@dataclass
class _Run:
    """A request under way, and all that its result needs."""

    case: ReviewCase
    bundle: Bundle
    box: Box
    slices: list[Slice]
    names: dict[int, str]  # of the segments, by label
    volumes: Sequence
    options: RunOptions
    way: str
    allowed: float
    folder: ExchangeFolder | None = None
    watch: Watch | None = None
    answer: dict = field(default_factory=dict)  # of the engine, that waits for a question to be answered
    agreed: bool = False  # the user said yes


def whyNot(case: ReviewCase, slices: Sequence[Slice], channels: Sequence = ()) -> str:
    """Why nothing can be learned for a case, in a sentence or two; empty: it can.

    Args:
        slices: those to learn from.
        channels: volume nodes of the model's further channels.
    """
    try:
        _bundleOf(case, channels)
    except UsemaError as error:
        return str(error)
    if not slices:
        return "No slice is ticked: correct one, or accept one that is right."
    return ""


def expectedSeconds(case: ReviewCase, count: int) -> float | None:
    """About how long it takes to learn from so many slices, by what the last result took; None: not known."""
    try:
        return Learn.expectedSeconds(float(case.provenance("seconds")), count)
    except ValueError:
        return None


class LearnTask(WorkerTask):
    """One case at a time.

    Args:
        hold: on the worker, which a segmentation shares.
        removed: called with a folder that is no longer needed.
        occupied: why it cannot begin now, such as a segmentation that will change what it would learn from.
    """

    _cancelledText = "Learning was cancelled."
    _defectText = "What was learned could not be brought into the scene"

    def __init__(
        self, hold: WorkerHold, removed: Callable[[ExchangeFolder], None], occupied: Callable[[], str] = lambda: ""
    ):
        super().__init__(hold, LearnStatus(), "A model is learning. Wait for it, or cancel it.")
        self._removeFolder, self._occupied = removed, occupied
        self._run: _Run | None = None
        self._waiting: dict | None = None  # a result that waits until the scene can be written

    @property
    def busy(self) -> bool:
        return self._run is not None

    @property
    def busyText(self) -> str:
        """What is said of another task while one is under way."""
        return self._busyText

    def refuseIfBusy(self) -> None:
        """Raises InputError while one is under way."""
        self._refuseIfBusy()

    def giveUp(self) -> None:
        """End at once, without waiting for the worker."""
        self._giveUp()

    def start(
        self, case: ReviewCase, options: RunOptions | None = None, channels: Sequence = (), way: str = AUTO
    ) -> None:
        """Begin to learn from the slices of the case that are ticked.

        Args:
            options: device and tiles.
            channels: volume nodes of the model's further channels.
            way: AUTO, as the engine thinks best; LEARNED: the model itself learns, and that is kept with the case.

        Raises:
            UsemaError: it cannot begin; nothing was changed.
        """
        self._refuseIfBusy()
        if self._occupied():
            raise InputError(self._occupied())
        self._status = LearnStatus()
        bundle, slices = _bundleOf(case, channels), Learn.lessons(slicesOf(case), case.box)
        if not slices:
            raise InputError("No slice is ticked.", "Correct one, or accept one that is right.")
        for value in case.names:
            case.editable(value, (slice(0, 1),) * 3)  # masks that cannot be kept to are refused now, not after minutes
        options = replace(options or RunOptions(), probabilities=False, margins=True, speed=EXACT)
        volumes = [case.volume, *channels]
        self._ask(_Run(case.again(), bundle, case.box, slices, case.names, volumes, options, way, ALLOWED_SECONDS))

    def poll(self) -> TaskStatus:
        run, changing = self._run, bool(slicer.mrmlScene.IsBatchProcessing())
        if run is not None and not changing and not _isThere(run):
            self._cancel("The segmentation or its volume was removed while the model was learning.")
            if self._status.state == "asking":
                self.answer(False)
        if self._request is not None:
            super().poll()
        if self._waiting is not None and (self._stopping or not changing):
            event, self._waiting = self._waiting, None
            self._take(event)
        return self.status

    def cancel(self) -> None:
        if self._status.state == "asking":
            self.answer(False)
        super().cancel()

    def answer(self, yes: bool) -> None:
        """The user's answer to ``status.question``."""
        run = self._run
        if run is None or self._status.state != "asking":
            return
        event, run.answer = run.answer, {}
        if not yes:
            self._endCancelled("Nothing was written.")
        elif event["event"] == "error":
            self._removeFolder(run.folder)
            try:
                self._ask(replace(run, allowed=10 * self._status.seconds, folder=None))
            except UsemaError as error:
                self._end("failed", error.message, error.hint, code=error.code)
        else:
            run.agreed = True
            self._take(event)

    def learn(self, case: ReviewCase, *, ask: Callable[[str], bool] = lambda _: False, wait=None, **options) -> int:
        """Learn and write, for scripts: blocks, and shows nothing. Gives how many voxels have changed.

        Args:
            ask: answers a question that has to be answered before something is written.
            wait: called again and again meanwhile, as for ``USEMASegmentationLogic.segment``.
            options: those of `start`.

        Raises:
            UsemaError: what is wrong and what to do; nothing was changed.
        """
        self.start(case, **options)

        def step() -> None:
            if self._status.state == "asking":
                self.answer(ask(self._status.question))
            if wait is not None:
                wait()

        self.finish(step)
        return self._status.changedVoxels

    # The steps in between

    def _ask(self, run: _Run) -> None:
        """Send the request.

        Raises:
            UsemaError: see `start`.
        """
        folder = ExchangeFolder()
        try:
            inputs = folder.export(run.volumes, run.box)
            corrections = {
                "labels": folder.save("labels-now.npy", Learn.labelsNow(run.case, run.box, run.slices)),
                "slices": [[one.axis, one.index - run.box[one.axis].start] for one in run.slices],
                "edited": folder.save("edited.npy", editedIn(run.case.edits(), run.box)),
            }
            self._begin(
                "adapt",
                LearnStatus("running", message="Starting the engine", seconds=self._status.seconds),
                model=str(run.bundle.path.resolve()),
                inputs=inputs,
                output=str(folder.path),
                corrections=corrections,
                labels=[label.name for label in run.bundle.metadata.labels if label.value in run.case.names],
                way=run.way,
                seconds_allowed=run.allowed,
                **run.options.to_request(),
            )
        except BaseException:
            self._removeFolder(folder)
            self._run = None
            raise
        run.folder, run.watch = folder, Watch(run.volumes)
        self._run = run

    def _onStep(self, event: dict) -> None:
        status = self._status
        if event["event"] == "loading":
            self._status = replace(status, message="Loading the model")
        elif event["event"] == "estimate":
            self._status = replace(status, seconds=float(event["seconds"]), secondsLeft=float(event["seconds"]))
        elif event["event"] == "progress":
            done, total, left = event["done"], event["total"], event["seconds_left"]
            phase = str(event["phase"])
            self._status = replace(status, message="", phase=phase, done=done, total=total, secondsLeft=left)

    def _onError(self, event: dict) -> None:
        seconds = self._status.seconds
        if self._run is not None and event["code"] == InputError.code and seconds and seconds > self._run.allowed:
            self._askUser(event, f"{event['message']} Learn all the same?")
            return
        stopped = {"message": self._cancelledText, "hint": "Nothing was written."} if self._stopping else {}
        super()._onError({**event, **stopped})

    def _onResult(self, event: dict) -> None:
        if self._stopping:
            self._endCancelled("Nothing was written.")
        elif slicer.mrmlScene.IsBatchProcessing():
            self._waiting = event
        elif event["adaptation"]["question"] and not self._run.agreed:
            self._askUser(event, event["adaptation"]["question"])
        else:
            self._write(self._run, event)

    def _askUser(self, event: dict, question: str) -> None:
        self._request, self._run.answer = None, event
        self._status = replace(self._status, state="asking", question=question, secondsLeft=None)

    def _write(self, run: _Run, event: dict) -> None:
        adaptation, message = event["adaptation"], event["adaptation"]["message"]
        if adaptation["way"] == "unchanged":
            self._end("done", message)
            return
        case = _fresh(run)
        changed = run.watch.changes(run.folder, run.box)
        if changed:
            raise OutputError(changed, "Segment the volume again, then learn.")
        shape = tuple(part.stop - part.start for part in run.box)
        labels, text = run.folder.load(event["labels"], shape), run.folder.loadText(event["margins"])
        margins = Margins.from_text(text, [part.start for part in run.box], shapeOf(case.volume))
        delta = KeptDelta.readFile(event["delta"]) if event["delta"] else ""
        provenance = {**event["provenance"], "adaptedFrom": told(run.slices)}
        places = [(one.axis, one.index) for one in run.slices]
        count = Learn.apply(case, run.box, labels, margins, places, provenance, delta)
        self._status = replace(self._status, changedVoxels=count, warnings=list(event["warnings"]))
        if not count and adaptation["way"] != LEARNED:
            message = "The corrected and accepted slices change nothing in the others."
        self._end("done", message)

    def _giveUp(self) -> None:
        if self._request is None:
            self.answer(False)
        super()._giveUp()

    def _end(self, state: str, message: str, hint: str = "", detail: str = "", code: str = "") -> None:
        self._status = replace(self._status, question="", phase="")
        super()._end(state, message, hint, detail, code)

    def _onEnd(self) -> None:
        run, self._run, self._waiting = self._run, None, None
        if run is not None and run.folder is not None:
            self._removeFolder(run.folder)


def _bundleOf(case: ReviewCase, channels: Sequence) -> Bundle:
    """The model that made a case.

    Raises:
        UsemaError: it cannot learn from it.
    """
    bundle = Preflight.modelHere(case.provenance("model"))
    metadata = bundle.metadata
    reason = why_not(metadata)
    if reason:
        raise InputError(reason)
    if case.provenance("weightsSha256") != metadata.weights["sha256"]:
        raise InputError(
            f"Another version of the model '{metadata.title}' made this result than the one on this computer.",
            "Segment again, then learn.",
        )
    if len(channels) + 1 != len(metadata.inputs):
        raise InputError(
            f"The model '{metadata.title}' takes {len(metadata.inputs)} volumes.",
            "Choose this model and its volumes in the section Segment.",
        )
    geometry = cropped(worldGeometries([case.volume])[0], case.box)
    values = [label.value for label in meant(metadata, metadata.result_labels, geometry)]
    gone = [label.name for label in metadata.labels if label.value in Learn.missing(case, values)]
    if gone:
        raise InputError(
            f"There is no segment for {', '.join(gone)}: the model would learn that there is nothing of it.",
            "Segment all labels of the model, then learn.",
        )
    return bundle


def _isThere(run: _Run) -> bool:
    return all(map(slicer.mrmlScene.IsNodePresent, (run.case.node, *run.volumes)))


def _fresh(run: _Run) -> ReviewCase:
    """The case as it is now.

    Raises:
        OutputError: what was learned from is no longer there.
    """
    try:
        case = run.case.again()
        if set(case.names) == set(run.names):
            return case
        reason = "its segments were removed or replaced"
    except ValueError as error:
        reason = str(error)
    raise OutputError(
        f"The result that was learned from is no longer there: {reason}. Nothing was written.", "Learn again."
    )
