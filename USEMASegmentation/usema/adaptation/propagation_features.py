"""What the propagation network sees of a label: the image, what the model says, and what the user made of some planes.

All of it lies on the grid of the model's network, with the axis that the corrected slices were cut along in front.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .likeness import BAND, by_intensity, by_patches, fitted, maps

# What carrying.py does, with its numbers at the time that the network was trained: it knows no others.
PULL = 6.0
REACH, LONG_REACH = 1.5, 6.0  # voxels over which a difference that is carried falls to 1/e
FEATURES = 19
_FARTHEST = 12.0  # voxels: the distance to a label that a plane does not show


@dataclass(frozen=True, eq=False)
class Told:
    """A corrected slice.

    Attributes:
        planes: the indices that show it.
        label: bool (planes, b, c), where the label is right.
        changed: bool of the same shape, where the user gave or took it.
        exchanged: whether most of that was given by, or to, another label, and not the background.
    """

    planes: np.ndarray
    label: np.ndarray
    changed: np.ndarray
    exchanged: bool = False

    @classmethod
    def of(cls, planes: np.ndarray, label: np.ndarray, score: np.ndarray) -> Told:
        """All that differs from a score (a, b, c) was changed by the user."""
        return cls(planes, label, (score[planes] > 0) != label)

    @property
    def middle(self) -> float:
        return float(self.planes.mean())

    def within(self, start: int, *cut: slice) -> Told:
        """The same in a box that begins at plane ``start`` and cuts the other two axes."""
        inside = (slice(None), *cut)
        return Told(self.planes - start, self.label[inside], self.changed[inside], self.exchanged)


@dataclass(frozen=True, eq=False)
class Seen:
    """Attributes:
    features: float32 (FEATURES, a, b, c).
    carried: float32 (a, b, c), what carrying alone would add to the score.
    """

    features: np.ndarray
    carried: np.ndarray


def see(image: np.ndarray, score: np.ndarray, told: Sequence[Told], start: int = 0, stop: int | None = None) -> Seen:
    """The features of one label, in planes from ``start`` to ``stop``.

    Args:
        image: (a, b, c) of mean 0 and standard deviation 1.
        score: (a, b, c) log odds of the label, calibrated.
        told: at least one corrected slice.
    """
    told = sorted(told, key=lambda one: one.middle)
    positions, middles = np.arange(len(score))[start:stop], np.array([one.middle for one in told])
    weights = _weights(positions, middles)
    changes = np.stack([_change(one, score) for one in told])
    carried, far = (PULL * np.einsum("na,nbc->abc", its, changes).astype(np.float32) for its in weights)
    between = _Between.of(positions, middles)
    planes = [int(one.planes[len(one.planes) // 2]) for one in told]
    edges_drawn = [signed_distance(one.label[len(one.planes) // 2]) for one in told]
    drawn = between.mixed(edges_drawn)
    model = between.mixed([signed_distance(score[plane] > 0) for plane in planes])
    there, said = [image[plane] for plane in planes], [score[plane] for plane in planes]
    known, right = np.zeros(score.shape, np.float32), np.zeros(score.shape, np.float32)
    for one in told:
        known[one.planes], right[one.planes] = 1, np.where(one.label, 1, -1)
    edges = ndimage.gaussian_gradient_magnitude(image, 1.0)[start:stop]
    image, score, known, right = (its[start:stop] for its in (image, score, known, right))
    own = np.stack([signed_distance(plane > 0) for plane in score])
    like = between.mixed_by_plane(lambda index, its: by_patches(image[its], there[index], edges_drawn[index] > 0))
    smooth = ndimage.gaussian_filter(image, (0, 0.7, 0.7))
    likely = by_intensity(smooth, [ndimage.gaussian_filter(plane, 0.7) for plane in there], edges_drawn)
    level = [
        (image, 1), (score, 4), (drawn, 5), (model, 5), (own, 5),
        (image - between.nearest(there), 1), (between.nearest(said) - score, 4), (carried, 4), (right, 1), (known, 1),
        (between.near(3.0), 1), (between.near(10.0), 1), (between.both, 1),
        (far, 4), (image - between.other(there), 1), (edges, 0.5),
        (like, 0.5), (likely, 1), (_fitted(image, score, own, there, said, edges_drawn), 2),
    ]  # fmt: skip
    features = np.empty((FEATURES, *score.shape), np.float32)
    for channel, (values, scale) in zip(features, level, strict=True):
        np.clip(values / scale, -3, 3, out=channel)
    return Seen(features, carried)


def _fitted(image, score, own, there, said, edges) -> np.ndarray:
    """float32 (a, b, c), a change of the score everywhere, as ``likeness.fitted`` finds it on the corrected planes."""
    there, said, edges = np.stack(there), np.stack(said), np.stack(edges)
    model = np.stack([signed_distance(plane > 0) for plane in said])
    near = (np.abs(edges) < BAND) | (np.abs(model) < BAND)
    weights = fitted(np.stack([*maps(there, said, model)]), said, edges > 0, near)
    result = np.zeros_like(score)
    for weight, its in zip(weights, maps(image, score, own), strict=True):
        result += weight * its
    return result


def signed_distance(mask: np.ndarray) -> np.ndarray:
    """float32 (b, c), pixels to the edge of a mask, negative outside."""
    if mask.all() or not mask.any():
        return np.full(mask.shape, _FARTHEST if mask.all() else -_FARTHEST, np.float32)
    inside, outside = ndimage.distance_transform_edt(mask), ndimage.distance_transform_edt(~mask)
    return (inside - outside).astype(np.float32)


def _change(one: Told, score: np.ndarray) -> np.ndarray:
    """(b, c) what the user made of a slice, less what the model said; nothing, if he left it as it was."""
    if not one.changed.any():
        return np.zeros(one.label.shape[1:], np.float32)
    return (one.label - 1 / (1 + np.exp(-score[one.planes]))).mean(axis=0)


def _weights(positions: np.ndarray, middles: np.ndarray) -> list[np.ndarray]:
    """For each reach (slices, planes): 1 on a slice, less away from it, and 0 beyond the next one."""
    away = np.abs(positions - middles[:, None])
    below, above = np.r_[-np.inf, middles[:-1]], np.r_[middles[1:], np.inf]
    hidden = (positions < below[:, None]) | (positions > above[:, None])
    return [np.where(hidden, 0, np.exp(-away / reach)).astype(np.float32) for reach in (REACH, LONG_REACH)]


@dataclass(frozen=True, eq=False)
class _Between:
    """For each plane the corrected slices on its two sides; where there is but one, that one twice.

    Attributes:
        lower, upper: which slices.
        weight: (a, 1, 1), how much the lower one counts when both are mixed linearly.
        away: distance to the nearest one.
        lower_is_near: bool.
        alone: bool, there is but one.
    """

    lower: np.ndarray
    upper: np.ndarray
    weight: np.ndarray
    away: np.ndarray
    lower_is_near: np.ndarray
    alone: np.ndarray

    @classmethod
    def of(cls, positions: np.ndarray, middles: np.ndarray) -> _Between:
        upper = np.searchsorted(middles, positions)
        lower = upper - 1
        down = np.where(lower >= 0, positions - middles[lower.clip(0)], np.inf)
        up = np.where(upper < len(middles), middles[upper.clip(max=len(middles) - 1)] - positions, np.inf)
        alone = np.isinf(down) | np.isinf(up)
        lower = np.where(lower < 0, upper, lower)
        upper = np.where(upper >= len(middles), lower, upper)
        with np.errstate(invalid="ignore"):
            weight = np.where(alone, 0.5, up / (down + up))
        return cls(lower, upper, weight.astype(np.float32)[:, None, None], np.minimum(down, up), down <= up, alone)

    def mixed(self, values: Sequence[np.ndarray]) -> np.ndarray:
        values = np.stack(values)
        return values[self.lower] * self.weight + values[self.upper] * (1 - self.weight)

    def mixed_by_plane(self, values: Callable[[int, np.ndarray], np.ndarray]) -> np.ndarray:
        """Of what a slice says of some planes, given which slice and planes."""
        result = 0
        for slices, weight in ((self.lower, self.weight), (self.upper, 1 - self.weight)):
            found = [values(int(one), slices == one) for one in np.unique(slices)]  # slices are in order
            result = result + np.concatenate(found) * weight
        return result

    def nearest(self, values: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack(values)[np.where(self.lower_is_near, self.lower, self.upper)]

    def other(self, values: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack(values)[np.where(self.lower_is_near, self.upper, self.lower)]

    def near(self, reach: float) -> np.ndarray:
        return np.exp(-self.away / reach)[:, None, None]

    @property
    def both(self) -> np.ndarray:
        return (~self.alone)[:, None, None].astype(np.float32)
