"""The models on this computer and those to be had: list, download, import, verify, delete. No Qt and no pop-ups.

The work is done by another process (``usema.serving.worker --store``), so that neither a slow network nor a fault
reaches the application; whoever drives the store calls ``poll()`` every 100 ms. It knows nothing of the scene, and
segmenting goes on meanwhile.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import slicer
from usema.errors import BundleError, InputError, MissingDependencyError, UsemaError
from usema.models.bundle import Bundle, read_bundle
from usema.resources import bundled_models
from usema.serving.client import WorkerClient, worker_command
from usema.serving.sharing import WorkerHold
from usema.store import cache, finding, importing, indexes, install, settings
from usema.store.consent import Question
from usema.store.index import Entry
from usema.store.library import KnownModel, Library, library

from .Parameters import TaskStatus
from .WorkerTask import WorkerTask


@dataclass
class StoreStatus(TaskStatus):
    """How far the present or the last task is; bytes are counted, and ``message`` tells the step while it runs.

    Attributes:
        task: "download", "import", "refresh", "remove" or "verify"; empty before the first.
        title: of what it is about, for the user.
        bytesPerSecond: None: not known yet.
        modelName: what is downloaded, or was imported.
        question: the task failed with the code "consent" because the user has to be asked this first: show
            ``question.text()``, and begin again with it as ``consent``.
    """

    task: str = ""
    title: str = ""
    bytesPerSecond: float | None = None
    modelName: str = ""
    question: Question | None = None


@dataclass(frozen=True)
class ModelHere:
    """One version of a model on this computer.

    Attributes:
        name: of the model.
        version: empty if it cannot be read.
        size: bytes on disk.
        bundle: None if it cannot be read.
        problem: why not; else empty.
        bundled: it came with USEMA.
    """

    name: str
    version: str
    size: int
    bundle: Bundle | None
    problem: str = ""
    bundled: bool = False

    @property
    def title(self) -> str:
        return self.bundle.metadata.title if self.bundle else self.name


class ModelStore(WorkerTask):
    """One task at a time. All stores of an application share one worker.

    Args:
        client: talks to the worker; None: that of all stores.
    """

    def __init__(self, client: WorkerClient | None = None):
        hold = WorkerHold("store", _newClient) if client is None else WorkerHold.of(client)
        super().__init__(hold, StoreStatus(), "The model store is at work. Wait for it, or cancel it.")

    # What there is

    def library(self) -> Library:
        """All known models, and what is wrong with some. Takes milliseconds and stays offline."""
        return library()

    def find(self, name: str) -> KnownModel | None:
        return library().get(name)

    def search(
        self, text: str = "", modality: str = "", region: str = "", volume: finding.Measures | None = None
    ) -> list[finding.Found]:
        """The models that a person means, by what they segment; see ``finding.search``. Takes milliseconds, offline."""
        return finding.search(library(), text, modality, region, volume)

    def describe(self, model: KnownModel, volume: finding.Measures | None = None) -> finding.Found:
        """What there is to know of a model before it is downloaded, with a volume or a usual one."""
        return finding.describe(model, library(), volume)

    def asksToAccept(self, entry: Entry) -> bool:
        """Whether the user has to accept the licence before the model is downloaded."""
        return not settings.read().accepts(entry)

    def questionOf(self, entry: Entry) -> Question | None:
        """What to ask before an entry is downloaded, to be given back as ``consent``; None: nothing."""
        return install.question_of_entry(entry)

    def questionOfFile(self, path: str) -> Question | None:
        """What to ask before a model is imported, to be given back as ``consent``; None: nothing.

        Raises:
            BundleError: it is no model.
        """
        return importing.question_of(path)

    def modelsHere(self) -> list[ModelHere]:
        """All that is on this computer, older versions too: what came with USEMA first."""
        found = []
        for name, path in bundled_models().items():
            try:
                bundle, problem = read_bundle(path), ""
            except UsemaError as error:
                bundle, problem = None, str(error)
            version = bundle.metadata.version if bundle else ""
            found.append(ModelHere(name, version, cache.size_of(path), bundle, problem, bundled=True))
        for one in cache.installed():
            found.append(ModelHere(one.name, one.version, one.size, one.bundle, one.problem))
        return found

    def folder(self) -> Path | None:
        """Where downloaded and imported models are kept; None as long as nothing can be."""
        try:
            return cache.folder()
        except MissingDependencyError:
            return None

    # Where new models are looked for

    def indexes(self) -> list[indexes.Source]:
        """The lists of models, the user's own first."""
        try:
            return indexes.sources()
        except UsemaError:  # the settings cannot be read: ``library`` says so
            return []

    def ownIndexes(self) -> tuple[str, ...]:
        """Places of those that the user added; the others came with USEMA and are updated with it."""
        try:
            return settings.read().indexes
        except UsemaError:
            return ()

    def addIndex(self, place: str) -> None:
        """Adds an address or path of a ``models.json``, without fetching it."""
        settings.add_index(place)

    def removeIndex(self, place: str) -> None:
        """Takes one of the user's own away; models that came from it stay."""
        indexes.forget(settings.remove_index(place))

    # Tasks: each begins one, ``poll`` carries it on

    def download(
        self, name: str, acceptLicence: bool = False, consent: Question | None = None, shown: Entry | None = None
    ) -> None:
        """Begins to download what an index offers under this name; an older version stays usable until it is there.

        Args:
            acceptLicence: the user accepts the licence, where it asks for that. It is remembered.
            consent: what the user was asked and said yes to; the download fails where something else is to be asked.
            shown: what the user saw of it; the download fails where another one is offered now. None: what is offered.

        Raises:
            UsemaError: it cannot begin; says why and what to do.
        """
        model = self.find(name)
        entry = shown or (model.entry if model else None)
        if model is None or entry is None:
            raise BundleError(f"There is no model {name!r} to download.", "Check for new models, or import it.")
        if model.why_not:
            raise InputError(model.why_not)
        self._refuseIfBusy()
        question = self.questionOf(entry)
        if consent is None and question is not None and question.licence is not None:
            if not acceptLicence:
                said = (
                    "does not state its terms clearly"
                    if entry.licence.open == "not stated"
                    else "does not allow commercial use"
                )
                where = f": {entry.licence.url}" if entry.licence.url else "."
                raise InputError(
                    f"The licence {entry.licence.name} of {entry.title} {said}{where}",
                    "Accept it with acceptLicence=True.",
                )
            consent = replace(question, replaces=None)
        agreed = consent and asdict(consent)
        seen = {"name": name, "version": entry.version, "sha256": entry.file.sha256}
        self._ask("download", entry.title, **seen, consent=agreed)
        self._status.modelName = name

    def importFile(self, path: str, consent: Question | None = None, key: str = "") -> None:
        """Begins to take in a model, of USEMA's own or of another program, from a file or folder on this computer.

        Args:
            path: of it.
            consent: what the user was asked and said yes to; the import fails where something else is to be asked.
            key: which of its models, as ``usema.store.importing.look`` lists them; not needed for a single one.
        """
        wanted = [key] if key else []
        self._ask("import", str(path), file=str(path), wanted=wanted, consent=consent and asdict(consent))

    def refresh(self) -> None:
        """Begins to fetch the user's indexes."""
        self._ask("refresh", "")

    def remove(self, model: ModelHere) -> None:
        """Begins to delete a model from this computer.

        Raises:
            InputError: it came with USEMA.
        """
        if model.bundled:
            raise InputError(f"{model.title} came with USEMA and cannot be deleted.")
        self._ask("remove", f"{model.title} {model.version}", name=model.name, version=model.version)

    def verify(self, bundle: Bundle) -> None:
        """Begins to compare a model with its checksum."""
        self._ask("verify", f"{bundle.metadata.title} {bundle.metadata.version}", path=str(bundle.path.resolve()))

    @property
    def log(self) -> str:
        """The worker's last words, for a report."""
        return "\n".join(filter(None, [self._status.detail, self._worker.log_tail]))

    # The steps in between

    def _ask(self, task: str, title: str, **fields) -> None:
        self._refuseIfBusy()
        self._begin(task, StoreStatus("running", task=task, title=title), **fields)

    def _onStep(self, event: dict) -> None:
        if event["event"] == "progress":
            self._status = replace(
                self._status,
                done=event["done"],
                total=event["total"],
                bytesPerSecond=event["bytes_per_second"],
                secondsLeft=event["seconds_left"],
                message=event["message"],
            )

    def _onResult(self, event: dict) -> None:
        self._status = replace(
            self._status,
            warnings=[*event.get("problems", []), *event.get("warnings", [])],
            modelName=event.get("name", self._status.modelName),
            title=event.get("title", self._status.title),
        )
        self._end("done", "")

    def _onError(self, event: dict) -> None:
        super()._onError(event)
        self._status.question = Question.from_dict(event["question"]) if event.get("question") else None


def _newClient() -> WorkerClient:
    home = getattr(getattr(slicer, "app", None), "slicerHome", None)
    return WorkerClient(worker_command(home, store=True))
