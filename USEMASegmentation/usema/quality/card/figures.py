"""From measured cases to the figures of a card: averages with intervals, groups of cases, agreement of volumes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...inference.speeds import EXACT, FAST
from ..metrics import METRICS, mean_of_found
from .results import FIRST_LOOK, VOLUMES, CaseResult, LabelResult, Results, SpeedResult, Units

RESAMPLES = 2000
SMALLEST_TO_BOUND = 3  # cases from which a mean gets an interval
SMALLEST_TO_DIVIDE = 6  # cases from which they are divided by size
Pairs = Sequence[tuple[CaseResult, LabelResult]]


@dataclass(frozen=True)
class Spread:
    """One metric over cases: mean with its 95 % interval (None for one or two cases), median, and the worst case.

    In ``missed`` cases the distance is infinite; they are left out of its mean, which is NaN if there are no others.
    """

    missed: int
    mean: float
    interval: tuple[float, float] | None
    median: float
    worst: float
    worst_case: str


@dataclass(frozen=True)
class Group:
    """Cases that have something in common, for one label: ``kind`` of grouping, ``name`` of the group."""

    kind: str
    name: str
    members: Pairs


@dataclass(frozen=True)
class Agreement:
    """Result minus reference, in ml: mean and limits within which 95 % of differences are expected."""

    cases: int
    reference_ml: float
    difference_ml: float
    limits_ml: tuple[float, float]


def spread(pairs: Pairs, metric: str) -> Spread:
    """Summarises a metric over at least one case; the longest distance is the worst, the lowest Dice."""
    values = [getattr(label, metric) for _, label in pairs]
    worst = (max if metric == "hausdorff95_mm" else min)(range(len(values)), key=values.__getitem__)
    found = [value for value in values if math.isfinite(value)]
    interval = bootstrap_interval(found) if len(found) >= SMALLEST_TO_BOUND else None
    median, missed = statistics.median(values), len(values) - len(found)
    return Spread(missed, mean_of_found(values), interval, median, values[worst], pairs[worst][0].case)


def bootstrap_interval(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the mean: percentiles of the means of samples drawn with replacement (Efron 1979).

    Args:
        values: one per case.
    """
    chosen = np.random.default_rng(seed).integers(0, len(values), (RESAMPLES, len(values)))
    means = np.sort(np.asarray(values, float)[chosen].mean(axis=1))
    low, high = means[math.ceil(0.025 * RESAMPLES) - 1], means[math.ceil(0.975 * RESAMPLES) - 1]
    return float(low), float(high)


def groups(pairs: Pairs, units: Units = VOLUMES) -> list[Group]:
    """The cases of one label by how their voxels are stored, and by the reference's size, in thirds if they suffice.

    Each kind of grouping holds every case once. Cases whose reference lacks the label are a group of their own.
    """
    found = []
    for kind in sorted({case.intensity_type for case, _ in pairs}):
        members = [(case, label) for case, label in pairs if case.intensity_type == kind]
        low = min(case.intensity_range[0] for case, _ in members)
        high = max(case.intensity_range[1] for case, _ in members)
        found.append(Group(f"{units.element}s", f"{kind}, values from {low:.0f} to {high:.0f}", members))
    absent = [pair for pair in pairs if pair[1].reference_ml == 0]
    present = sorted((pair for pair in pairs if pair[1].reference_ml > 0), key=lambda pair: pair[1].reference_ml)
    sizes = ("small", "medium", "large") if len(present) >= SMALLEST_TO_DIVIDE else ("all sizes",)
    for name, part in zip(sizes, np.array_split(np.arange(len(present)), len(sizes)), strict=True):
        members = [present[index] for index in part]
        if members:
            low, high = members[0][1].reference_ml, members[-1][1].reference_ml
            found.append(Group("size", f"{name}, {units.number(low)} to {units.amount(high)}", members))
    if absent:
        found.append(Group("size", "absent from the reference", absent))
    return found


def agreement(pairs: Pairs) -> Agreement | None:
    """How well volumes agree: mean difference ± 1.96 standard deviations (Bland and Altman 1986, Lancet 327:307).

    Returns:
        None for fewer than two cases, which have no deviation.
    """
    if len(pairs) < 2:
        return None
    differences = [label.predicted_ml - label.reference_ml for _, label in pairs]
    mean, deviation = statistics.fmean(differences), statistics.stdev(differences)
    reference = statistics.fmean(label.reference_ml for _, label in pairs)
    return Agreement(len(pairs), reference, mean, (mean - 1.96 * deviation, mean + 1.96 * deviation))


def validation_metrics(results: Results) -> dict[str, Any]:
    """For ``metrics.validation`` of ``model.json``: means over cases, label by label.

    A label that no case has is left out. ``missed`` counts the cases that have it in result or reference alone; they
    are not in the mean distance, which is null where there are no others.
    """
    measured: dict[str, Any] = {metric: {} for metric in METRICS}
    for name in dict.fromkeys(label.label for case in results.cases for label in case.labels):
        pairs = results.of_label(name)
        for metric in METRICS if pairs else ():
            mean = mean_of_found([getattr(label, metric) for _, label in pairs])
            measured[metric][name] = round(mean, 4) if math.isfinite(mean) else None
        missed = sum(math.isinf(label.hausdorff95_mm) for _, label in pairs)
        if missed:
            measured.setdefault("missed", {})[name] = missed
    dice = measured["dice"].values()
    mean_dice = round(statistics.fmean(dice), 4) if dice else None
    if results.images:
        measured["hausdorff95_pixels"] = measured.pop("hausdorff95_mm")
    return {"cases": len(results.cases), "mean_dice": mean_dice, **measured}


def speed_metrics(results: Results) -> dict[str, Any]:
    """For ``metrics.speeds`` of ``model.json``: of each speed its tiles as a share of those of an exact run, its mean
    Dice, and its paired difference to exact with the 95 % interval (null below three cases) and the worst case.

    Cases of one tile count as the same at "fast"; a first look has only those where it is shown. Empty where speeds
    were not measured.
    """
    measured = [case for case in results.cases if case.speeds and math.isfinite(case.speeds[0].dice)]
    if not measured:
        return {}
    several = sum(case.speeds[0].tiles > 1 for case in measured)
    figures: dict[str, Any] = {"cases": len(measured), "of_more_than_one_tile": several}
    figures[EXACT] = {"dice": round(statistics.fmean(case.speeds[0].dice for case in measured), 4)}
    for name in (FAST, FIRST_LOOK):
        pairs = [pair for case in measured if (pair := _pair(case, name))]
        if pairs:
            differences = [other.dice - exact.dice for exact, other in pairs]
            low, high = bootstrap_interval(differences) if len(pairs) >= SMALLEST_TO_BOUND else (None, None)
            figures[name] = {
                "cases": len(pairs),
                "tiles": round(sum(other.tiles for _, other in pairs) / sum(exact.tiles for exact, _ in pairs), 3),
                "dice": round(statistics.fmean(other.dice for _, other in pairs), 4),
                "difference": round(statistics.fmean(differences), 4),
                "low": None if low is None else round(low, 4),
                "high": None if high is None else round(high, 4),
                "worst": round(min(differences), 4),
            }
    return figures


def _pair(case: CaseResult, name: str) -> tuple[SpeedResult, SpeedResult] | None:
    """(exact, the other) of a case; None where the other was not measured or not shown."""
    exact, *others = case.speeds
    if name == FAST and not others:
        return exact, exact
    return next(((exact, other) for other in others if other.speed == name), None)
