"""Labelled cases in nnU-Net's layout: what a model is measured and calibrated on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..inference.checks import meant
from ..models.metadata import ModelMetadata
from ..volumes.geometry import Geometry
from ..volumes.paths import PICTURE_SUFFIXES
from ..volumes.picture_files import read_picture
from ..volumes.volume import Volume, read_volume
from .label_maps import ENDINGS, brought_onto, label_files, read_label_map, same_extent

IGNORED = -1  # in place of a label
_IMAGES = tuple(dict.fromkeys((*ENDINGS, *PICTURE_SUFFIXES)))


@dataclass(frozen=True)
class LabelledCase:
    """A case's name, its images in the order of the model's channels, and its reference labels."""

    name: str
    images: tuple[Path, ...]
    labels: Path


def find_cases(
    images: Path, labels: Path, channels: int, split: Path | None = None, fold: int = 0
) -> list[LabelledCase]:
    """Cases in nnU-Net's layout: ``images/CASE_0000.nii.gz``, one file per channel, and ``labels/CASE.nii.gz``.

    Args:
        channels: the model's.
        split: nnU-Net's ``splits_final.json``; only the validation cases of ``fold`` are taken. Without it, all cases
            that have labels.

    Raises:
        InputError: a file or folder is missing, holds no cases, or the split has no such fold.
    """
    references = label_files(labels)
    names = sorted(references) if split is None else _fold(split, fold)["val"]
    missing = [name for name in names if name not in references]
    if missing:
        some = ", ".join(missing[:5]) + (f" and {len(missing) - 5} others" if len(missing) > 5 else "")
        raise InputError(f"{labels} has no labels of {some}.", f"{split} names them: is it this data set's?")
    return [LabelledCase(name, _images(images, name, channels), references[name]) for name in names]


def read_case(case: LabelledCase, metadata: ModelMetadata) -> tuple[list[Volume], np.ndarray]:
    """The channels of a case and its reference labels (z, y, x), on the grid of the first channel.

    Raises:
        InputError: an image cannot be read, or as ``read_labels``.
    """
    read = read_picture if metadata.takes_images else read_volume
    volumes = [read(path) for path in case.images]
    return volumes, read_labels(case, volumes[0].geometry, metadata)


def read_labels(case: LabelledCase, grid: Geometry, metadata: ModelMetadata) -> np.ndarray:
    """The reference labels (z, y, x) of a case alone, on the grid of its first channel.

    Labels may be stored with their axes in another order, or cropped to what was drawn. IGNORED marks voxels that
    nobody labelled, where the training of the model knew such.

    Raises:
        InputError: the file cannot be read, the labels do not lie on the image's voxels, or are not the model's.
    """
    drawn = read_label_map(case.labels)
    names = {label.value: label.name for label in meant(metadata, metadata.labels, grid)}  # a crop has no sides
    layers, outside = brought_onto(drawn, grid, case.images[0])
    if outside or (drawn.segments is None and not same_extent(drawn.geometry, grid)):
        raise InputError(
            f"{case.labels} and {case.images[0]} lie on different grids: {drawn.geometry}; and {grid}.",
            "Give labels that were drawn on these images.",
        )
    places, ignored = drawn.places(names), metadata.training.get("ignored_label")
    unknown = sorted(places.keys() - names.keys() - {ignored})
    if unknown:
        raise InputError(
            f"{case.labels} has the label {unknown[-1]}, and the model '{metadata.name}' knows 0 to {max(names)}.",
            "Give labels with the model's own values.",
        )
    if len(layers) == 1 and all(value == place[1] for value, place in places.items()):
        return np.where(layers[0] == ignored, IGNORED, layers[0]) if ignored in places else layers[0]
    reference, masks = np.zeros(grid.shape, np.int32), {v: layers[at] == there for v, (at, there) in places.items()}
    if len(layers) > 1 and (sum(mask.astype(np.uint8) for mask in masks.values()) > 1).any():
        raise InputError(f"{case.labels} has segments that overlap.", "A model gives each voxel one label: choose one.")
    for value, mask in masks.items():
        reference[mask] = IGNORED if value == ignored else value
    return reference


def as_result(reference: np.ndarray, metadata: ModelMetadata) -> np.ndarray:
    """A reference as a result has it: pixels of the rims of objects belong to the objects."""
    split = metadata.instances
    if split is None or "boundary" not in split:
        return reference
    values = {label.name: label.value for label in metadata.labels}
    return np.where(reference == values[split["boundary"]], values[split["label"]], reference)


def where_labelled(labels: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A result and its reference (z, y, x), both background where nobody labelled: there, nothing is right or wrong."""
    if not (reference == IGNORED).any():
        return labels, reference
    return np.where(reference == IGNORED, 0, labels), np.maximum(reference, 0)


