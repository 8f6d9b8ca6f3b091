"""Compares a folder of predicted label maps with a folder of reference label maps.

The metrics are MONAI's, over voxels, with the image's spacing:

- Dice: twice the shared volume, divided by the sum of both volumes.
- Normalised surface Dice (Nikolov et al. 2021, arXiv 1809.04430): the share of both surfaces' voxels that lie within a
  tolerance of the other surface. A surface voxel is one of the mask with a face neighbour outside it.
- 95 % Hausdorff distance, in mm: the 95th percentile of the distances from one surface to the other, the larger of the
  two directions.

Where a label is absent from both, there is nothing to measure and all three are NaN, which leaves the case out of the
summary. Where it is absent from one only, the case is missed: 0, 0 and infinity. The infinite distance makes the mean
infinite too, on purpose (no finite penalty is right for every image); the median stays readable.
"""

from __future__ import annotations

import csv
import math
import os
import statistics
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from io import StringIO
from pathlib import Path

import numpy as np

from ..errors import InputError, MissingDependencyError, OutputError
from ..files import replace_file
from ..volumes.volume import load_volume

ENDINGS = (".seg.nrrd", ".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
METRICS = ("dice", "surface_dice", "hausdorff95_mm")


@dataclass(frozen=True)
class Score:
    """One label in one case: ``dice`` and ``surface_dice`` from 0 to 1, ``hausdorff95_mm`` in mm."""

    case: str
    label: int
    name: str
    dice: float
    surface_dice: float
    hausdorff95_mm: float


@dataclass(frozen=True)
class Summary:
    """One label over the ``cases`` that have it in the prediction or the reference; metric -> value."""

    label: int
    name: str
    cases: int
    mean: dict[str, float]
    median: dict[str, float]


def evaluate_folders(
    predictions: str | os.PathLike,
    references: str | os.PathLike,
    labels: Mapping[int, str] | None = None,
    tolerance_mm: float = 1.0,
) -> list[Score]:
    """Scores every case, paired by file name without its ending, label by label.

    Args:
        predictions: a folder of label maps (NIfTI, NRRD, MetaImage, ``.seg.nrrd`` of one layer); other files in it are
            not looked at.
        references: likewise.
        labels: value -> name. Without it, each case has the labels found in its two files, named by their values.
        tolerance_mm: how far apart surfaces may lie and still count as the same, for the surface Dice.

    Raises:
        InputError: a case is in one folder only, or its two files differ in geometry, or a file is no label map.
        MissingDependencyError: MONAI is not installed.
    """
    if not (math.isfinite(tolerance_mm) and tolerance_mm >= 0):
        raise InputError(f"A tolerance of {tolerance_mm} mm is not possible.", "Give 0 or more.")
    predicted, reference = label_files(Path(predictions)), label_files(Path(references))
    unpaired = [
        f"only in {folder}: {', '.join(sorted(cases))}"
        for folder, cases in (
            (predictions, predicted.keys() - reference.keys()),
            (references, reference.keys() - predicted.keys()),
        )
        if cases
    ]
    if unpaired:
        raise InputError(
            f"The folders hold different cases; {'; '.join(unpaired)}.",
            "Every prediction needs a label file of the same name, and every label file a prediction.",
        )
    scores = []
    for case in sorted(predicted):
        prediction, truth, spacing = _read_pair(predicted[case], reference[case])
        names = labels or {int(value): str(value) for value in np.union1d(prediction, truth) if value != 0}
        for value, name in names.items():
            metrics = compare_masks(prediction == value, truth == value, spacing, tolerance_mm)
            scores.append(Score(case, value, name, *metrics))
    return scores


def compare_masks(
    prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, float, float], tolerance_mm: float
) -> tuple[float, float, float]:
    """Dice, surface Dice and 95 % Hausdorff distance of two boolean arrays (z, y, x); ``spacing`` is z, y, x in mm.

    Raises:
        MissingDependencyError: MONAI is not installed.
    """
    try:
        import torch
        from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice
    except ImportError as error:
        raise MissingDependencyError(
            f"Evaluation needs the package {error.name}.", 'Install it with: pip install "usema[evaluate]"'
        ) from error
    if not prediction.any() or not reference.any():
        both = prediction.any() == reference.any()
        return (math.nan,) * 3 if both else (0.0, 0.0, math.inf)
    box = bounding_box(prediction | reference)
    pair = [torch.from_numpy(mask[box].copy())[None, None] for mask in (prediction, reference)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI 1.5 and 1.6 warn of a call that MONAI itself makes
        dice = compute_dice(*pair)
        surface_dice = compute_surface_dice(*pair, [tolerance_mm], include_background=True, spacing=spacing)
        hausdorff = compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=spacing)
    return dice.item(), surface_dice.item(), hausdorff.item()


