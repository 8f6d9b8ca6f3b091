"""What the panel can do, without the panel: check, start, poll, cancel; or ``segment`` in one call from a script.

No Qt and no pop-ups. The work is done by another process (``usema.serving.worker``), one for the whole application;
whoever drives the logic calls ``poll()`` every 100 ms. Whatever goes wrong, the scene stays as it was.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import slicer
import vtk
from usema.errors import InputError, UsemaError
from usema.inference.memory import free_memory
from usema.models.bundle import Bundle
from usema.serving.client import WorkerClient, worker_command
from usema.serving.sharing import WorkerHold
from usema.store.library import library

from . import TrainingSet
from .CorrectionsCount import CorrectionsCount
from .Diagnostics import badge, report
from .LearnTask import LearnTask
from .ModelStore import ModelStore
from .Parameters import Parameters, Readiness, Status
from .RunSteps import Run, receiving, sending, showing
from .Scene import KeptDelta, Preflight
from .Scene.EditMask import Corrections
from .Scene.ExchangeFolder import ExchangeFolder, removeAbandoned
from .Scene.Preview import Preview
from .Scene.VolumeBridge import boxOf
from .Scene.Watch import Watch
from .SequenceTask import SequenceTask
from .Steps import Working
from .WorkerTask import WorkerTask

_WARM_MINUTES = 5  # that an engine waits which was started before anything was asked of it
_WARM_BYTES = 2 * 2**30  # free main memory; it takes a third of a gigabyte


class USEMASegmentationLogic(WorkerTask):
    """One segmentation at a time. All logics of an application share one worker, which ends with the last of them.

    In a script, ``with USEMASegmentationLogic() as logic:`` keeps the worker warm for all that is segmented inside.

    Args:
        client: talks to the worker; None: that of all logics.

    Attributes:
        store: the models on this computer and those to be had; it works while a segmentation runs.
        learning: lets a model learn from what was corrected.
        beforeWriting: called with an existing segmentation right before a result is written into it, so that the panel
            can save its state for undo. False says that it could not: then the result goes into a new segmentation. A
            function tells later whether the state still is saved.
        afterWriting: called with the segmentation once it is written; gives what the panel then does, a turn at a time
            (see `Steps.NextTurn`). It is given up if the segmentation is removed meanwhile.
    """

    _cancelledText = "The segmentation was cancelled."
    _cancelledHint = "Nothing was written."
    _defectText = "The result could not be brought into the scene"

    def __init__(self, client: WorkerClient | None = None):
        hold = WorkerHold("segment", _newClient) if client is None else WorkerHold.of(client)
        super().__init__(hold, Status(), "A segmentation is running. Wait for it, or cancel it.")
        self.beforeWriting: Callable | None = None
        self.afterWriting: Callable[[Any], Working] | None = None
        self.store = ModelStore()
        self._run: Run | None = None
        self._result: dict | None = None  # an answer that waits until the scene can be written
        self._written = vtk.vtkWeakReference()  # else the status would keep a segmentation of a closed scene
        self._lastFailure = ""
        self._lastProvenance: dict[str, dict[str, str]] = {}  # model -> of its last result
        self._secondsBySpeed: dict[str, dict[str, float]] = {}  # model -> of its last result
        self._preview: Preview | None = None
        self._corrections = CorrectionsCount()
        self._leftFolders: list[ExchangeFolder] = []
        self._frames = SequenceTask(hold, self._busyText, self._remove)
        self.learning = LearnTask(hold, self._remove, lambda: self._busyText if self.busy else "")
        removeAbandoned()

    def __enter__(self) -> USEMASegmentationLogic:
        return self

    def __exit__(self, *_) -> None:
        self.shutdown()

    # What there is

    def models(self) -> list[Bundle]:
        """The models on this computer. One that cannot be read is left out, and the log says why."""
        known = library()
        for problem in (*known.problems, *(model.problem for model in known.models if model.problem)):
            logging.warning("USEMA: %s", problem)
        return [model.bundle for model in known.models if model.bundle]

    def downloadModel(self, name: str, acceptLicence: bool = False, wait: Callable[[], None] | None = None) -> Bundle:
        """Download a model that an index offers, for scripts: blocks, and shows nothing. `ModelStore` can do more.

        Args:
            name: of the model.
            acceptLicence: you accept its licence; needed where that does not allow commercial use.
            wait: as for `segment`.

        Raises:
            UsemaError: what is wrong and what to do.
        """
        self.store.download(name, acceptLicence)
        self.store.finish(wait)
        return Preflight.modelHere(name)

    def check(self, parameters=None, **options) -> Readiness:
        """Whether ``start`` would begin, and if not, why. Takes milliseconds.

        Args:
            parameters: ``Parameters``, or the parameter node; or their fields by name.
        """
        if self.busy or self.learning.busy:
            return Readiness(False, self._busyText if self.busy else self.learning.busyText)
        try:
            return Preflight.check(Parameters.of(parameters, options), self._devices())
        except UsemaError as error:
            return Readiness(False, str(error))

    def corrections(self, parameters=None, **options) -> Corrections:
        """What the user changed in the segments that ``start`` would replace: kept, unless ``overwriteCorrections``.

        Cheap as long as nothing has changed. Nothing where nothing would be replaced.
        """
        return self._corrections.now(Parameters.of(parameters, options))

    def correctionsSoon(self, parameters: Parameters) -> Corrections | None:
        """As `corrections`, but counted a moment at each call; None as long as that goes on."""
        return self._corrections.soon(parameters)

    @property
    def busy(self) -> bool:
        return super().busy or self._frames.busy

    @property
    def isMoving(self) -> bool:
        return super().isMoving or self._frames.isMoving

    @property
    def status(self) -> Status:
        node = self._written.Get()
        there = node is not None and slicer.mrmlScene.IsNodePresent(node)
        return replace(self._status, segmentation=node if there else None)

    # One segmentation

    def start(self, parameters=None, **options) -> None:
        """Begin a segmentation; ``poll`` carries it on.

        Args:
            parameters: ``Parameters``, or the parameter node; or their fields by name.

        Raises:
            UsemaError: it cannot begin; nothing was changed.
        """
        self._refuseIfBusy()
        self.learning.refuseIfBusy()
        parameters = Parameters.of(parameters, options)
        if parameters.allFrames:
            self._frames.start(parameters, self._devices())
            self._takeFrames()
            return
        warnings = Preflight.verify(parameters, self._devices())
        bundle, box = Preflight.modelHere(parameters.modelName), boxOf(parameters)
        volumes = [parameters.inputVolume, *parameters.channels]
        before, folder = self._status, ExchangeFolder()
        try:
            delta = KeptDelta.ofNext(parameters, bundle.metadata)
            run = self._run = Run(parameters, bundle, box, folder, Watch(volumes), warnings, delta)
            self._stopping, self._stopReason = False, ""
            self._status = Status("starting", message="Passing the volume to the engine", warnings=warnings.all)
            self._follow(sending(run), self._ask)
        except BaseException:
            self._run, self._status = None, before
            self._remove(folder)
            raise
        self._written.Set(None)

    def _ask(self, fields: dict) -> None:
        status = Status("starting", message="Starting the engine", warnings=self._run.warnings.all)
        self._begin("segment", status, **fields)

    def poll(self) -> Status:
        """Take what the worker has sent; on a result, write the segmentation. Call it every 100 ms while ``busy``."""
        run, changing = self._run, _isSceneChanging()
        if self._frames.busy:
            if not changing or self._frames.stopping:  # results go into the scene as they come
                self._frames.poll()
            return self._takeFrames()
        if run is not None and not changing and not slicer.mrmlScene.IsNodePresent(run.parameters.inputVolume):
            self._cancel("The volume was removed, or the scene closed, while it was being segmented.")
        if not changing or self._stopping or self._steps is None or self._request is None:  # voxels may be sent
            super().poll()
        if self._result is not None and (self._stopping or not changing):
            event, self._result = self._result, None
            self._take(event)
        return self.status

    def cancel(self) -> None:
        if self._frames.busy:
            self._frames.cancel()
            self._takeFrames()
        super().cancel()

    def segment(self, inputVolume=None, modelName: str | None = None, *, wait=None, **options):
        """Segment a volume and return the segmentation node, for scripts: blocks, and shows nothing.

        Args:
            inputVolume, modelName, options: the fields of ``Parameters``. With ``segmentation`` and without
                ``existing``, this model's segments in that segmentation are replaced.
            wait: called again and again while the worker works, for example ``slicer.app.processEvents``; an exception
                that it raises cancels. None: sleeps.

        Raises:
            UsemaError: what is wrong and what to do; the scene is as it was.
        """
        if _isSceneChanging():
            raise InputError(
                "The scene is in the middle of a batch of changes: no result could be written into it.",
                "Segment before slicer.mrmlScene.StartState, or after EndState.",
            )
        named = {"inputVolume": inputVolume, "modelName": modelName}
        self.start(**{word: value for word, value in named.items() if value is not None}, **options)
        return self.finish(wait).segmentation

    # What was corrected, to be learned

    def addToTrainingSet(self, folder, consent: bool = False, parameters=None, **options) -> list[str]:
        """Add a volume and its corrected segmentation to a training set on this computer (`usema train` takes it).

        Args:
            folder: of the training set, named like Dataset500_Mine; made with its first case. What is there stays.
            consent: you may use this patient's images so; nothing is written without it.
            parameters: volume, channels, segmentation and model; or their fields by name.

        Returns:
            the names of the cases: one, or for a model that finds its regions in a whole volume, one a region.

        Raises:
            UsemaError: the segments are not the model's, the folder is another training set, or it cannot be written.
        """
        return TrainingSet.add(Parameters.of(parameters, options), folder, consent)

    # The worker

    def warmUp(self) -> None:
        """Start the worker before it is needed, without waiting; it ends if nothing is asked of it for some minutes.

        Where memory is short, nothing is started, and if it fails nothing is said: the next segmentation says it.
        """
        free = free_memory(in_a_new_process=True)
        if self.busy or self.learning.busy or (free is not None and free < _WARM_BYTES):
            return
        with suppress(UsemaError):
            self._worker.start(_WARM_MINUTES)

    def releaseMemory(self) -> bool:
        """End the worker, which frees its memory and the GPU's; the next segmentation starts a new one.

        Returns:
            whether it has ended: it has not if another panel or script waits for it.
        """
        self._giveUp()
        ended = self._worker.stop()
        self._sweep()
        return ended

    def shutdown(self) -> None:
        super().shutdown()
        self.store.shutdown()
        self._written.Set(None)
        self._sweep()

    def badge(self, modelName: str = "") -> tuple[str, str]:
        """What computes, in a few words, and the reason for a tooltip.

        Args:
            modelName: the chosen model; without it, and before its first result, what is known of the computer.
        """
        return badge(self._worker.hello, self._lastProvenance.get(modelName))

    def secondsBySpeed(self, modelName: str) -> dict[str, float]:
        """About how long the model took, or would have taken, for its last volume: speed -> seconds."""
        return self._secondsBySpeed.get(modelName, {})

    def diagnostics(self) -> str:
        """Versions, devices and the last log, to be sent to somebody; without names of patients, users or volumes."""
        return report(self._worker.hello, self._lastFailure, f"{self._worker.log_tail}\n{self.store.log}")

    def _giveUp(self) -> None:
        self.learning.giveUp()
        if self._frames.busy:
            self._frames.giveUp()
            self._takeFrames()
        if self._settled:
            self._end("done", "The result is in the scene.")
        super()._giveUp()

    # The steps in between

    def _takeFrames(self) -> Status:
        self._status = self._frames.status
        self._written.Set(self._status.segmentation)
        if self._status.state == "failed":
            self._lastFailure = f"{self._status.code}\n{self._status.detail}"
        return self.status

    def _devices(self) -> list[str] | None:
        """Those that the worker has found; None: it has not run yet."""
        return self._worker.hello["devices"] if self._worker.hello else None

    def _onStep(self, event: dict) -> None:
        if event["event"] == "loading":
            self._status = replace(self._status, message="Loading the model")
        elif event["event"] == "preview":
            run = self._run
            if not _isSceneChanging():
                self._follow(Preview.showing(event["labels"], run), self._keepPreview)
        elif event["event"] == "progress":
            done, total, left = event["done"], event["total"], event["seconds_left"]
            self._status = replace(
                self._status, state="running", message="Segmenting", done=done, total=total, secondsLeft=left
            )

    def _onResult(self, event: dict) -> None:
        if self._stopping:
            self._endCancelled("Nothing was written.")
        elif _isSceneChanging():
            self._result = event
        else:
            self._write(event)

    def _onError(self, event: dict) -> None:
        stopped = {"message": self._cancelledText, "hint": self._cancelledHint} if self._stopping else {}
        super()._onError({**event, **stopped})

    def _write(self, event: dict) -> None:
        self._follow(self._writing(self._run, event), lambda said: self._end("done", *said))

    def _writing(self, run: Run, event: dict) -> Working:
        """Brings a result into the scene in one go, and then shows it, a turn at a time; returns what to say of it."""
        ready, found = yield from receiving(run, event, self.beforeWriting)
        self._removePreview()
        outcome = ready.commit()
        self._settled = True
        self._written.Set(outcome.segmentation)
        self._lastProvenance[run.parameters.modelName] = event["provenance"]
        self._secondsBySpeed[run.parameters.modelName] = event.get("seconds_by_speed", {})
        warnings = [*run.warnings.scene, *event["warnings"], *outcome.warnings]
        self._status = replace(
            self._status, warnings=warnings, millilitres=found.millilitres, keptVoxels=outcome.keptVoxels
        )
        if not (yield from showing(run, outcome, self.afterWriting)):
            return "The result was removed, or the scene closed, before all of it was shown.", ""
        kept = f" {outcome.keptVoxels} corrected voxels were kept." if outcome.keptVoxels else ""
        return found.message + kept, found.hint

    def _onEnd(self) -> None:
        run, self._run, self._result = self._run, None, None
        self._removePreview()
        if self._status.state == "failed":
            self._lastFailure = f"{self._status.code}\n{self._status.detail}"
        if run is not None:
            self._remove(run.folder)

    def _keepPreview(self, preview: Preview | None) -> None:
        self._preview = preview

    def _removePreview(self) -> None:
        if self._preview is not None:
            self._preview.remove()
        self._preview = None

    def _remove(self, folder: ExchangeFolder) -> None:
        self._leftFolders.append(folder)
        self._sweep()

    def _sweep(self) -> None:
        """Remove the folders of earlier runs too that could not be removed then."""
        self._leftFolders = [folder for folder in self._leftFolders if not folder.remove()]


def _newClient() -> WorkerClient:
    home = getattr(getattr(slicer, "app", None), "slicerHome", None)
    # On macOS, 3D Slicer's bin folder is not on the PATH.
    return WorkerClient(worker_command(home) if home else None)


def _isSceneChanging() -> bool:
    """Whether the scene is being loaded or closed, or a script is in the middle of a batch of changes."""
    return bool(slicer.mrmlScene.IsBatchProcessing())
