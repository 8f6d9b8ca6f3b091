"""The long ways of a run, a moment at a time: its voxels to the worker, and the answer back. No Qt."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import slicer
from usema.models.bundle import Bundle

from .Parameters import Parameters
from .Scene import KeptDelta, Preflight, ResultWriter
from .Scene.ExchangeFolder import ExchangeFolder
from .Scene.Sequences import frameValueOf
from .Scene.Summary import describeBox, summary
from .Scene.VolumeBridge import Box
from .Scene.Watch import Watch
from .Steps import NextTurn, Working, atOnce, beside

_MOST_TIMES = 3  # that a result is made ready because the user went on working on what it is written into
_END = object()


@dataclass
class Run:
    """A request under way, and all that its result needs.

    Attributes:
        frame: which frame of a sequence was sent, as `Sequences.frameValueOf` tells it: by the time that the result is
            there, the volume may show another one.
    """

    parameters: Parameters
    bundle: Bundle
    box: Box
    folder: ExchangeFolder
    watch: Watch
    warnings: Preflight.Warnings
    delta: KeptDelta.KeptDelta | None
    frame: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """(z, y, x) of the voxels that are segmented."""
        return tuple(part.stop - part.start for part in self.box)


def sending(run: Run) -> Working:
    """Writes what the worker needs; returns the fields of the request.

    Raises:
        UsemaError: see `ExchangeFolder.exporting`.
    """
    parameters, bundle, delta = run.parameters, run.bundle, run.delta
    volumes = [parameters.inputVolume, *parameters.channels]
    inputs = yield from run.folder.exporting(volumes, run.box, images=bundle.metadata.takes_images)
    run.frame = frameValueOf(parameters.inputVolume)
    return {
        "model": str(bundle.path.resolve()),
        "inputs": inputs,
        "output": str(run.folder.path),
        "labels": parameters.labels,
        "delta": delta.write(run.folder.path) if delta is not None and delta.used else None,
        **parameters.runOptions().to_request(),
    }


def receiving(run: Run, event: Mapping[str, Any], beforeWriting: Callable[[Any], Any] | None) -> Working:
    """Makes a result ready to be written, and what is there to be changed; returns it with what is said of it.

    Args:
        beforeWriting: see ``USEMASegmentationLogic.beforeWriting``.

    Raises:
        UsemaError: it cannot be read, or there is no place for it any more.
    """
    while True:
        ready, found = yield from _madeReady(run, event)
        ready = yield from ready.saving(beforeWriting)
        if ready is not None:
            return ready, found


def _madeReady(run: Run, event: Mapping[str, Any]) -> Working:
    yield from run.watch.changing(run.folder, run.box)  # whether there is a place for it
    result = yield from beside(lambda: _read(run, event), math.prod(run.shape))
    names = event.get("names", run.parameters.labels)  # which ones there are depends on what the volume shows
    asked = replace(run.parameters, labels=names)
    found = summary(result, asked, event["seconds"])
    for _ in range(_MOST_TIMES):
        times = run.watch.times()
        changed = yield from run.watch.changing(run.folder, run.box)
        ready = yield from ResultWriter.preparing(result, asked, changed)
        if ready.isCurrent() and run.watch.times() == times:
            return ready, found
    return atOnce(ResultWriter.preparing(result, asked, run.watch.changes(run.folder, run.box))), found


def showing(run: Run, outcome: ResultWriter.Outcome, panel: Callable[[Any], Working] | None) -> Working:
    """Shows a result that was written, a turn of the application for each part, so that none holds it for long.

    Args:
        panel: see ``USEMASegmentationLogic.afterWriting``.

    Returns:
        False if the result was removed, or the scene closed, before all was done.
    """
    node, parts = outcome.segmentation, [outcome.surfaces]
    if panel is not None:
        parts.insert(0, panel(node))
    yield NextTurn()
    run.folder.remove()  # a twentieth of a second, if it is large
    for part in parts:
        with closing(part):
            pause = NextTurn()
            while pause is not _END:
                yield pause
                if not slicer.mrmlScene.IsNodePresent(node):
                    return False
                try:
                    pause = next(part, _END)
                except Exception:  # what was written is there, and said to be
                    logging.exception("USEMA cannot show the result")
                    break
    return True


def _read(run: Run, event: Mapping[str, Any]) -> ResultWriter.Result:
    """The result as the worker wrote it; touches nothing of the scene."""
    folder, shape, metadata = run.folder, run.shape, run.bundle.metadata
    roi = describeBox(None if run.parameters.roi is None else run.box)
    classes = len(metadata.labels) + 1
    result = ResultWriter.Result(
        folder.load(event["labels"], shape),
        folder.load(event["probabilities"], (classes, *shape)) if event["probabilities"] else None,
        {**event["provenance"], "roi": roi},
        metadata,
        run.box,
        folder.loadText(event["margins"]) if event.get("margins") else None,
        folder.load(event["objects"], shape) if event.get("objects") else None,
        run.delta,
        run.frame,
    )
    result.counts.max()  # counted here, so that nobody has to wait for it later
    return result
