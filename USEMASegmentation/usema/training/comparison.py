"""Two models on the same labelled cases: whether one may take the other's place."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..inference.predictor import Predictor
from ..models.bundle import Bundle
from ..quality.card.figures import bootstrap_interval
from ..quality.labelled_cases import LabelledCase, read_case, where_labelled

MOST_LOST = 0.01  # Dice that a single label may lose while the mean of all does not fall
FEW = 5  # cases, of which fewer tell little


@dataclass(frozen=True)
class Compared:
    """One label, or the mean of all: mean Dice of both models over the cases that have it, and the mean of the cases'
    differences (new minus old) with its 95 % bootstrap interval, None of fewer cases than ``FEW``."""

    name: str
    cases: int
    old: float
    new: float
    difference: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Comparison:
    """``labels`` in the models' order, those that any case has; ``mean`` is of the mean over labels of each case."""

    labels: tuple[Compared, ...]
    mean: Compared

    @property
    def lost(self) -> str:
        """Why the new model should not take the old one's place; empty: it may."""
        if self.mean.difference < 0:
            return f"the mean Dice falls by {-self.mean.difference:.4f}"
        worst = min(self.labels, key=lambda label: label.difference)
        if worst.difference < -MOST_LOST:
            return f"the Dice of {worst.name} falls by {-worst.difference:.4f}, more than {MOST_LOST}"
        return ""


def compare_models(
    old: Bundle,
    new: Bundle,
    cases: Sequence[LabelledCase],
    device: str = "auto",
    progress: Callable[[str], None] = lambda case: None,
) -> Comparison:
    """Dice of both models on cases that neither should have been trained on.

    Args:
        progress: called with the name of each case before it is run.

    Raises:
        InputError: the models do not have the same labels and channels, a case does not fit them, or no case has one
            of their labels.
    """
    names = [[label.name for label in bundle.metadata.labels] for bundle in (old, new)]
    if names[0] != names[1] or old.metadata.channels != new.metadata.channels:
        raise InputError(
            f"The models cannot be compared: {old.path} has the labels {', '.join(names[0])}, {new.path} has "
            f"{', '.join(names[1])}.",
            "Compare models of the same channels and labels.",
        )
    predictors = [Predictor(bundle, device) for bundle in (old, new)]
    scores = np.full((2, len(cases), len(names[0])), math.nan)
    for index, case in enumerate(cases):
        progress(case.name)
        volumes, reference = read_case(case, old.metadata)
        for scored, predictor in zip(scores, predictors, strict=True):
            labels, drawn = where_labelled(predictor.segment(volumes).labels, reference)
            scored[index] = [_dice(labels == label.value, drawn == label.value) for label in old.metadata.labels]
    scores = scores[:, np.isfinite(scores).any(axis=(0, 2))]  # a case without any label tells nothing
    if not scores.size:
        raise InputError("No case has one of the models' labels.", "Give cases that show the structure.")
    labels = (_compared(name, *scores[:, :, index]) for index, name in enumerate(names[0]))
    return Comparison(tuple(one for one in labels if one), _compared("mean of all", *np.nanmean(scores, axis=2)))


def _dice(found: np.ndarray, drawn: np.ndarray) -> float:
    both = int(found.sum()) + int(drawn.sum())
    return 2 * int((found & drawn).sum()) / both if both else math.nan


def _compared(name: str, old: np.ndarray, new: np.ndarray) -> Compared | None:
    """None where no case has the label. A label that only one of the models finds where there is none counts as 0."""
    there = np.isfinite(old) | np.isfinite(new)
    if not there.any():
        return None
    old, new = (np.nan_to_num(values[there], nan=1.0) for values in (old, new))  # rightly nothing, where the other errs
    difference = new - old
    means = (float(values.mean()) for values in (old, new, difference))
    interval = bootstrap_interval(difference.tolist()) if len(old) >= FEW else None
    return Compared(name, len(old), *means, interval)
