"""The ellipse that fits a mask's outline best, and its circumference: how a fetal head is measured."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy

from .values import Measurement, Scale

_LEAST_POINTS = 12  # of an outline, to be fitted
_LEAST_AGREEMENT = 0.9  # intersection over union of the mask and its ellipse
_FAR = 2.0  # standard deviations: what is farther from the ellipse is left out of the next fit
_FITS = 4


@dataclass(frozen=True)
class Ellipse:
    """Centre and half axes in the unit of the points; ``angle`` of the longer one from x towards y, in radians."""

    x: float
    y: float
    long: float
    short: float
    angle: float

    @property
    def circumference(self) -> float:
        """Ramanujan's second approximation (1914); its relative error is below 1e-6 for heads, 4e-4 at the worst."""
        total = self.long + self.short
        h = ((self.long - self.short) / total) ** 2
        return math.pi * total * (1 + 3 * h / (10 + math.sqrt(4 - 3 * h)))

    def contains(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Whether points lie inside."""
        return self._radius(x, y) <= 1

    def off(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """How far points are from the outline, as a share of the way there from the centre."""
        return np.abs(self._radius(x, y) - 1)

    def _radius(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        dx, dy = x - self.x, y - self.y
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return np.hypot((dx * cos + dy * sin) / self.long, (dy * cos - dx * sin) / self.short)


def head_circumference(mask: np.ndarray, scale: Scale) -> tuple[list[Measurement], list[str]]:
    """The ellipse of the largest connected area, without its holes: circumference and both diameters.

    Returns:
        the measurements, none where there is no ellipse; and what speaks against them.
    """
    head = largest_area(mask)
    ellipse = ellipse_along(outline(head) * (scale.x, scale.y)) if head.any() else None
    if ellipse is None:
        return [], ["No ellipse fits the result: no circumference was measured."] if head.any() else []
    _, agreement = _filled(ellipse, head, scale)
    doubts = []
    if agreement < _LEAST_AGREEMENT:
        doubts = [f"The result is no ellipse (overlap with the best one {agreement:.2f}): the circumference is unsure."]
    found = [
        Measurement("Head circumference", ellipse.circumference, scale.length),
        Measurement("Longest diameter", 2 * ellipse.long, scale.length),
        Measurement("Shortest diameter", 2 * ellipse.short, scale.length),
    ]
    return found, doubts


def as_ellipse(mask: np.ndarray) -> np.ndarray:
    """The ellipse of the largest connected area of a mask (y, x), filled; the mask itself where that is no ellipse."""
    head = largest_area(mask)
    ellipse = ellipse_along(outline(head)) if head.any() else None
    if ellipse is None:
        return mask
    inside, agreement = _filled(ellipse, head, Scale())
    return inside if agreement >= _LEAST_AGREEMENT else mask


def _filled(ellipse: Ellipse, head: np.ndarray, scale: Scale) -> tuple[np.ndarray, float]:
    """The pixels of an ellipse, and their intersection over union with a mask."""
    height, width = head.shape
    rows, columns = np.ogrid[:height, :width]  # not one number for each pixel: a large image has many
    inside = ellipse.contains(columns * scale.x, rows * scale.y)
    return inside, float((inside & head).sum() / (inside | head).sum())


def largest_area(mask: np.ndarray) -> np.ndarray:
    """The largest connected part of a mask (y, x), its holes filled."""
    areas, count = scipy.ndimage.label(mask)
    if count > 1:
        sizes = np.bincount(areas.ravel())
        sizes[0] = 0
        mask = areas == sizes.argmax()
    return scipy.ndimage.binary_fill_holes(mask)


def outline(mask: np.ndarray) -> np.ndarray:
    """Points (n, 2), x and y in pixels, halfway between pixels inside and their neighbours outside.

    Along a row, and along a column, these are off the true outline by half a pixel at the most and, all together, by
    nothing. Where the mask is cut off by the border of the image, nobody knows its outline, and there are none.
    """
    y, x = np.nonzero(mask[:, 1:] != mask[:, :-1])
    beside = np.stack([x + 0.5, y], axis=1)
    y, x = np.nonzero(mask[1:] != mask[:-1])
    return np.concatenate([beside, np.stack([x, y + 0.5], axis=1)]).astype(float)


def ellipse_along(points: np.ndarray) -> Ellipse | None:
    """The ellipse of points (n, 2) that lies along most of them: dents and bumps of an outline are left out."""
    ellipse = fit_ellipse(points)
    for _ in range(_FITS - 1):
        if ellipse is None:
            return None
        off = ellipse.off(*points.T)
        near = off <= _FAR * 1.4826 * np.median(off)  # the median of absolute deviations, as a standard deviation
        closer = fit_ellipse(points[near])
        if closer is None:
            break
        ellipse = closer
    return ellipse


def fit_ellipse(points: np.ndarray) -> Ellipse | None:
    """The ellipse of least algebraic distance to points (n, 2); None where they are too few, or on a line.

    Source: R. Halir and J. Flusser, Numerically stable direct least squares fitting of ellipses, WSCG 1998.
    """
    if len(points) < _LEAST_POINTS:
        return None
    centre = points.mean(axis=0)
    spread = np.abs(points - centre).max()
    x, y = ((points - centre) / spread).T
    quadratic, linear = np.stack([x * x, x * y, y * y], axis=1), np.stack([x, y, np.ones_like(x)], axis=1)
    try:
        reduced = -np.linalg.solve(linear.T @ linear, (quadratic.T @ linear).T)
        scatter = quadratic.T @ quadratic + quadratic.T @ linear @ reduced
        # The inverse of the constraint 4ac - b2 = 1 applied to the scatter matrix.
        values, vectors = np.linalg.eig(np.stack([scatter[2] / 2, -scatter[1], scatter[0] / 2]))
    except np.linalg.LinAlgError:
        return None
    vectors = vectors.real
    is_ellipse = (4 * vectors[0] * vectors[2] - vectors[1] ** 2 > 0) & (np.abs(values.imag) < 1e-12)
    if not is_ellipse.any():
        return None
    first = vectors[:, is_ellipse.argmax()]
    a, b, c, d, e, f = *first, *(reduced @ first)
    matrix = np.array([[a, b / 2], [b / 2, c]])
    middle = np.linalg.solve(-2 * matrix, [d, e])
    level = -(f + middle @ [d, e] / 2)
    squares, axes = np.linalg.eigh(matrix / level)
    if not (squares > 0).all():
        return None
    long, short = 1 / np.sqrt(squares) * spread
    angle = math.atan2(axes[1, 0], axes[0, 0])
    return Ellipse(*(middle * spread + centre), long, short, angle)
