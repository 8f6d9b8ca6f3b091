"""What speaks against a segmentation before it is started. Cheap: the panel asks after every click."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import slicer
from usema.errors import BundleError, InputError, OutputError, UsemaError
from usema.inference.checks import input_warnings, needed_bytes
from usema.inference.memory import GIB, free_memory
from usema.inference.shown import modality_doubt, region_doubt
from usema.inference.speeds import overlap_of
from usema.models.bundle import Bundle, read_bundle
from usema.models.metadata import ModelMetadata
from usema.store.library import find_model, library
from usema.volumes.outside import fill_outside
from usema.volumes.segments import RUN_KEY
from usema.volumes.volume import MOST, check_values

from ..Parameters import EXISTING, Parameters, Readiness
from .EditMask import ownSegments, tagOf
from .Hierarchy import toldOf
from .Images import checkImage, checkVolume
from .KeptMargins import frameOf as frameOfRun
from .Kinds import refuseOtherKinds
from .Sequences import frameOf, frameValueOf
from .Targets import whyElsewhere, whyNotInto
from .VolumeBridge import boxOf, cropped, isBent, referenceVolume, worldGeometries

# Python with torch and a small network in memory, before it has seen a volume.
_WORKER_BYTES = GIB // 2


@dataclass(frozen=True)
class Warnings:
    """What speaks against a result, though it can be computed.

    Attributes:
        scene: what only the scene tells.
        engine: what the engine will say too, with its result.
        target: what the writer will say too.
    """

    scene: list[str]
    engine: list[str]
    target: list[str]

    @property
    def all(self) -> list[str]:
        return [*self.scene, *self.engine, *self.target]


def check(parameters: Parameters, devices: Sequence[str] | None = None) -> Readiness:
    """As `verify`, but the reason is told instead of raised."""
    try:
        return Readiness(True, warnings=verify(parameters, devices).all)
    except UsemaError as error:
        return Readiness(False, str(error))


def verify(parameters: Parameters, devices: Sequence[str] | None = None) -> Warnings:
    """Refuse what cannot be started.

    Args:
        devices: those of this computer; None: not known yet.

    Raises:
        UsemaError: it cannot be started; says why and what to do.
    """
    refuseOtherKinds(parameters)
    if parameters.inputVolume is None:
        raise InputError("No volume is chosen.", "Choose the volume to segment.")
    if not parameters.modelName:
        raise InputError("No model is chosen.", "Choose a model.")
    bundle = modelHere(parameters.modelName)
    volumes = [parameters.inputVolume, *parameters.channels]
    _checkVolumes(volumes, bundle.metadata)
    geometry = worldGeometries(volumes)[0]
    _checkOptions(parameters, bundle.metadata, devices)
    _checkMemory(parameters, bundle)
    if parameters.roi is not None:
        geometry = cropped(geometry, boxOf(parameters))
    intensities = parameters.inputVolume.GetImageData().GetScalarRange()  # VTK remembers it until the voxels change
    return Warnings(
        scene=[
            *_lossWarnings(parameters, bundle.metadata),
            *_sceneWarnings(volumes, bundle.metadata, parameters.allFrames),
        ],
        engine=input_warnings(bundle.metadata, geometry, intensities),
        target=_targetWarnings(parameters),
    )


def modelHere(name: str) -> Bundle:
    """A model that is on this computer, by its name or path.

    Raises:
        BundleError: it is not, or cannot be read; says what to do.
    """
    try:
        return read_bundle(find_model(name))
    except BundleError:
        model = library().get(name)
        if model is None or model.path:
            raise
        hint = f"Download it: the panel offers it, and USEMASegmentationLogic().downloadModel({name!r}) does it."
        raise BundleError(f"The model '{model.title}' is not on this computer yet.", model.why_not or hint) from None


def _checkVolumes(volumes: Sequence, metadata: ModelMetadata) -> None:
    for node in volumes:
        if node is None:
            raise InputError("A channel has no volume.", "Choose a volume for each channel.")
        name, image = node.GetName(), node.GetImageData()
        if not slicer.mrmlScene.IsNodePresent(node):
            raise InputError(f"The volume '{name}' is not in the scene.", "Load it again, or choose another.")
        if image is None or image.GetPointData().GetScalars() is None or not image.GetNumberOfPoints():
            raise InputError(f"The volume '{name}' has no voxels.", "Load it again, or choose another.")
        if node.IsA("vtkMRMLLabelMapVolumeNode"):
            raise InputError(f"'{name}' is a label map, not an image.", "Choose the volume that it was drawn on.")
        (checkImage if metadata.takes_images else checkVolume)(node)
        _refuseWithoutValues(node)
    expected = metadata.inputs
    if len(volumes) != len(expected):
        raise InputError(
            f"The model '{metadata.title}' takes {len(expected)} volume(s) ({', '.join(expected)}), "
            f"not {len(volumes)}.",
            "Choose one volume for each channel, in this order.",
        )


def _refuseWithoutValues(node) -> None:
    """One value everywhere, nothing but NaN, infinity: as the engine refuses it. Other NaN it looks at by itself."""
    array = slicer.util.arrayFromVolume(node)
    if array.dtype.kind in "iu" and _differ(array):  # the whole range of a large volume takes a quarter of a second
        return
    # VTK remembers it until the voxels change, and passes over NaN; of nothing but NaN the least is the largest number.
    low, high = node.GetImageData().GetPointData().GetScalars().GetRange(0)
    if -MOST <= low < high <= MOST:
        return
    if low == high and array.dtype.kind == "f" and np.isnan(array).any():
        return
    name = f"The volume '{node.GetName()}'"
    check_values(fill_outside(array, name)[0], name)


def _differ(array: np.ndarray) -> bool:
    """Whether a few voxels out of all planes have different values; False may be wrong."""
    few = array[:: 1 + len(array) // 64, :: 1 + array.shape[1] // 16, :: 1 + array.shape[2] // 16]
    return bool((few != few.flat[0]).any())


def _checkOptions(parameters: Parameters, metadata: ModelMetadata, devices: Sequence[str] | None) -> None:
    known = [label.name for label in metadata.result_labels]
    unknown = [name for name in parameters.labels if name not in known]
    if unknown:
        raise InputError(
            f"The model '{metadata.title}' has no label {', '.join(map(repr, unknown))}.", f"It has {', '.join(known)}."
        )
    if parameters.overlap is not None and not 0 <= parameters.overlap <= 0.9:
        raise InputError(f"The overlap {parameters.overlap} is not between 0 and 0.9.", "0.5 is the usual value.")
    overlap_of(parameters.speed, parameters.overlap)
    if parameters.existing not in EXISTING:
        raise InputError(f"{parameters.existing!r} is none of {', '.join(EXISTING)}.")
    if parameters.segmentation is not None and parameters.existing != "new":
        problem = whyNotInto(parameters.segmentation, parameters.inputVolume)
        if problem:
            raise OutputError(problem, "Choose another segmentation, or a new one.")
    device = parameters.device
    if devices is not None and device != "auto" and not any(f"{one}:".startswith(f"{device}:") for one in devices):
        raise InputError(f"There is no device '{device}' here.", f"Choose auto, or one of {', '.join(devices)}.")


def _checkMemory(parameters: Parameters, bundle: Bundle) -> None:
    needed, free = leastBytes(parameters, bundle.metadata), free_memory(in_a_new_process=True)
    if free is not None and needed > free:
        raise InputError(
            f"Main memory is too small: at least {needed / GIB:.1f} GiB are needed, {free / GIB:.1f} GiB are free.",
            "Close other programs, or segment only a region of interest.",
        )


def leastBytes(parameters: Parameters, metadata: ModelMetadata) -> int:
    """Main memory that a segmentation takes at the least; a lower bound, so that nothing is refused that would run.

    For v voxels in the box to segment, and with K labels and background, of which L are wanted:

    - what the engine needs (``usema.inference.checks.needed_bytes``);
    - 2 v: labels in the scene, with one copy;
    - (2 K + 4 L) v, if probabilities are kept: half precision in the worker, single precision for L volumes here;
    - 0.5 GiB for the worker itself.
    """
    volume = parameters.inputVolume
    shape = [part.stop - part.start for part in boxOf(parameters)]
    voxels, classes = math.prod(shape), len(metadata.labels) + 1
    needed = needed_bytes(metadata, shape, volume.GetSpacing()[::-1]) + 2 * voxels
    if parameters.keepProbabilities:
        needed += (2 * classes + 4 * (len(parameters.labels) or len(metadata.labels))) * voxels
    return needed + _WORKER_BYTES


def _lossWarnings(parameters: Parameters, metadata: ModelMetadata) -> list[str]:
    """The choice to replace outlives the choice of another volume, such as of the next patient on a common grid, and
    that of another frame."""
    target, volume = parameters.segmentation, parameters.inputVolume
    if target is None or parameters.existing != "replace" or parameters.allFrames or whyElsewhere(target, volume):
        return []
    segmentation, made = target.GetSegmentation(), referenceVolume(target, volume)
    tags = {tagOf(segmentation.GetSegment(one), RUN_KEY) for one in ownSegments(target, metadata).values()}
    replaced = "whose result is replaced."
    if not parameters.overwriteCorrections:
        replaced += " What was corrected in it stays, unless this is to be replaced, too."
    if tags and made is not volume:
        return [f"'{target.GetName()}' was made of another volume, '{made.GetName()}', {replaced}"]
    frames = {frameOfRun(target, tag) for tag in tags} - {"", frameValueOf(volume)}
    return [f"'{target.GetName()}' was made of another frame, {one}, {replaced}" for one in frames]


def _sceneWarnings(volumes: Sequence, metadata: ModelMetadata, allFrames: bool) -> list[str]:
    told = toldOf(volumes[0])
    warnings = list(filter(None, [modality_doubt(metadata, told), region_doubt(metadata, told)]))
    if len({node.GetID() for node in volumes}) < len(volumes):
        warnings.append("The same volume is chosen for more than one channel.")
    if any(map(isBent, volumes)):
        warnings.append("The transform above the volume is not linear: it is segmented as it is stored, not as shown.")
    frames = [frame for frame in map(frameOf, volumes) if frame]
    if frames and not allFrames:
        warnings.append("Only the frame that is shown is segmented: {} of {} of a sequence.".format(*frames[0]))
    return warnings


def _targetWarnings(parameters: Parameters) -> list[str]:
    if parameters.segmentation is None or parameters.existing == "new":
        return []
    reason = whyElsewhere(parameters.segmentation, parameters.inputVolume)
    return [f"{reason} A new segmentation will be made."] if reason else []
