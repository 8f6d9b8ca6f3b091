"""Labelled cases in nnU-Net's layout: what a model is measured and calibrated on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import InputError
from .evaluation import ENDINGS, label_files, whole_labels
from .metadata import ModelMetadata
from .volume import Volume, load_volume, read_volume


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
    names = sorted(references) if split is None else _validation_cases(split, fold)
    missing = [name for name in names if name not in references]
    if missing:
        raise InputError(f"{labels} has no labels of {', '.join(missing)}.", f"{split} names them.")
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
            hint = "Images are called CASE_0000.nii.gz, CASE_0001.nii.gz, ..., one per channel of the model."
            raise InputError(f"{folder} has no image {stem}, with any of {', '.join(ENDINGS)}.", hint)
        found.append(path)
    return tuple(found)


def _validation_cases(path: Path, fold: int) -> list[str]:
    hint = "Give the splits_final.json of nnU-Net's preprocessed folder."
    if not path.is_file():
        raise InputError(f"{path} is no file.", hint)
    try:
        folds = [list(map(str, each["val"])) for each in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, TypeError, KeyError):
        raise InputError(f"{path} is not a list of folds with 'train' and 'val'.", hint) from None
    if not 0 <= fold < len(folds):
        raise InputError(f"{path} has {len(folds)} folds, counted from 0, and no fold {fold}.")
    if not folds[fold]:
        raise InputError(f"Fold {fold} of {path} has no validation cases.", "Choose another fold.")
    return sorted(folds[fold])
