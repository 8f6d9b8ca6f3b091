"""All frames of a sequence, one after the other with one warm worker, without moving what the user looks at. No Qt.

What was finished stays, whatever ends the run: a cancel, a failure of one frame, a worker that dies.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import slicer
from usema.errors import InputError
from usema.models.bundle import Bundle

from .Parameters import Parameters, Status
from .Scene import Preflight
from .Scene.ExchangeFolder import ExchangeFolder
from .Scene.FrameResults import FrameResults
from .Scene.ResultArrays import Prepared, compute, gather
from .Scene.ResultWriter import Result
from .Scene.Sequences import Frames, framesOf
from .Scene.Summary import describeBox, summary
from .Scene.VolumeBridge import Box, roiBox, wholeBox
from .Steps import Working, beside
from .WorkerTask import WorkerTask


@dataclass
class _Run:
    """All that the frames have in common, and where they are."""

    parameters: Parameters
    bundle: Bundle
    frames: Frames
    results: FrameResults
    todo: list[int]
    warnings: list[str]
    started: float
    done: int = 0
    folder: ExchangeFolder | None = None
    box: Box | None = None
    nodes: list | None = None


class SequenceTask(WorkerTask):
    """Segments every frame of what ``Parameters.inputVolume`` shows one of.

    Args:
        hold: on the worker.
        removeFolder: takes an exchange folder that is no longer needed.
    """

    _cancelledText = "The segmentation was cancelled."
    _defectText = "A result could not be brought into the scene"

    def __init__(self, hold, busyText: str, removeFolder: Callable[[ExchangeFolder], None]):
        super().__init__(hold, Status(), busyText)
        self._removeFolder = removeFolder
        self._run: _Run | None = None

    def start(self, parameters: Parameters, devices: list[str] | None) -> None:
        """Begin with the first frame; ``poll`` carries it on.

        Raises:
            UsemaError: it cannot begin; nothing was changed.
        """
        self._refuseIfBusy()
        warnings = Preflight.verify(parameters, devices)
        bundle = Preflight.modelHere(parameters.modelName)
        frames = framesOf([parameters.inputVolume, *parameters.channels])
        if frames is None:
            raise InputError(
                f"The volume '{parameters.inputVolume.GetName()}' belongs to no sequence.", "Choose one that does."
            )
        earlier, todo = _leftToDo(parameters, frames)
        results = FrameResults(frames, bundle.metadata, earlier)
        notes = [*warnings.scene, *warnings.engine]
        if parameters.keepProbabilities:
            notes.append("Probabilities of frames are not kept.")
        self._stopping, self._stopReason = False, ""
        self._run = _Run(parameters, bundle, frames, results, todo, notes, time.monotonic())
        before = self._status
        try:
            self._next()
        except BaseException:
            if self._run.folder is not None:
                self._removeFolder(self._run.folder)
            self._run, self._status = None, before
            raise

    def poll(self) -> Status:
        run = self._run
        there = run is None or (run.frames.isThere() and slicer.mrmlScene.IsNodePresent(run.parameters.inputVolume))
        if not there:
            self._cancel("The sequence was removed, or the scene closed, while it was being segmented.")
        return super().poll()

    @property
    def stopping(self) -> bool:
        return self._stopping

    def giveUp(self) -> None:
        """End at once; frames that are finished are shown."""
        self._giveUp()

    def _next(self) -> None:
        """Ask for the next frame."""
        run = self._run
        number = run.todo[run.done]
        run.nodes = run.frames.nodes(number)
        run.box = self._boxOf(run, run.nodes[0])
        run.folder = ExchangeFolder()
        count = len(run.todo)
        status = Status(
            "starting" if not run.done else "running",
            message=f"Frame {run.done + 1} of {count}",
            warnings=run.warnings,
            frame=run.done + 1,
            frames=count,
            done=run.done,
            total=count if run.done else 0,
        )
        self._status, images = status, run.bundle.metadata.takes_images
        self._follow(run.folder.exporting(run.nodes, run.box, run.frames.volumes, images), self._ask)

    def _ask(self, inputs: list[dict]) -> None:
        run = self._run
        self._begin(
            "segment",
            self._status,
            model=str(run.bundle.path.resolve()),
            inputs=inputs,
            output=str(run.folder.path),
            labels=run.parameters.labels,
            **replace(run.parameters.runOptions(), probabilities=False).to_request(),
        )

    @staticmethod
    def _boxOf(run: _Run, node) -> Box:
        parameters = run.parameters
        if parameters.roi is None:
            return wholeBox(node)
        box, shown = roiBox(parameters.roi, parameters.inputVolume), parameters.inputVolume
        if node.GetImageData().GetDimensions() != shown.GetImageData().GetDimensions():
            raise InputError(
                f"Frame {run.todo[run.done] + 1} has another size than the frame that is shown: the region of interest "
                "means other voxels there.",
                "Choose no region of interest.",
            )
        return box

    def _onStep(self, event: dict) -> None:
        if event["event"] == "progress":
            run, count = self._run, len(self._run.todo)
            share = event["done"] / event["total"]
            left = (time.monotonic() - run.started) / (run.done + share) * (count - run.done - share) if share else None
            self._status = replace(
                self._status,
                state="running",
                done=run.done * event["total"] + event["done"],
                total=count * event["total"],
                secondsLeft=left,
            )

    def _onResult(self, event: dict) -> None:
        run = self._run
        if self._stopping:
            self._endCancelled()
            return
        self._follow(self._receiving(run, event), self._goOn)

    def _goOn(self, _) -> None:
        run = self._run
        if run.done < len(run.todo):
            self._next()
            return
        node = run.results.show(run.parameters.show3D)
        seconds = max(1, round(time.monotonic() - run.started))
        message = (
            f"Done in {seconds} s: {run.done} frames. Their volumes or areas are in a table and a plot in the scene."
        )
        self._finishWith(node, "done", message)

    def _receiving(self, run: _Run, event: dict) -> Working:
        """Takes the result of a frame in, a moment at a time."""
        number, box = run.todo[run.done], run.box
        shape = tuple(part.stop - part.start for part in box)
        roi = describeBox(None if run.parameters.roi is None else box)
        provenance = {**event["provenance"], "roi": roi, "frame": run.frames.value(number)}
        names = event.get("names", run.parameters.labels)  # which ones there are depends on what the frames show
        scene = gather(run.nodes[0], run.bundle.metadata, provenance, box=box, labelNames=names)

        def made() -> tuple[Result, Prepared]:
            result = Result(run.folder.load(event["labels"], shape), None, provenance, run.bundle.metadata, box)
            result.counts.max()  # counted here, so that nobody has to wait for it later
            return result, compute(result.labels, scene)

        result, prepared = yield from beside(made, math.prod(shape))
        found = summary(result, replace(run.parameters, inputVolume=run.nodes[0], labels=names), event["seconds"])
        run.results.add(number, prepared, found)
        run.warnings += [f"Frame {number + 1}: {one}" for one in event["warnings"] if one not in run.warnings]
        run.done += 1
        self._removeFolder(run.folder)
        run.folder = None

    def _end(self, state: str, message: str, hint: str = "", detail: str = "", code: str = "") -> None:
        """However a run ends early, what was finished is shown."""
        run = self._run
        if run is None or state == "done":
            super()._end(state, message, hint, detail, code)
            return
        self._stop(state, message, hint, detail, code)

    def _stop(self, state: str, message: str, hint: str = "", detail: str = "", code: str = "") -> None:
        run = self._run
        node = self._shown(run)
        if node is not None:
            message = f"{message} {run.done} of {len(run.todo)} frames were finished: they stay."
            go = "To go on, choose it under 'Segmentation:', and to replace this model's segments under 'Next result:'."
            hint = hint or go
        else:
            hint = hint or "Nothing was written."
        self._finishWith(node, state, message, hint, detail, code)

    @staticmethod
    def _shown(run: _Run):
        """The segmentation of what was finished; None: nothing was, or it cannot be shown."""
        if not run.done or not run.frames.isThere():
            return None
        try:
            return run.results.show(run.parameters.show3D)
        except Exception:  # the run is over whatever happens: the panel must not wait for ever
            logging.exception("USEMA cannot show the frames")
            return None

    def _finishWith(self, node, state: str, message: str, hint: str = "", detail: str = "", code: str = "") -> None:
        run, self._run = self._run, None
        if run.folder is not None:
            self._removeFolder(run.folder)
        self._status = replace(self._status, segmentation=node, warnings=run.warnings, frame=0, frames=0)
        super()._end(state, message, hint, detail, code)


def _leftToDo(parameters: Parameters, frames: Frames):
    """(the sequence of segmentations to go on with, or None; the numbers of the frames to do).

    Raises:
        InputError: there is nothing left to do.
    """
    every = list(range(len(frames)))
    if parameters.segmentation is None or parameters.existing == "new":
        return None, every
    sequence = frames.browser.GetSequenceNode(parameters.segmentation)
    if sequence is None:
        return None, every
    todo = [number for number in every if sequence.GetDataNodeAtValue(frames.value(number), True) is None]
    if not todo:
        raise InputError(
            f"'{parameters.segmentation.GetName()}' has all {len(frames)} frames already.",
            "To do them again, choose that the result makes a new segmentation.",
        )
    return sequence, todo