def summary(scores: Iterable[Score]) -> list[Summary]:
    """Mean and median of each metric, label by label."""
    by_label: dict[tuple[int, str], list[Score]] = {}
    for score in scores:
        by_label.setdefault((score.label, score.name), []).append(score)
    rows = []
    for (label, name), group in sorted(by_label.items()):
        present = [score for score in group if not math.isnan(score.dice)]
        columns = {metric: [getattr(score, metric) for score in present] or [math.nan] for metric in METRICS}
        mean = {metric: statistics.fmean(column) for metric, column in columns.items()}
        median = {metric: statistics.median(column) for metric, column in columns.items()}
        rows.append(Summary(label, name, len(present), mean, median))
    return rows


def write_csv(path: str | os.PathLike, scores: Iterable[Score], overwrite: bool = False) -> None:
    """Writes a line for each score, under the names of ``Score``'s fields.

    Raises:
        OutputError: the file exists, or cannot be written.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists already.", "Name another file, or ask to overwrite it.")
    text = StringIO()
    writer = csv.writer(text)
    writer.writerow([field.name for field in fields(Score)])
    writer.writerows(astuple(score) for score in scores)
    try:
        replace_file(path, text.getvalue().encode("utf-8"))
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error}.") from error


def label_files(folder: Path) -> dict[str, Path]:
    """Case name -> label map. Raises InputError where the folder is none, or holds none, or two of a case."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder.")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        ending = next((ending for ending in ENDINGS if path.name.lower().endswith(ending)), None)
        if ending is None or path.name.startswith("."):
            continue
        case = path.name[: -len(ending)]
        if case in files:
            raise InputError(f"{folder} holds two files of case {case!r}: {files[case].name} and {path.name}.")
        files[case] = path
    if not files:
        raise InputError(f"{folder} holds no label maps.", f"Known endings: {', '.join(ENDINGS)}.")
    return files


def _read_pair(predicted: Path, reference: Path) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    """Both label maps (z, y, x), and their spacing in the same order."""
    prediction, truth = load_volume(predicted), load_volume(reference)
    if not prediction.geometry.same_grid(truth.geometry):
        raise InputError(
            f"{predicted} and {reference} lie on different grids: {prediction.geometry} and {truth.geometry}.",
            "Compare label maps of the same grid.",
        )
    return whole_labels(prediction.array, predicted), whole_labels(truth.array, reference), truth.geometry.spacing_zyx


def whole_labels(array: np.ndarray, path: Path) -> np.ndarray:
    """The array as integers: label maps are often stored as floating-point numbers. Raises InputError for others."""
    with np.errstate(invalid="ignore"):
        labels = array.astype(np.int32)
    wrong = (labels != array) | (labels < 0)
    if wrong.any():
        raise InputError(f"{path} holds {array[wrong][0]}, which is no label.", "Give a label map.")
    return labels


def bounding_box(mask: np.ndarray, margin: Sequence[int] = (0, 0, 0)) -> tuple[slice, ...]:
    """The smallest box around the mask, empty if it is: outside, nothing changes the metrics, and memory is saved.

    Args:
        mask: (z, y, x).
        margin: voxels more on both sides of each axis, as far as the array goes.
    """
    box = []
    for axis in range(mask.ndim):
        hits = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        more = margin[axis]
        box.append(slice(max(0, int(hits[0]) - more), int(hits[-1]) + 1 + more) if hits.size else slice(0, 0))
    return tuple(box)
