"""What the panel and scripts tell the logic, and what they hear back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from usema.errors import InputError, UsemaError
from usema.inference.speeds import SPEEDS
from usema.serving.protocol import RunOptions

EXISTING = ("new", "replace", "keep")

# What scripts may say instead.
_OTHER_WORDS = {"volumeNode": "inputVolume", "segmentationNode": "segmentation", "roiNode": "roi"}


@dataclass
class Parameters:
    """One segmentation to be made: the one list of what can be chosen. ``ParameterNode`` keeps it in the scene as the
    metadata of the fields say, scripts name its fields, and the engine is told those that ``RunOptions`` has.

    Attributes:
        inputVolume: the volume node; the first channel of the model.
        channels: volume nodes of the model's further channels, in its order.
        modelName: of a model that comes with USEMA, or the path of a bundle.
        labels: names of the labels to write; empty: all.
        segmentation: the node to write into; None: a new one.
        existing: "new": a new node in any case. "replace": segments that this model wrote into ``segmentation`` get
            new voxels; their names and colours stay, and so do copies, all other segments, and what lies outside of
            ``roi``. "keep": new segments are added beside all that are there.
        overwriteCorrections: "replace" also takes what the user changed in these segments, which it else keeps.
        roi: markups ROI node; only the voxels it touches are segmented. None: all.
        device: see ``usema.inference.device.choose_device``.
        speed: "exact", as the model says; "fast": tiles overlap less; "preview": exact, but a first look is shown until
            the result is there.
        overlap: of neighbouring tiles, 0 to 0.9 of their side; None: as the model and the speed say.
        mirror: average over mirrored copies.
        allFrames: of a volume that shows a frame of a sequence, segment every frame: the result is a sequence too. With
            ``existing`` "replace", frames that ``segmentation`` has stay as they are.
        keepProbabilities: also make a volume with the probability of each label.
        keepMargins: keep, in 8 bits, how sure the model was where it was not quite: thresholds, the list of doubtful
            regions and refining need it.
        show3D: make surfaces.
    """

    inputVolume: Any = field(default=None, metadata={"node": "vtkMRMLScalarVolumeNode"})
    channels: list = field(default_factory=list, metadata={"nodes": "vtkMRMLScalarVolumeNode"})
    modelName: str = ""
    labels: list = field(default_factory=list, metadata={"texts": True})
    segmentation: Any = field(default=None, metadata={"node": "vtkMRMLSegmentationNode"})
    existing: str = field(default="new", metadata={"choices": EXISTING})
    overwriteCorrections: bool = False
    roi: Any = field(default=None, metadata={"node": "vtkMRMLMarkupsROINode"})
    device: str = RunOptions.device
    speed: str = field(default=RunOptions.speed, metadata={"choices": SPEEDS})
    overlap: float | None = field(
        default=RunOptions.overlap, metadata={"span": (0, 0.9), "unless": "overlapOfModel", "shown": 0.5}
    )
    mirror: bool = RunOptions.mirror
    allFrames: bool = False
    keepProbabilities: bool = RunOptions.probabilities
    keepMargins: bool = True
    show3D: bool = False

    @classmethod
    def copyOf(cls, parameters) -> Parameters:
        """A copy of this or of a parameter node, which later clicks do not change."""
        values = {one.name: getattr(parameters, one.name) for one in fields(cls)}
        for one in fields(cls):
            if getattr(parameters, one.metadata.get("unless", ""), False):
                values[one.name] = None
        return cls(**{**values, "channels": list(values["channels"]), "labels": list(values["labels"])})

    @classmethod
    def fromWords(cls, words: Mapping[str, Any]) -> Parameters:
        """From what a script says: the names of the fields, or ``volumeNode``, ``segmentationNode``, ``roiNode``.

        With a segmentation and no word on what is there, this model's segments in it are replaced. None for a list is
        an empty one.

        Raises:
            InputError: there is no such option, it is said twice, or a list is none.
        """
        known, values = [one.name for one in fields(cls)], {}
        for word, value in words.items():
            name = _OTHER_WORDS.get(word, word)
            if name not in known:
                raise InputError(f"There is no option {word!r}.", f"There are {', '.join(known)}.")
            if name in values:
                raise InputError(f"The option {name!r} is given twice, once as {word!r}.", f"Give {name} alone.")
            values[name] = value
        if values.get("existing") is None:
            values["existing"] = "new" if values.get("segmentation") is None else "replace"
        for name in ("channels", "labels"):
            given = () if values.get(name) is None else values[name]
            if isinstance(given, str) or not isinstance(given, Iterable):
                raise InputError(f"The option {name!r} is no list.", f"Give {name}=[...], also for a single one.")
            values[name] = list(given)
        return cls(**values)

    @classmethod
    def of(cls, parameters, options: Mapping[str, Any]) -> Parameters:
        """A copy of parameters, or of what a script says instead.

        Raises:
            InputError: both are given; or as `fromWords`.
        """
        if parameters is None:
            return cls.fromWords(options)
        if options:
            raise InputError(f"Both parameters and {', '.join(options)} are given.", "Give one of the two.")
        return cls.copyOf(parameters)

    def runOptions(self) -> RunOptions:
        """What the engine is told of how."""
        return RunOptions(self.device, self.overlap, self.mirror, self.keepProbabilities, self.speed, self.keepMargins)


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
        segmentation: the node that was written, as long as it is there.
        millilitres: what was found, by the name of the label.
        keptVoxels: how many voxels that the user had changed were left as they are.
        frame: which frame of a sequence is being segmented, from 1, of ``frames``; 0 of 0 where it is one volume.
    """

    segmentation: Any = None
    millilitres: dict[str, float] = field(default_factory=dict)
    keptVoxels: int = 0
    frame: int = 0
    frames: int = 0


def errorOf(status: TaskStatus) -> UsemaError:
    """The error to be raised in a script for a task that failed or was cancelled."""
    kinds = {one.code: one for one in (UsemaError, *UsemaError.__subclasses__())}
    error = kinds.get(status.code, UsemaError)(status.message, status.hint)
    error.code = status.code
    return error
