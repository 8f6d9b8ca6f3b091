"""Runs a bundle on labelled cases and keeps what came out: figures of every case, and pictures of the worst."""

from __future__ import annotations

import itertools
import math
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from ... import __version__
from ...errors import OutputError
from ...inference.device import describe
from ...inference.predictor import Predictor
from ...inference.result import Segmentation
from ...models.bundle import Bundle
from ...models.bundle_writing import change_metadata
from ...models.card_files import PICTURES
from ...volumes.bounding_box import bounding_box
from ...volumes.pictures import Picture
from ...volumes.segments import millilitres
from ...volumes.volume import Volume, reorient
from ..labelled_cases import LabelledCase, as_result, read_case, where_labelled
from ..metrics import compare_masks
from ..pictures import check_preview, write_comparison
from .figures import speed_metrics, validation_metrics
from .results import CaseResult, LabelResult, Pictured, Results, write_results
from .speeds import Tiles, at_every_speed, mean_dice

TOLERANCE_MM = 1.0  # of the surface Dice, or the coarsest voxel that training saw if that is more
TOLERANCE_PIXELS = 2.0  # of images, which may not know how large a pixel is


def measure(
    bundle: Bundle,
    cases: Sequence[LabelledCase],
    *,
    cases_from: str,
    left_out: bool,
    device: str = "auto",
    progress: Callable[[str], None] = lambda case: None,
) -> Bundle:
    """Writes ``card/cases.json``, the pictures of the worst cases, and two metrics of ``model.json``: ``validation``
    and ``speeds``.

    The first case is run once more than the others, before them: its time would hold what only the first run needs.
    Cases of more than one tile are run at the other speeds, too.

    Args:
        bundle: in a folder.
        cases: at least one; ``usema.quality.labelled_cases.find_cases`` finds them.
        cases_from: where they come from, in words, and ``left_out``, whether training left them out: see ``Results``.
        device: see ``usema.inference.device.choose_device``.
        progress: called with the name of each case before it is run.

    Returns:
        The bundle with its new metrics.

    Raises:
        InputError: a case cannot be segmented, or its labels do not fit its image or the model.
        MissingDependencyError: MONAI, which measures, or matplotlib, which draws, is not installed.
        OutputError: the bundle's folder cannot be written.
    """
    folder = Path(bundle.path)
    try:  # what would fail at the end fails here
        (folder / PICTURES[0]).parent.mkdir(exist_ok=True)
    except OSError as error:
        raise _cannot_write(folder, error) from error
    check_preview(folder / PICTURES[0], overwrite=True)
    predictor = Predictor(bundle, device)
    images = bundle.metadata.takes_images
    tolerance = TOLERANCE_PIXELS if images else max(TOLERANCE_MM, *bundle.metadata.expected_spacing_mm["max"])
    results: list[CaseResult] = []
    worst: list[tuple[float, LabelledCase, Segmentation]] = []  # kept until it is known that they are the worst
    for case in cases:
        progress(case.name)
        volumes, reference = read_case(case, bundle.metadata)
        if not results:
            predictor.segment(volumes)
        started, tiles = time.perf_counter(), Tiles()
        segmentation = predictor.segment(volumes, progress=tiles)
        seconds = time.perf_counter() - started
        expected = as_result(reference, bundle.metadata)

        def dice(result: Segmentation, expected=expected) -> float:
            return mean_dice(*where_labelled(result.labels, expected), result.model_labels)

        speeds = at_every_speed(predictor, volumes, (segmentation, tiles.count), dice)
        labels, reference = where_labelled(segmentation.labels, expected)
        segmentation = replace(segmentation, labels=labels)
        found = _case_result(case.name, volumes[0], segmentation, reference, tolerance, seconds)
        results.append(replace(found, speeds=speeds))
        worst.append((results[-1].dice, case, segmentation))
        worst = sorted((entry for entry in worst if not math.isnan(entry[0])), key=lambda entry: entry[0])
        del worst[len(PICTURES) :]
    try:
        for picture in PICTURES:
            (folder / picture).unlink(missing_ok=True)
        pictured = []
        for picture, (_, case, segmentation) in zip(PICTURES, worst, strict=False):
            volumes, reference = read_case(case, bundle.metadata)
            _, reference = where_labelled(segmentation.labels, as_result(reference, bundle.metadata))
            write_comparison(folder / picture, volumes[0], segmentation, reference)
            pictured.append(Pictured(case.name, *dice_at_best_shift(segmentation, reference)))
    except OSError as error:
        raise _cannot_write(folder, error) from error
    document = Results(
        weights_sha256=bundle.metadata.weights["sha256"],
        engine=__version__,
        date=datetime.now(timezone.utc).date().isoformat(),
        machine=f"{describe(predictor.device)}; {platform.machine()} machine with {os.cpu_count()} logical cores",
        tolerance_mm=tolerance,
        left_out=left_out,
        cases_from=cases_from,
        cases=tuple(results),
        pictured=tuple(pictured),
        images=images,
    )
    try:
        write_results(folder, document)
    except OSError as error:
        raise _cannot_write(folder, error) from error
    measured = {"validation": validation_metrics(document), "speeds": speed_metrics(document)}
    return change_metadata(bundle, metrics={**bundle.metadata.metrics, **measured})


