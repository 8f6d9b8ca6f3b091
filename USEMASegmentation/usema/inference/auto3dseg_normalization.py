"""MONAI Auto3DSeg's intensity normalisation modes, by the names that its configurations use.

Source: ``get_normalize_transforms`` of ``segmenter.py`` in its algorithm template segresnet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import scipy

from .intensities import values_of

Values = Callable[[np.ndarray], np.ndarray]  # intensities of any shape to float64

_SIGMOID_RANGE = ("range", "ct")
_ZERO_MEAN = ("meanstd", "mri", "meanstdtanh")
_PET = "pet"
MODES = ("none", *_SIGMOID_RANGE, *_ZERO_MEAN, _PET)


def needs_bounds(mode: str) -> bool:
    """Whether a mode needs the two intensities that become the middle of its range."""
    return mode in _SIGMOID_RANGE


def normalisation(mode: str, channel: np.ndarray, bounds: tuple[float, float] | None, notes: list[str]) -> Values:
    """What a mode does to the intensities of a channel.

    Args:
        mode: one of MODES.
        channel: (a, b, c), any number type, from whose voxels the mode takes what it needs to know.
        bounds: two intensities, for "range" and "ct".
        notes: receives a sentence for the user where absurd values were left out.
    """
    if mode == "none":
        return lambda values: values.astype(np.float64)
    if mode in _SIGMOID_RANGE:
        low, high = bounds
        return lambda values: scipy.special.expit(2 * (values.astype(np.float64) - low) / (high - low) - 1)
    usual = values_of(channel)
    if usual.absurd:
        notes.append(usual.note)

    def clipped(values: np.ndarray) -> np.ndarray:
        return values.astype(np.float64).clip(usual.low, usual.high) if usual.absurd else values.astype(np.float64)

    planes = [plane for plane in channel]
    if mode == _PET:
        _, deviation = _statistics(clipped(plane) for plane in planes)
        deviation *= np.sqrt(channel.size / max(1, channel.size - 1))  # torch's, of a sample
        return lambda values: scipy.special.expit((clipped(values) - usual.low) / (deviation or 1.0))
    mean, deviation = _statistics(clipped(plane[plane != 0]) for plane in planes)

    def zero_mean(values: np.ndarray) -> np.ndarray:
        normalised = np.where(values != 0, (clipped(values) - mean) / (deviation or 1.0), 0.0)
        return 3 * np.tanh(normalised / 3) if mode == "meanstdtanh" else normalised

    return zero_mean


def _statistics(parts: Iterator[np.ndarray]) -> tuple[float, float]:
    """Mean and standard deviation of all values, float64; 0 and 0 of none."""
    count, mean, squares = 0, 0.0, 0.0
    for values in parts:  # Chan et al. 1979: two groups into one, without a second look at the first
        if values.size:
            own, shift, total = values.mean(), values.mean() - mean, count + values.size
            squares += ((values - own) ** 2).sum() + shift**2 * count * values.size / total
            mean += shift * values.size / total
            count = total
    return mean, (squares / count) ** 0.5 if count else 0.0
