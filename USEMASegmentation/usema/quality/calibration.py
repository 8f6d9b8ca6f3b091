"""Whether probabilities mean what they say, and the temperature that makes them do so.

A model is calibrated if, of all voxels to which it gives a probability of 0.8, it is right in 80 %. Networks tend to be
too sure of themselves. Dividing their logits by one number, the temperature, corrects most of it and changes no label
(Guo et al. 2017, arXiv 1706.04599).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from ..errors import InputError

BINS = 15
_TEMPERATURES = (0.05, 20.0)  # where the fit looks


@dataclass(frozen=True)
class Voxels:
    """Voxels of one case: ``logits`` (n, classes) float32, up to a constant per voxel; reference ``labels`` (n,)."""

    logits: np.ndarray
    labels: np.ndarray


class Reliability:
    """How often the likeliest class is right, by how probable it is said to be; and three measures, over all voxels.

    Attributes:
        counts: voxels in each of the 15 bins of equal width of the confidence, which is the largest probability. Bin m
            (from 0) holds those in (m/15, (m+1)/15].
    """

    def __init__(self):
        self.counts = np.zeros(BINS, np.int64)
        self._confidence = np.zeros(BINS)
        self._correct = np.zeros(BINS)
        self._nll = 0.0
        self._brier = 0.0

    def add(self, voxels: Voxels, temperature: float = 1.0) -> None:
        """Count the voxels of a case, with their logits divided by ``temperature``."""
        logs = log_softmax(voxels.logits / np.float32(temperature), axis=1)
        probabilities = np.exp(logs)
        confidence = probabilities.max(axis=1)
        correct = probabilities.argmax(axis=1) == voxels.labels
        bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
        self.counts += np.bincount(bins, minlength=BINS)
        self._confidence += np.bincount(bins, confidence, BINS)
        self._correct += np.bincount(bins, correct, BINS)
        self._nll -= _of_reference(logs, voxels.labels).sum(dtype=np.float64)
        squares = (probabilities**2).sum(axis=1) - 2 * _of_reference(probabilities, voxels.labels) + 1
        self._brier += squares.sum(dtype=np.float64)

    @property
    def voxels(self) -> int:
        return int(self.counts.sum())

    @property
    def confidence(self) -> np.ndarray:
        """The mean confidence in each bin; 0 where it is empty."""
        return self._confidence / np.maximum(self.counts, 1)

    @property
    def accuracy(self) -> np.ndarray:
        """The share of voxels in each bin whose likeliest class is the reference's; 0 where it is empty."""
        return self._correct / np.maximum(self.counts, 1)

    @property
    def ece(self) -> float:
        """Expected calibration error: |accuracy - confidence|, averaged over voxels (Guo et al. 2017, equation 3)."""
        return float(np.abs(self._correct - self._confidence).sum() / self.voxels)

    @property
    def nll(self) -> float:
        """Negative logarithm of the reference class's probability, averaged over voxels."""
        return self._nll / self.voxels

    @property
    def brier(self) -> float:
        """Squared distance of the probabilities from 1 for the reference class and 0 for all others, summed over
        classes and averaged over voxels, from 0 to 2 (Brier 1950)."""
        return self._brier / self.voxels


@dataclass(frozen=True)
class Calibration:
    """What ``calibrate`` found.

    Attributes:
        cases: how many have voxels.
        temperature: fitted on all of them.
        halves: fitted on the first half of the cases, and on the second.
        before: without temperature.
        after: each half with the temperature fitted on the other, so that no case judges a number it helped to find.
    """

    cases: int
    temperature: float
    halves: tuple[float, float]
    before: Reliability
    after: Reliability

    def to_dict(self, region: str) -> dict[str, str | int | float]:
        """For ``metrics.calibration`` of a bundle; ``region`` says which voxels were looked at."""
        measured = {"cases": self.cases, "voxels": self.before.voxels, "region": region}
        for name in ("ece", "nll", "brier"):
            measured[name] = round(getattr(self.before, name), 4)
            measured[f"{name}_with_temperature"] = round(getattr(self.after, name), 4)
        return measured


