"""Labelled cases in nnU-Net's layout: what a model is measured and calibrated on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..models.metadata import ModelMetadata
from ..volumes.volume import Volume, load_volume, read_volume
from .evaluation import ENDINGS, label_files, whole_labels


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
    """The channels of a case and its reference labels (z, y, x), on one grid.

    Raises:
        InputError: a file cannot be read, the labels lie on another grid, or are not the model's.
    """
    volumes, truth = [read_volume(path) for path in case.images], load_volume(case.labels)
    grid = volumes[0].geometry
    if not truth.geometry.same_grid(grid):
        raise InputError(
            f"{case.labels} and {case.images[0]} lie on different grids: {truth.geometry} and {grid}.",
            "Give labels that were drawn on these images.",
        )
    reference = whole_labels(truth.array, case.labels)
    if reference.max() > len(metadata.labels):
        raise InputError(
            f"{case.labels} has the label {reference.max()}, and the model '{metadata.name}' knows 0 to "
            f"{len(metadata.labels)}.",
            "Give labels with the model's own values.",
        )
    return volumes, reference


def _images(folder: Path, case: str, channels: int) -> tuple[Path, ...]:
    found = []
    for channel in range(channels):
        stem = f"{case}_{channel:04d}"
        path = next((path for ending in ENDINGS if (path := folder / (stem + ending)).is_file()), None)
        if path is None:
            hint = (
                "Images are called CASE_0000.nii.gz, CASE_0001.nii.gz, ..., one per channel of the model, and labels "
                "CASE.nii.gz. Every case with labels needs its images. Were the two folders given in this order?"
            )
            raise InputError(f"{folder} has no image {stem}, with any of {', '.join(ENDINGS)}.", hint)
        found.append(path)
    return tuple(found)


def origin(metadata: ModelMetadata, images: Path, split: Path | None, fold: int) -> tuple[str, bool]:
    """Where cases come from, in words, and whether the model's training left them out.

    That is only said of the validation cases of its own fold: the data set has the name, and the fold the numbers of
    cases, that ``training`` of the model names.
    """
    training, dataset = metadata.training, images.resolve().parent.name
    if split is None:
        return f"{dataset}/{images.name}", False
    parts = _fold(split, fold)
    own = (training.get("dataset"), training.get("fold"), training.get("cases"), training.get("validation_cases"))
    left_out = own == (dataset, fold, len(parts["train"]), len(parts["val"]))
    return f"{dataset}/{images.name}, validation cases of fold {fold} of {split.name}", left_out


def _fold(path: Path, fold: int) -> dict[str, list[str]]:
    hint = "Give the splits_final.json of nnU-Net's preprocessed folder."
    if not path.is_file():
        raise InputError(f"{path} is no file.", hint)
    try:
        folds = [
            {part: sorted(map(str, each[part])) for part in ("train", "val")}
            for each in json.loads(path.read_text(encoding="utf-8"))
        ]
    except (ValueError, TypeError, KeyError):
        raise InputError(f"{path} is not a list of folds with 'train' and 'val'.", hint) from None
    if not 0 <= fold < len(folds):
        raise InputError(
            f"{path} has {len(folds)} folds, and no fold {fold}.", f"Choose one from 0 to {len(folds) - 1}."
        )
    if not folds[fold]["val"]:
        raise InputError(f"Fold {fold} of {path} has no validation cases.", "Choose another fold.")
    return folds[fold]
