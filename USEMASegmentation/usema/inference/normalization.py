"""nnU-Net's intensity normalisation schemes, by the names that its plans use.

Each scheme changes one channel, a contiguous float32 array (a, b, c), in place. ``mask`` is True where the statistics
are to be taken, or None for everywhere; ``properties`` are the training set's foreground intensities.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..errors import InputError

# A constant channel has no deviation to divide by (nnU-Net's own bound).
_SMALLEST = 1e-8


def _ct(channel: np.ndarray, mask: np.ndarray | None, properties: dict) -> None:
    np.clip(channel, properties["percentile_00_5"], properties["percentile_99_5"], out=channel)
    channel -= properties["mean"]
    channel /= max(properties["std"], _SMALLEST)


def _z_score(channel: np.ndarray, mask: np.ndarray | None, properties: dict) -> None:
    mean, deviation = _statistics(channel, mask)
    inside = True if mask is None else mask
    np.subtract(channel, mean, out=channel, where=inside)
    np.divide(channel, max(deviation, _SMALLEST), out=channel, where=inside)


def _none(channel: np.ndarray, mask: np.ndarray | None, properties: dict) -> None:
    pass


def _rescale_to_01(channel: np.ndarray, mask: np.ndarray | None, properties: dict) -> None:
    channel -= channel.min()
    channel /= max(float(channel.max()), _SMALLEST)


def _rgb_to_01(channel: np.ndarray, mask: np.ndarray | None, properties: dict) -> None:
    low, high = float(channel.min()), float(channel.max())
    if low < 0 or high > 255:
        raise InputError(
            f"The model expects 8-bit colour values, 0 to 255; the volume holds {low:g} to {high:g}.",
            "Choose a colour image, or a model for this kind of volume.",
        )
    channel /= 255.0


SCHEMES: dict[str, Callable[[np.ndarray, np.ndarray | None, dict], None]] = {
    "CTNormalization": _ct,
    "ZScoreNormalization": _z_score,
    "NoNormalization": _none,
    "RescaleTo01Normalization": _rescale_to_01,
    "RGBTo01Normalization": _rgb_to_01,
}

# Schemes whose result is the same if a number is added to all values. They take mean, deviation or range from the
# volume itself, so that one absurd voxel spoils all others.
SHIFT_INVARIANT = ("ZScoreNormalization", "RescaleTo01Normalization")

# What a scheme needs to know of the training set.
REQUIRED_PROPERTIES: dict[str, tuple[str, ...]] = {
    "CTNormalization": ("mean", "std", "percentile_00_5", "percentile_99_5"),
}


def _statistics(channel: np.ndarray, mask: np.ndarray | None) -> tuple[float, float]:
    """Mean and standard deviation, in float64, a slice at a time: NumPy's own `std` would copy the whole channel."""
    masks = [True] * len(channel) if mask is None else mask
    count = channel.size if mask is None else int(mask.sum())
    slices = list(zip(channel, masks, strict=True))
    mean = sum(float(values.sum(where=inside, dtype=np.float64)) for values, inside in slices) / count
    squares = sum(float(np.square(values.astype(np.float64) - mean).sum(where=inside)) for values, inside in slices)
    return mean, (squares / count) ** 0.5