def calibrate(cases: Sequence[Voxels]) -> Calibration:
    """Fits the temperature, and measures honestly what it brings.

    Args:
        cases: of a subject one after the other, so that as few subjects as possible fall into both halves; those
            without voxels are left out.

    Raises:
        InputError: fewer than two cases have voxels, or no temperature fits.
    """
    cases = [case for case in cases if len(case.labels)]
    if len(cases) < 2:
        raise InputError(
            f"Calibration needs 2 cases in which something was found or labelled, and has {len(cases)}.",
            "Give more cases; a few dozen are good.",
        )
    middle = len(cases) // 2
    halves = (cases[:middle], cases[middle:])
    fitted = tuple(fit_temperature(half) for half in halves)
    before, after = Reliability(), Reliability()
    for half, temperature in zip(halves, reversed(fitted), strict=True):
        for case in half:
            before.add(case)
            after.add(case, temperature)
    return Calibration(len(cases), fit_temperature(cases), fitted, before, after)


def fit_temperature(cases: Sequence[Voxels]) -> float:
    """The temperature, to three digits after the point, at which the negative log-likelihood of all voxels is least.

    Raises:
        InputError: there is none between 0.05 and 20.
    """

    def loss(log_temperature: float) -> float:
        scale = np.float32(np.exp(-log_temperature))
        total = sum(
            _of_reference(log_softmax(case.logits * scale, axis=1), case.labels).sum(dtype=np.float64) for case in cases
        )
        return -total / sum(len(case.labels) for case in cases)

    low, high = np.log(_TEMPERATURES)
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-4}).x
    if min(found - low, high - found) < 0.01:
        raise InputError(
            f"No temperature between {_TEMPERATURES[0]:g} and {_TEMPERATURES[1]:g} fits: the best is at "
            f"{np.exp(found):.3g}, the end of the range.",
            "Are these the right labels, and cases that training left out?",
        )
    return round(float(np.exp(found)), 3)


def write_plot(path: str | Path, calibration: Calibration, title: str) -> None:
    """Draws the reliability of both states: accuracy over confidence, and below it the number of voxels in each bin.

    Args:
        path: .png; replaced if it exists (``usema.quality.pictures.check_preview`` refuses it beforehand).
        title: above the picture.

    Raises:
        OutputError: the file cannot be written.
    """
    from .pictures import load_matplotlib, write_png

    load_matplotlib()
    from matplotlib.figure import Figure

    states = (
        ("without temperature", calibration.before),
        ("with temperature, fitted on the other half", calibration.after),
    )
    figure = Figure(figsize=(10.5, 6.6), facecolor="white", layout="constrained")
    figure.suptitle(title)
    grid = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=[3, 1.3])
    for column, (name, state) in enumerate(states):
        _draw(grid[0, column], grid[1, column], state)
        grid[0, column].set_title(f"{name}\nECE {state.ece:.4f}   NLL {state.nll:.4f}   Brier {state.brier:.4f}")
    grid[0, 0].set_ylabel("share of voxels that are right")
    grid[1, 0].set_ylabel("voxels")
    grid[0, 0].legend(loc="upper left", frameon=False)
    write_png(Path(path), figure, dpi=130)


def _draw(above, below, state: Reliability) -> None:
    edges = np.arange(BINS + 1) / BINS
    filled = np.flatnonzero(state.counts)
    centres = (edges[:-1] + edges[1:])[filled] / 2
    accuracy, confidence, counts = state.accuracy[filled], state.confidence[filled], state.counts[filled]
    above.plot([0, 1], [0, 1], "--", color="#555555", linewidth=1, label="calibrated")
    above.bar(centres, accuracy, 0.9 / BINS, color="#4c86b8", label="measured")
    above.plot(confidence, accuracy, "o", color="#c8452e", markersize=4, label="at the mean confidence of the bin")
    above.set_ylim(0, 1.02)
    below.bar(centres, counts, 0.9 / BINS, color="#9aa7b6")
    for centre, count in zip(centres, counts, strict=True):
        text = f"{count / 1000:.0f}k" if count >= 10_000 else f"{count:,}"
        below.annotate(text, (centre, count), (0, 3), textcoords="offset points", ha="center", fontsize=6.5)
    below.set_yscale("log")
    below.margins(y=0.25)
    below.set_xlim(0, 1)
    below.set_xlabel("confidence: the largest probability of a voxel")


def _of_reference(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(n,): of each voxel's values (n, classes) the reference class's."""
    return np.take_along_axis(values, labels[:, None], axis=1)[:, 0]
