"""Voxel values that single precision or a z-score cannot bear: single absurd ones, and all far from zero.

Everything is looked at in the volume's own number type, a slice at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# A value is absurd if it lies further outside the middle 99.8 % of the values than a hundred times their range. In the
# MR, CT and PET volumes looked at, the brightest voxel is less than ten ranges away.
_ABSURD_RANGES = 100
_TAILS = (0.001, 0.999)
_MOST_ABSURD = 0.001  # of all voxels; more than these are no accident but the image
_SAMPLE = 2**20  # voxels that the quantiles are taken of
_EXACT = 2**24  # up to here single precision holds every whole number


@dataclass(frozen=True)
class Values:
    """The values of a channel that count.

    Attributes:
        low, high: the least and greatest value that is not absurd.
        absurd: how many voxels are outside.
        extreme: the value furthest outside; meaningless where ``absurd`` is 0.
        middle: the median of what is not zero, for zero is what lies around an image.
    """

    low: float
    high: float
    absurd: int = 0
    extreme: float = 0.0
    middle: float = 0.0

    @property
    def offset(self) -> float:
        """What is to be subtracted before single precision so that nothing is lost; 0 where that holds the values."""
        return 0.0 if max(abs(self.low), abs(self.high)) <= _EXACT else float(round(self.middle))

    @property
    def note(self) -> str:
        """What was done with absurd voxels, in a sentence."""
        voxels = "One voxel holds" if self.absurd == 1 else f"{self.absurd} voxels hold"
        return (
            f"{voxels} an absurd value ({self.extreme:.3g}; all others lie between {self.low:g} and {self.high:g}), "
            "which would drown the image when it is normalised: for the segmentation it was cut to that range."
        )


def values_of(channel: np.ndarray) -> Values:
    """Look at a channel (a, b, c), of any real type and memory order, not empty."""
    low, high = float(channel.min()), float(channel.max())
    step = max(1, round((channel.size / _SAMPLE) ** (1 / 3)))
    sample = channel[::step, ::step, ::step].astype(np.float64)
    image = sample[sample != 0]
    middle = float(np.median(image)) if image.size else 0.0
    with np.errstate(over="ignore", invalid="ignore"):  # between values of 1e300 on both sides
        bottom, top = np.quantile(sample, _TAILS)
        reach = _ABSURD_RANGES * (top - bottom)
        least, most = bottom - reach, top + reach
    # Almost everywhere one value: then the few others are the image.
    if not np.isfinite(reach) or reach == 0 or (least <= low and high <= most):
        return Values(low, high, middle=middle)
    count, usual_low, usual_high = 0, np.inf, -np.inf
    for plane in channel:
        usual = plane[(plane >= least) & (plane <= most)]
        count += plane.size - usual.size
        if usual.size:
            usual_low, usual_high = min(usual_low, float(usual.min())), max(usual_high, float(usual.max()))
    if count > max(1, _MOST_ABSURD * channel.size):
        return Values(low, high, middle=middle)
    extreme = low if usual_low - low > high - usual_high else high
    return Values(usual_low, usual_high, count, extreme, middle)
