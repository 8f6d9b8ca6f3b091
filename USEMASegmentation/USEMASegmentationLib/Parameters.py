"""What the panel and scripts tell the logic, and what they hear back."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from usema.errors import UsemaError

EXISTING = ("new", "replace", "keep")


@dataclass
class Parameters:
    """One segmentation to be made. ``ParameterNode`` has the same fields, kept in the scene.

    Attributes:
        inputVolume: the volume node; the first channel of the model.
        channels: volume nodes of the model's further channels, in its order.
        modelName: of a model that comes with USEMA, or the path of a bundle.
        labels: names of the labels to write; empty: all.
        segmentation: the node to write into; None: a new one.
        existing: "new": a new node in any case. "replace": segments that this model made in ``segmentation`` are
            replaced, all others kept. "keep": new segments are added beside all that are there.
        roi: markups ROI node; only the voxels it touches are segmented. None: all.
        device: see ``usema.inference.device.choose_device``.
        overlap: of neighbouring tiles, 0 to 0.9 of their side.
        mirror: average over mirrored copies.
        keepProbabilities: also make a volume with the probability of each label.
        show3D: make surfaces.
    """

    inputVolume: Any = None
    channels: list = field(default_factory=list)
    modelName: str = ""
    labels: list = field(default_factory=list)
    segmentation: Any = None
    existing: str = "new"
    roi: Any = None
    device: str = "auto"
    overlap: float = 0.5
    mirror: bool = False
    keepProbabilities: bool = False
    show3D: bool = False

    @classmethod
    def copyOf(cls, parameters) -> Parameters:
        """A copy of this or of a parameter node, which later clicks do not change."""
        values = {one.name: getattr(parameters, one.name) for one in fields(cls)}
        return cls(**{**values, "channels": list(values["channels"]), "labels": list(values["labels"])})


@dataclass(frozen=True)
class Readiness:
    """Whether a segmentation can be started; if not, ``reason`` says why. Warnings do not stand in its way."""

    ready: bool
    reason: str = ""
    warnings: list[str] = field(default_factory=list)


@dataclass
class TaskStatus:
    """How far the present or the last task of a worker is.

    Attributes:
        state: "idle", "running", "cancelling", "done", "cancelled" or "failed".
        done: of ``total``; 0 of 0 while they are not known.
        secondsLeft: estimated; None: not known yet.
        message: for the user, in a sentence or two.
        hint: what the user can do.
        detail: the log, where something failed.
        code: kind of failure, see ``usema.errors``; also "worker-died", "memory", "internal".
        warnings: what the user should know about a result.
    """

    state: str = "idle"
    done: int = 0
    total: int = 0
    secondsLeft: float | None = None
    message: str = ""
    hint: str = ""
    detail: str = ""
    code: str = ""
    warnings: list[str] = field(default_factory=list)


@dataclass
class Status(TaskStatus):
    """How far the present or the last segmentation is. It has one more state, "starting"; tiles are counted.

    Attributes:
        segmentation: the node that was written.
    """

    segmentation: Any = None


def errorOf(status: TaskStatus) -> UsemaError:
    """The error to be raised in a script for a task that failed or was cancelled."""
    kinds = {one.code: one for one in (UsemaError, *UsemaError.__subclasses__())}
    error = kinds.get(status.code, UsemaError)(status.message, status.hint)
    error.code = status.code
    return error
