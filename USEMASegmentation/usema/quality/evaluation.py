"""Compares a folder of predicted label maps with a folder of reference label maps, label by label (``metrics.py``).

A label that is absent from both leaves the case out of the summary. One that is in one only is missed: the summary
counts it, with a Dice of 0; the Hausdorff distance, infinite there, is averaged over the other cases. The median holds
all of them.
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np

from ..errors import InputError, OutputError
from ..files import refuse_existing, replace_file
from ..tables import as_csv
from .label_maps import LabelMap, label_files, on_one_grid, read_label_map
from .metrics import METRICS, compare_masks, mean_of_found


@dataclass(frozen=True)
class Score:
    """One label in one case: ``dice`` and ``surface_dice`` (at ``tolerance_mm``) from 0 to 1, ``hausdorff95_mm`` in
    mm. Of pictures (``in_pixels``), what is called mm counts pixels."""

    case: str
    label: int
    name: str
    dice: float
    surface_dice: float
    hausdorff95_mm: float
    tolerance_mm: float = 1.0
    in_pixels: bool = False


@dataclass(frozen=True)
class Summary:
    """One label over the ``cases`` that have it in the prediction or the reference; metric -> value.

    In ``missed`` of them it is in one only: their distance is infinite, and not in its mean.
    """

    label: int
    name: str
    cases: int
    missed: int
    mean: dict[str, float]
    median: dict[str, float]


def evaluate_folders(
    predictions: str | os.PathLike,
    references: str | os.PathLike,
    labels: Mapping[int, str] | None = None,
    tolerance_mm: float | Mapping[str, float] = 1.0,
    report: Callable[[str], None] = lambda sentence: None,
) -> list[Score]:
    """Scores every case, label by label.

    Cases are paired by file name without its ending; ``case_0000``, named after an image of nnU-Net's layout, is
    ``case``. Segments of two ``.seg.nrrd`` are paired by name, else labels by value.

    Args:
        predictions: a folder of label maps (NIfTI, NRRD, MetaImage, ``.seg.nrrd``); other files in it are not looked
            at.
        references: likewise. See ``label_maps.on_one_grid`` for grids that differ.
        labels: value -> name. Without it, each case has the labels found in its two files, named by their values.
        tolerance_mm: how far apart surfaces may lie (in pictures: in pixels) and still count as the same, for the
            surface Dice: one for all, or by a label's name or value, where "" stands for all others (1 if it is not
            there).
        report: called with a sentence about what was left out of a comparison, and where there was nothing to compare.

    Raises:
        InputError: a case is in one folder only, or its two files do not lie on one lattice, or a file is no label
            map, or a tolerance is impossible or of a label that no case has.
        MissingDependencyError: MONAI is not installed.
    """
    tolerances = dict(tolerance_mm) if isinstance(tolerance_mm, Mapping) else {"": tolerance_mm}
    for tolerance in tolerances.values():
        if not (math.isfinite(tolerance) and tolerance >= 0):
            raise InputError(f"A tolerance of {tolerance} mm is not possible.", "Give 0 or more.")
    scores, used = [], {""}
    for case, predicted, reference in _pairs(Path(predictions), Path(references)):
        for label, name, found, truth, spacing, in_pixels in _label_pairs(predicted, reference, labels, report):
            key = next((key for key in (name, str(label)) if key in tolerances), "")
            used.add(key)
            tolerance = tolerances.get(key, 1.0)
            metrics = compare_masks(found, truth, spacing, tolerance)
            scores.append(Score(case, label, name, *metrics, tolerance, in_pixels))
    if all(math.isnan(score.dice) for score in scores):
        wanted = f"any of the labels {', '.join(labels.values())}" if labels else "any label"
        report(f"No case has {wanted}, neither in {predictions} nor in {references}: there is nothing to compare.")
    if unknown := tolerances.keys() - used:
        names = ", ".join(sorted({f"{score.name}" for score in scores}))
        raise InputError(f"No case has the label '{sorted(unknown)[0]}' of a tolerance.", f"The labels are: {names}.")
    return scores


def _pairs(predictions: Path, references: Path) -> list[tuple[str, Path, Path]]:
    """(case, prediction, reference), sorted."""
    predicted, reference = label_files(predictions), label_files(references)
    for ours, theirs in ((predicted, reference), (reference, predicted)):
        for name in sorted(ours.keys() - theirs.keys()):
            case = name.removesuffix("_0000")
            if case not in ours and case in theirs:
                ours[case] = ours.pop(name)
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
    return [(case, predicted[case], reference[case]) for case in sorted(predicted)]


def _label_pairs(
    predicted: Path, reference: Path, labels: Mapping[int, str] | None, report: Callable[[str], None]
) -> Iterable[tuple[int, str, np.ndarray, np.ndarray, tuple[float, ...], bool]]:
    """(label, name, predicted mask, reference mask, spacing, whether that is in pixels) of a case; axes of a picture of
    one slice are left out."""
    prediction, truth = read_label_map(predicted), read_label_map(reference)
    found, drawn, geometry = on_one_grid(prediction, truth, report)
    axes = tuple(axis for axis, side in enumerate(geometry.shape) if side == 1)[:1]
    spacing = tuple(step for axis, step in enumerate(geometry.spacing_zyx) if axis not in axes)
    for label, name, one, other in _matched(prediction, truth, labels):
        masks = (np.squeeze(_mask(layers, place), axes) for layers, place in ((found, one), (drawn, other)))
        yield label, name, *masks, spacing, prediction.in_pixels or truth.in_pixels


def _mask(layers: np.ndarray, place: tuple[int, int] | None) -> np.ndarray:
    """(z, y, x): where ``place``, a layer and its value, is; nowhere if it is None."""
    return layers[place[0]] == place[1] if place else np.zeros(layers.shape[1:], bool)


Place = tuple[int, int] | None  # layer and value


def _matched(
    prediction: LabelMap, truth: LabelMap, labels: Mapping[int, str] | None
) -> list[tuple[int, str, Place, Place]]:
    """Which segment is compared with which: (label, name, place in the prediction, place in the reference)."""
    both = (prediction, truth)
    if labels is not None:
        places = [each.places(labels) for each in both]
        return [(value, name, *(place.get(value) for place in places)) for value, name in labels.items()]
    if prediction.segments is not None and truth.segments is not None:
        names = list(dict.fromkeys([*truth.segments, *prediction.segments]))
        if not truth.segments.keys() & prediction.segments.keys():
            raise InputError(
                f"{prediction.path} and {truth.path} have no segment name in common: "
                f"{', '.join(prediction.segments)}; {', '.join(truth.segments)}.",
                "Rename the segments of one, or save both as .nii.gz to compare them by value.",
            )
        pairs = [[each.segments.get(name) for each in both] for name in names]
        return [
            (next(place[1] for place in reversed(pair) if place), name, *pair)
            for name, pair in zip(names, pairs, strict=True)
        ]
    places = [each.places() for each in both]
    values = sorted(set().union(*(each.values() for each in both)))
    return [(value, str(value), *(place.get(value) for place in places)) for value in values]


def summary(scores: Iterable[Score]) -> list[Summary]:
    """Mean and median of each metric, label by label."""
    by_label: dict[tuple[int, str], list[Score]] = {}
    for score in scores:
        by_label.setdefault((score.label, score.name), []).append(score)
    rows = []
    for (label, name), group in sorted(by_label.items()):
        present = [score for score in group if not math.isnan(score.dice)]
        missed = sum(math.isinf(score.hausdorff95_mm) for score in present)
        columns = {metric: [getattr(score, metric) for score in present] for metric in METRICS}
        mean = {metric: mean_of_found(column) for metric, column in columns.items()}
        median = {metric: statistics.median(column or [math.nan]) for metric, column in columns.items()}
        rows.append(Summary(label, name, len(present), missed, mean, median))
    return rows


def write_csv(path: str | os.PathLike, scores: Iterable[Score], overwrite: bool = False) -> None:
    """Writes a line for each score, under the names of ``Score``'s fields; lengths of pictures in columns of pixels.

    Raises:
        OutputError: the file exists, or cannot be written.
    """
    path = Path(path)
    refuse_existing(path, overwrite)
    scores = list(scores)
    units = sorted({score.in_pixels for score in scores}) or [False]
    columns = list(dict.fromkeys(name for in_pixels in units for name in _columns(in_pixels)))
    rows = (dict(zip(_columns(score.in_pixels), astuple(score), strict=False)) for score in scores)
    text = as_csv(columns, ([row.get(name) for name in columns] for row in rows))
    try:
        replace_file(path, text.encode("utf-8", "replace"))  # names of files may be no text
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}.") from error


def _columns(in_pixels: bool) -> list[str]:
    """What ``Score``'s fields are called in a table, but the last, which decides it."""
    names = [field.name for field in fields(Score)][:-1]
    return [name.replace("_mm", "_pixels") for name in names] if in_pixels else names
