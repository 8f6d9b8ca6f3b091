"""What the panel can do, without the panel: check, start, poll, cancel; or ``segment`` in one call from a script.

No Qt and no pop-ups. The work is done by another process (``usema.serving.worker``); whoever drives the logic calls
``poll()`` every 100 ms. Whatever goes wrong, the scene stays as it was.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import slicer
from usema.errors import Cancelled, InputError, UsemaError
from usema.models.bundle import Bundle
from usema.serving.client import WorkerClient, worker_command
from usema.store.library import library

from .Diagnostics import badge, report
from .ModelStore import ModelStore
from .Parameters import Parameters, Readiness, Status, errorOf
from .Scene import Preflight, SegmentationWriter
from .Scene.ExchangeFolder import ExchangeFolder, removeAbandoned
from .Scene.VolumeBridge import Box, roiBox, shapeOf, wholeBox

_BUSY = "A segmentation is running. Wait for it, or cancel it."
_POLL_SECONDS = 0.05


@dataclass
class _Run:
    """A request under way, and all that its result needs."""

    parameters: Parameters
    bundle: Bundle
    box: Box
    shape: tuple[int, int, int]
    folder: ExchangeFolder
    request: int
    stopReason: str = ""  # why it is being cancelled


class USEMASegmentationLogic:
    """One segmentation at a time.

    Args:
        client: talks to the worker; None: a new one.

    Attributes:
        store: the models on this computer and those to be had; it works while a segmentation runs.
        beforeWriting: called with an existing segmentation right before a result is written into it, so that the panel
            can save its state for undo.
    """

    def __init__(self, client: WorkerClient | None = None):
        self.beforeWriting: Callable | None = None
        self.store = ModelStore()
        self._client = client or _newClient()
        self._run: _Run | None = None
        self._status = Status()
        self._lastFailure = ""
        self._lastProvenance: dict[str, dict[str, str]] = {}  # model -> of its last result
        self._leftFolders: list[ExchangeFolder] = []
        removeAbandoned()

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

    def check(self, parameters) -> Readiness:
        """Whether ``start`` would begin, and if not, why. Takes milliseconds.

        Args:
            parameters: ``Parameters``, or the parameter node.
        """
        if self.busy:
            return Readiness(False, _BUSY)
        return Preflight.check(Parameters.copyOf(parameters), self._devices())

    @property
    def busy(self) -> bool:
        return self._run is not None

    @property
    def status(self) -> Status:
        return replace(self._status)

    # One segmentation

    def start(self, parameters) -> None:
        """Begin a segmentation; ``poll`` carries it on.

        Raises:
            UsemaError: it cannot begin; nothing was changed.
        """
        if self.busy:
            raise InputError(_BUSY)
        parameters = Parameters.copyOf(parameters)
        warnings = Preflight.verify(parameters, self._devices())
        bundle = Preflight.modelHere(parameters.modelName)
        volume = parameters.inputVolume
        box = wholeBox(volume) if parameters.roi is None else roiBox(parameters.roi, volume)
        folder = ExchangeFolder()
        try:
            inputs = folder.export([volume, *parameters.channels], box)
            request = self._client.request(
                "segment",
                model=str(bundle.path.resolve()),
                device=parameters.device,
                inputs=inputs,
                overlap=parameters.overlap,
                mirror=parameters.mirror,
                probabilities=parameters.keepProbabilities,
                output=str(folder.path),
            )
        except BaseException:
            self._remove(folder)
            raise
        self._run = _Run(parameters, bundle, box, shapeOf(volume), folder, request)
        self._status = Status("starting", message="Starting the engine", warnings=warnings)

    def poll(self) -> Status:
        """Take what the worker has sent; on a result, write the segmentation. Call it every 100 ms while ``busy``."""
        if slicer.mrmlScene.IsBatchProcessing():  # a scene is being loaded or closed: ask again afterwards
            return self.status
        if self._run is not None and not slicer.mrmlScene.IsNodePresent(self._run.parameters.inputVolume):
            self._cancel("The volume was removed, or the scene closed, while it was being segmented.")
        for event in self._client.poll():
            if self._run is not None and event["id"] == self._run.request:  # else of a new worker, or a run given up
                self._take(self._run, event)
        return self.status

    def cancel(self) -> None:
        """Stop the segmentation under way; ``poll`` tells when it has stopped. Without one, nothing happens."""
        self._cancel("The segmentation was cancelled.")

    def segment(
        self,
        volumeNode,
        modelName: str,
        *,
        channels: Sequence = (),
        segmentationNode=None,
        existing: str = "new",
        labels: Sequence[str] | None = None,
        roiNode=None,
        device: str = "auto",
        overlap: float = 0.5,
        mirror: bool = False,
        keepProbabilities: bool = False,
        show3D: bool = False,
        wait: Callable[[], None] | None = None,
    ):
        """Segment a volume and return the segmentation node, for scripts: blocks, and shows nothing.

        Args:
            wait: called again and again while the worker works, for example ``slicer.app.processEvents``; an exception
                that it raises cancels. None: sleeps.

        The other arguments are those of ``Parameters``.

        Raises:
            UsemaError: what is wrong and what to do; the scene is as it was.
        """
        self.start(
            Parameters(
                inputVolume=volumeNode,
                channels=list(channels),
                modelName=modelName,
                labels=list(labels or ()),
                segmentation=segmentationNode,
                existing=existing,
                roi=roiNode,
                device=device,
                overlap=overlap,
                mirror=mirror,
                keepProbabilities=keepProbabilities,
                show3D=show3D,
            )
        )
        try:
            self._finish(wait)
        except BaseException:
            self.cancel()
            self._finish(None)
            raise
        status = self._status
        if status.state == "done":
            return status.segmentation
        raise errorOf(status)

    # The worker

    def releaseMemory(self) -> None:
        """End the worker, which frees its memory and the GPU's; the next segmentation starts a new one."""
        if self.busy:
            self._end("cancelled", "The segmentation was cancelled.", code=Cancelled.code)
        self._client.stop()
        self._sweep()

    def shutdown(self) -> None:
        """End whatever runs and let go of the scene; for a panel that is closed and an application that quits."""
        self.releaseMemory()
        self.store.shutdown()
        self._status.segmentation = None

    def badge(self, modelName: str = "") -> tuple[str, str]:
        """What computes, in a few words, and the reason for a tooltip.

        Args:
            modelName: the chosen model; without it, and before its first result, what is known of the computer.
        """
        return badge(self._client.hello, self._lastProvenance.get(modelName))

    def diagnostics(self) -> str:
        """Versions, devices and the last log, to be sent to somebody; without names of patients, users or volumes."""
        return report(self._client.hello, self._lastFailure, f"{self._client.log_tail}\n{self.store.log}")

    # The steps in between

    def _finish(self, wait: Callable[[], None] | None) -> None:
        while self.busy:
            self.poll()
            if wait is not None:
                wait()
            time.sleep(_POLL_SECONDS)

    def _devices(self) -> list[str] | None:
        """Those that the worker has found; None: it has not run yet."""
        return self._client.hello["devices"] if self._client.hello else None

    def _cancel(self, reason: str) -> None:
        if self._run is not None and not self._run.stopReason:
            self._run.stopReason = reason
            self._client.cancel(self._run.request)
            self._status = replace(self._status, state="cancelling", message="Stopping")

    def _take(self, run: _Run, event: dict) -> None:
        try:
            if not run.stopReason:
                self._apply(run, event)
            elif event["event"] in ("result", "error"):
                self._end("cancelled", run.stopReason, "Nothing was written.", code=Cancelled.code)
        except UsemaError as error:
            self._end("failed", error.message, error.hint, code=error.code)
        except Exception as error:  # a defect, or an answer that is none, must not leave the panel waiting for ever
            self._client.stop(timeout=0)  # it may still be at work, and the next click must not wait for it
            message = f"The result could not be brought into the scene: {type(error).__name__}: {error}."
            self._end("failed", message, "Please report it.", traceback.format_exc(), "internal")

    def _apply(self, run: _Run, event: dict) -> None:
        kind = event["event"]
        if kind == "loading":
            self._status = replace(self._status, message="Loading the model")
        elif kind == "progress":
            self._status = replace(
                self._status,
                state="running",
                message="Segmenting",
                done=event["done"],
                total=event["total"],
                secondsLeft=event["seconds_left"],
            )
        elif kind == "error":
            self._end("failed", event["message"], event["hint"], event["detail"], event["code"])
        elif kind == "result":
            self._status = self._written(run, event)
            self._end("done", self._status.message, self._status.hint)

    def _written(self, run: _Run, event: dict) -> Status:
        parameters, metadata, volume = run.parameters, run.bundle.metadata, run.parameters.inputVolume
        if volume.GetImageData() is None or shapeOf(volume) != run.shape:
            raise InputError("The volume was changed while it was being segmented.", "Segment it again.")
        labels = run.folder.load(event["labels"], tuple(part.stop - part.start for part in run.box))
        probabilities = None
        if event["probabilities"]:
            probabilities = run.folder.load(event["probabilities"], (len(metadata.labels) + 1, *labels.shape))
        warnings = [*self._status.warnings, *(one for one in event["warnings"] if one not in self._status.warnings)]
        target, existing = parameters.segmentation, parameters.existing
        if target is not None and existing != "new":
            # Minutes of work should not be lost because the place for them is.
            gone = not slicer.mrmlScene.IsNodePresent(target)
            problem = "The segmentation was removed." if gone else SegmentationWriter.whyNotInto(target, volume)
            if problem:
                warnings.append(f"{problem} A new segmentation was made.")
                existing = "new"
            elif self.beforeWriting is not None:
                self.beforeWriting(target)
        node = SegmentationWriter.write(
            labels,
            volume,
            metadata,
            {**event["provenance"], "roi": _describe(run)},
            box=run.box,
            labelNames=parameters.labels,
            segmentationNode=target,
            existing=existing,
            show3D=parameters.show3D,
        )
        if probabilities is not None:
            SegmentationWriter.writeProbabilities(
                probabilities, node, volume, metadata, box=run.box, labelNames=parameters.labels
            )
        self._lastProvenance[parameters.modelName] = event["provenance"]
        message, hint = _summary(labels, metadata, parameters.labels, event)
        return replace(self._status, message=message, hint=hint, warnings=warnings, segmentation=node)

    def _end(self, state: str, message: str, hint: str = "", detail: str = "", code: str = "") -> None:
        run, self._run = self._run, None
        self._status = replace(self._status, state=state, message=message, hint=hint, detail=detail, code=code)
        self._status.secondsLeft = None
        if state == "failed":
            self._lastFailure = f"{code}\n{detail}"
        self._remove(run.folder)

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


def _describe(run: _Run) -> str:
    if run.parameters.roi is None:
        return "whole volume"
    return ", ".join(f"{axis} {part.start}-{part.stop - 1}" for axis, part in zip("ijk", run.box[::-1], strict=True))


def _summary(labels: np.ndarray, metadata, names: Sequence[str], event: dict) -> tuple[str, str]:
    """(message, hint) on what was found."""
    # Slice by slice, because bincount makes a copy with 8 bytes a voxel.
    counts = sum(np.bincount(plane.ravel(), minlength=len(metadata.labels) + 1) for plane in labels)
    chosen = [label for label in metadata.labels if not names or label.name in names]
    missing = [label.name for label in chosen if not counts[label.value]]
    if len(missing) == len(chosen):
        highest = event["max_foreground_probability"]
        message = f"Nothing was found: the segments are empty. The highest probability of any label was {highest:.2f}."
        return message, "See the warnings, and whether this is the right model for the volume."
    message = f"Done in {event['seconds']:.0f} s."
    return (f"{message} Nothing was found of: {', '.join(missing)}." if missing else message), ""
