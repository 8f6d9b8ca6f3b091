"""A result into the scene: arrays first, then undo, then the scene, all or nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import slicer
from usema.models.metadata import ModelMetadata

from ..Parameters import Parameters
from . import KeptDelta, KeptMargins, Objects, Probabilities, SegmentationWriter
from .ResultArrays import prepare
from .Sequences import frameValueOf
from .Targets import whyElsewhere, whyNotInto
from .VolumeBridge import Box


@dataclass(frozen=True, eq=False)
class Result:
    """What the engine found in a volume.

    Attributes:
        labels: (z, y, x) on the voxels of ``box``.
        probabilities: (classes, z, y, x) there, background first; None: not kept.
        provenance: how it was made, text by name.
        margins: ``Margins.to_text`` of the box; None: not kept.
        objects: (z, y, x) there, numbers of the objects of an image; None: the model splits nothing into objects.
        delta: what the model had learned from corrections before; None: nothing.
    """

    labels: np.ndarray
    probabilities: np.ndarray | None
    provenance: Mapping[str, str]
    metadata: ModelMetadata
    box: Box
    margins: str | None = None
    objects: np.ndarray | None = None
    delta: KeptDelta.KeptDelta | None = None


@dataclass
class Outcome:
    """What was written.

    Attributes:
        segmentation: the node.
        keptVoxels: how many voxels that the user changed were left as they are.
        warnings: what is not as it was asked for.
    """

    segmentation: Any
    keptVoxels: int = 0
    warnings: list[str] = field(default_factory=list)


def write(
    result: Result,
    parameters: Parameters,
    beforeWriting: Callable[[Any], Any] | None = None,
    onlyNew: str = "",
) -> Outcome:
    """Write a result where the parameters want it; where that cannot be, into a new segmentation.

    Minutes of work should not be lost because the place for them is.

    Args:
        beforeWriting: called with an existing segmentation right before it is changed; False, and nothing else, says
            that its state could not be saved for undo.
        onlyNew: why it must not be written into what is there; empty: it may be.

    Raises:
        Exception: whatever it was, the scene is as before.
    """
    volume, target, existing = parameters.inputVolume, parameters.segmentation, parameters.existing
    run = KeptMargins.newRun() if result.margins else ""
    warnings = []
    if target is None or existing == "new":
        target = None
        if onlyNew:
            warnings.append(onlyNew)
    else:
        reason = onlyNew or whyNot(target, volume)
        if reason:
            warnings.append(f"{reason} A new segmentation was made.")
            target = None
    prepared, volumes = _prepared(result, parameters, target, run)
    if target is not None and beforeWriting is not None and beforeWriting(target) is False:
        warnings.append(f"'{target.GetName()}' could not be saved for undo. A new segmentation was made.")
        target = None
        prepared, volumes = _prepared(result, parameters, target, run)
    before = set() if target is None else KeptMargins.runsOf(target)
    with ExitStack() as undo:
        node, last = SegmentationWriter.commit(prepared, undo, parameters.show3D)
        Probabilities.commit(volumes, node, volume, result.metadata, undo)
        if result.objects is not None:
            Objects.commit(result.objects, result.box, node, volume, undo)
        if run:
            names, frame = KeptMargins.namesOf(result.metadata), frameValueOf(volume)
            KeptMargins.commit(run, result.margins, names, result.box, node, undo, frame)
            if result.delta is not None:
                KeptDelta.commit(run, result.delta, node, undo)
        undo.pop_all()
    last()
    KeptMargins.forget(node, before | KeptMargins.runsOf(node))
    return Outcome(node, prepared.keptVoxels, [*warnings, *prepared.warnings])


def whyNot(target, volume) -> str:
    """Why a result cannot be written into an existing segmentation; empty: it can."""
    if not slicer.mrmlScene.IsNodePresent(target):
        return "The segmentation was removed."
    return whyNotInto(target, volume) or whyElsewhere(target, volume)


def _prepared(result: Result, parameters: Parameters, target, run: str):
    prepared = prepare(
        result.labels,
        parameters.inputVolume,
        result.metadata,
        result.provenance,
        box=result.box,
        labelNames=parameters.labels,
        target=target,
        existing="new" if target is None else parameters.existing,
        overwriteCorrections=parameters.overwriteCorrections,
        run=run,
    )
    volumes = {}
    if result.probabilities is not None:
        volumes = Probabilities.prepare(
            result.probabilities,
            parameters.inputVolume,
            result.metadata,
            box=result.box,
            labelNames=parameters.labels,
            target=target,
        )
    return prepared, volumes