def _images(folder: Path, case: str, channels: int) -> tuple[Path, ...]:
    found = []
    for channel in range(channels):
        stem = f"{case}_{channel:04d}"
        path = next((path for ending in _IMAGES if (path := folder / (stem + ending)).is_file()), None)
        if path is None:
            hint = (
                "Images are called CASE_0000.nii.gz, CASE_0001.nii.gz, ..., one per channel of the model, and labels "
                "CASE.nii.gz. Every case with labels needs its images. Were the two folders given in this order?"
            )
            raise InputError(f"{folder} has no image {stem}, with any of {', '.join(_IMAGES)}.", hint)
        found.append(path)
    return tuple(found)


def names_sha256(names: Iterable[str]) -> str:
    """The SHA-256 of the sorted names of cases, a line each: what a model keeps of the cases of its training."""
    return hashlib.sha256("".join(f"{name}\n" for name in sorted(names)).encode("utf-8")).hexdigest()


def describe_cases(metadata: ModelMetadata, images: Path, split: Path | None, fold: int) -> tuple[str, bool]:
    """Where cases come from, in words, and whether the model's training is known to have left them out.

    It is, if the data set has the name that ``training`` of the model has, and the names of the fold's cases, those to
    train on and those to validate on, have the hashes that it keeps. A model without these hashes is not known.
    """
    training, dataset = metadata.training, images.resolve().parent.name
    if split is None:
        return f"{dataset}/{images.name}", False
    parts = _fold(split, fold)
    kept = (training.get("dataset"), training.get("cases_sha256"), training.get("validation_cases_sha256"))
    left_out = kept == (dataset, names_sha256(parts["train"]), names_sha256(parts["val"]))
    return f"{dataset}/{images.name}, validation cases of fold {fold} of {split.name}", left_out


def refuse_trained_on(metadata: ModelMetadata, images: Path, split: Path, fold: int) -> None:
    """Raises InputError where a model says that its training held back other cases than the fold's, of this data set.

    A model of another data set, and one that does not say which cases it was trained on, is not refused.
    """
    training, dataset = metadata.training, images.resolve().parent.name
    says = training.get("dataset") == dataset and "cases_sha256" in training
    if says and not describe_cases(metadata, images, split, fold)[1]:
        raise InputError(
            f"The training of '{metadata.name}' {metadata.version} on {dataset} held back other cases than fold {fold} "
            f"of {split}: some of these may have been learned.",
            "Name the split and the fold of that training.",
        )


def read_folds(path: Path) -> list[dict[str, list[str]]]:
    """The folds of nnU-Net's ``splits_final.json``: "train" and "val", names of cases.

    Raises:
        InputError: it is missing, or no such file.
    """
    hint = "Give the splits_final.json of nnU-Net's preprocessed folder."
    if not path.is_file():
        raise InputError(f"{path} is no file.", hint)
    try:
        return [
            {part: sorted(map(str, each[part])) for part in ("train", "val")}
            for each in json.loads(path.read_text(encoding="utf-8"))
        ]
    except (ValueError, TypeError, KeyError):
        raise InputError(f"{path} is not a list of folds with 'train' and 'val'.", hint) from None


def _fold(path: Path, fold: int) -> dict[str, list[str]]:
    folds = read_folds(path)
    if not 0 <= fold < len(folds):
        raise InputError(
            f"{path} has {len(folds)} folds, and no fold {fold}.", f"Choose one from 0 to {len(folds) - 1}."
        )
    if not folds[fold]["val"]:
        raise InputError(f"Fold {fold} of {path} has no validation cases.", "Choose another fold.")
    return folds[fold]
