"""Corrected segmentations become cases of a training set. Nothing leaves the computer. No Qt."""

from __future__ import annotations

from pathlib import Path

from usema.errors import InputError
from usema.inference.training_crops import examples, own_labels
from usema.volumes.training_set import add_case, check_training_set

from .Parameters import Parameters
from .Scene import Preflight
from .Scene.TrainingCase import labelsOf, volumesOf

CONSENT = (
    "A copy of the volume and of its segments is written into {folder} on this computer, for training. Nothing is sent "
    "anywhere, and no name or date is copied; but the image itself may show who the patient is. Are you allowed to use "
    "it so?"
)


def check(parameters: Parameters) -> None:
    """Refuse what cannot be added. Raises UsemaError: says why and what to do."""
    _case(parameters)


def add(parameters: Parameters, folder, consent: bool) -> list[str]:
    """See ``USEMASegmentationLogic.addToTrainingSet``."""
    metadata, volumes, labels = _case(parameters)
    folder, channels = Path(folder), [channel["name"] for channel in metadata.channels]
    check_training_set(folder, channels, own_labels(metadata))
    if consent is not True:
        raise InputError(
            "Nothing was written: nobody said that this patient's images may be used.", "Pass consent=True."
        )
    cases = examples(metadata, volumes, labels)
    if not cases:
        raise InputError("The segments are empty.", "Draw them first.")
    return [add_case(folder, *case, channels, own_labels(metadata)) for case in cases]


def _case(parameters: Parameters):
    if parameters.inputVolume is None or parameters.segmentation is None:
        raise InputError("A volume and its segmentation are needed.", "Choose both, and correct the segmentation.")
    metadata = Preflight.modelHere(parameters.modelName).metadata
    volumes = volumesOf([parameters.inputVolume, *parameters.channels])
    if len(volumes) != len(metadata.channels):
        raise InputError(f"The model takes {len(metadata.channels)} volume(s), not {len(volumes)}.", "Choose them all.")
    return metadata, volumes, labelsOf(parameters.segmentation, parameters.inputVolume, metadata)