def _cannot_write(folder: Path, error: OSError) -> OutputError:
    return OutputError(f"{error.filename or folder} cannot be written: {error.strerror or error}.")


def _case_result(
    name: str, volume: Volume, segmentation: Segmentation, reference: np.ndarray, tolerance_mm: float, seconds: float
) -> CaseResult:
    geometry, flat = volume.geometry, isinstance(volume, Picture)
    spacing = (1.0, 1.0) if flat else geometry.spacing_zyx

    def ml(count: int) -> float:
        return float(count) if flat else round(float(millilitres(count, geometry.spacing)), 6)

    names = ["background", *(label.name for label in segmentation.model_labels)]
    # voxels[i, j]: those with label i in the reference and j in the result; outside the box, all are background in both
    box = bounding_box((reference > 0) | (segmentation.labels > 0))
    pairs = reference[box].astype(np.int64) * len(names) + segmentation.labels[box]
    voxels = np.bincount(pairs.ravel(), minlength=len(names) ** 2).reshape(len(names), len(names))
    labels = []
    for value, label in enumerate(names[1:], 1):
        pair = [mask[0] if flat else mask for mask in (segmentation.labels == value, reference == value)]
        scores = compare_masks(*pair, spacing, tolerance_mm)
        others = [other for other in range(len(names)) if other != value]
        missing = {names[other]: ml(voxels[value, other]) for other in others if voxels[value, other]}
        added = {names[other]: ml(voxels[other, value]) for other in others if voxels[other, value]}
        labels.append(
            LabelResult(
                label,
                *scores,
                reference_ml=ml(voxels[value].sum()),
                predicted_ml=ml(voxels[:, value].sum()),
                missing_ml=missing,
                added_ml=added,
            )
        )
    low, high = float(volume.array.min()), float(volume.array.max())
    return CaseResult(name, seconds, intensity_type(volume.array.dtype), (low, high), geometry.spacing, tuple(labels))


def dice_at_best_shift(segmentation: Segmentation, reference: np.ndarray) -> tuple[float, str]:
    """The best mean Dice over labels with the reference (z, y, x) moved by at most one voxel along each axis.

    Returns:
        the Dice, and the shift in words: "1 mm left, 1 mm superior"; empty where it fits best as it is.
    """
    images = segmentation.image is not None  # whose rows and columns stay as they are stored
    pair = [Volume(labels, segmentation.geometry) for labels in (segmentation.labels, reference)]
    result, drawn = pair if images else [reorient(volume, "LPS") for volume in pair]
    # A border of background, so that what leaves on one side does not come back on the other.
    box = bounding_box((result.array > 0) | (drawn.array > 0))
    found, drawn = (
        np.pad(volume.array[box], [(int(not images), int(not images)), (1, 1), (1, 1)]) for volume in (result, drawn)
    )
    # The shift that comes first wins a draw: none.
    steps = [(0,) if images else (-1, 0, 1), (-1, 0, 1), (-1, 0, 1)]
    shifts = sorted(itertools.product(*steps), key=lambda shift: sum(map(abs, shift)))

    scores = {shift: mean_dice(found, np.roll(drawn, shift, (0, 1, 2)), segmentation.model_labels) for shift in shifts}
    best = max(shifts, key=scores.__getitem__)
    if images:
        ways = (("", ""), ("down", "up"), ("to the right", "to the left"))
        return scores[best], ", ".join(f"1 pixel {way[step < 0]}" for step, way in zip(best, ways, strict=True) if step)
    ways = (("superior", "inferior"), ("posterior", "anterior"), ("left", "right"))
    steps = zip(best, result.geometry.spacing_zyx, ways, strict=True)
    return scores[best], ", ".join(f"{size:g} mm {way[step < 0]}" for step, size, way in steps if step)


def intensity_type(dtype: np.dtype) -> str:
    """How a file stores its voxels, in words: whether values were rounded to few steps changes what a model sees."""
    if dtype.kind == "f":
        return "floating point"
    return "8-bit integers" if dtype.itemsize == 1 else "wider integers"
