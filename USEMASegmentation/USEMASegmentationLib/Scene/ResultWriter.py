"""A result into the scene: arrays first, then undo, then the scene, all or nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import slicer
from usema.models.metadata import ModelMetadata

from ..Parameters import Parameters
from ..Steps import NextTurn, Working, atOnce, beside, isSmall
from . import EditMask, KeptDelta, KeptMargins, Objects, Probabilities, SegmentationWriter
from .ResultArrays import Prepared, compute, gather
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
        frame: which frame of a sequence it is of, as `Sequences.frameValueOf` tells it; empty: of none.
    """

    labels: np.ndarray
    probabilities: np.ndarray | None
    provenance: Mapping[str, str]
    metadata: ModelMetadata
    box: Box
    margins: str | None = None
    objects: np.ndarray | None = None
    delta: KeptDelta.KeptDelta | None = None
    frame: str = ""

    @cached_property
    def counts(self) -> np.ndarray:
        """How many voxels each value from 0 to the highest label has."""
        highest = max((label.value for label in self.metadata.labels), default=0)
        # Slice by slice, because bincount makes a copy with 8 bytes a voxel, and lets no other Python run meanwhile.
        return sum(np.bincount(plane.ravel(), minlength=highest + 1) for plane in self.labels)


@dataclass
class Outcome:
    """What was written.

    Attributes:
        segmentation: the node.
        keptVoxels: how many voxels that the user changed were left as they are.
        warnings: what is not as it was asked for.
        surfaces: makes those that are to be shown, a segment at each turn; for who writes it.
    """

    segmentation: Any
    keptVoxels: int = 0
    warnings: list[str] = field(default_factory=list)
    surfaces: Working | None = None


@dataclass(frozen=True, eq=False)
class Ready:
    """A result as arrays, for the scene as it was when they were made."""

    result: Result
    parameters: Parameters
    prepared: Prepared
    probabilities: dict[str, np.ndarray]
    run: str
    warnings: list[str]
    state: tuple

    def isCurrent(self) -> bool:
        """Whether what it is written into is as it was: the user may have gone on working."""
        return self.state == _stateOf(self.prepared.target, self.result, self.parameters)

    def saving(self, beforeWriting: Callable[[Any], Any] | None) -> Working:
        """Saves what is there for undo, in a turn of its own; returns what is to be written then: this, for a new
        segmentation if it could not be saved, or None: the user went on meanwhile, and it has to be made ready anew."""
        target = self.prepared.target
        if target is None or beforeWriting is None:
            return self
        isSaved = beforeWriting(target)
        if isSaved is False:
            reason = f"'{target.GetName()}' could not be saved for undo."
            return (yield from preparing(self.result, self.parameters, reason))
        yield NextTurn()
        return self if self.isCurrent() and (not callable(isSaved) or isSaved()) else None

    def commit(self) -> Outcome:
        """Write it, but no surfaces; see `write`."""
        result, prepared, volume = self.result, self.prepared, self.parameters.inputVolume
        target = prepared.target
        before = set() if target is None else KeptMargins.runsOf(target)
        had = SegmentationWriter.hasSurfaces(target)
        with ExitStack() as undo:
            node, last = SegmentationWriter.commit(prepared, undo)
            Probabilities.commit(self.probabilities, node, volume, result.metadata, undo)
            if result.objects is not None:
                Objects.commit(result.objects, result.box, node, volume, undo)
            if self.run:
                names = KeptMargins.namesOf(result.metadata)
                KeptMargins.commit(self.run, result.margins, names, result.box, node, volume, undo, result.frame)
                if result.delta is not None:
                    KeptDelta.commit(self.run, result.delta, node, undo)
            undo.pop_all()
        last()
        KeptMargins.forget(node, before | KeptMargins.runsOf(node))
        surfaces = SegmentationWriter.surfacing(node, prepared, had, self.parameters.show3D)
        return Outcome(node, prepared.keptVoxels, [*self.warnings, *prepared.warnings], surfaces)


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
    outcome = atOnce(atOnce(preparing(result, parameters, onlyNew)).saving(beforeWriting)).commit()
    atOnce(outcome.surfaces)
    return outcome


def preparing(result: Result, parameters: Parameters, onlyNew: str = "") -> Working:
    """Makes a result ready, a moment at a time; returns it as `Ready`. The scene stays as it is; see `write`."""
    volume, target, warnings = parameters.inputVolume, parameters.segmentation, []
    if target is None or parameters.existing == "new":
        target, warnings = None, [onlyNew] if onlyNew else []
    elif reason := onlyNew or whyNot(target, volume):
        target, warnings = None, [f"{reason} A new segmentation was made."]
    run, state = KeptMargins.newRun() if result.margins else "", _stateOf(target, result, parameters)
    scene = gather(
        volume,
        result.metadata,
        result.provenance,
        box=result.box,
        labelNames=parameters.labels,
        target=target,
        existing="new" if target is None else parameters.existing,
        overwriteCorrections=parameters.overwriteCorrections,
        run=run,
    )
    size = result.labels.size + scene.voxels.size
    if not isSmall(size):
        yield from scene.voxels.copying()
    prepared = yield from beside(lambda: compute(result.labels, scene), size)
    volumes = {}
    if result.probabilities is not None:
        volumes = yield from Probabilities.preparing(
            result.probabilities, volume, result.metadata, box=result.box, labelNames=parameters.labels, target=target
        )
    return Ready(result, parameters, prepared, volumes, run, warnings, state)


def _stateOf(target, result: Result, parameters: Parameters) -> tuple:
    """What tells whether the segmentation that is written into is still the same."""
    if target is None:
        return ()
    edits = EditMask.stateOf(target, result.metadata)
    return whyNot(target, parameters.inputVolume), target.GetSegmentation().GetSegmentIDs(), edits


def whyNot(target, volume) -> str:
    """Why a result cannot be written into an existing segmentation; empty: it can."""
    if not slicer.mrmlScene.IsNodePresent(target):
        return "The segmentation was removed."
    return whyNotInto(target, volume) or whyElsewhere(target, volume)
