"""Areas and widths of the lung fields in a frontal film of the chest."""

from __future__ import annotations

import numpy as np
import scipy

from .values import Measurement, Scale

_SPECK = 0.02  # of all of the lungs: smaller areas are left out of widths
_WIDE = 0.5  # of a lung's greatest width: rows in which it is narrower say nothing of what lies between the lungs
_BOTH = 0.9  # of all: one area that holds more is both lungs together


def lung_field(mask: np.ndarray, scale: Scale) -> tuple[list[Measurement], list[str]]:
    """Area and width of the lung on each side of the image, and the widths across the chest.

    Sides are those of the image: which one is the patient's left is the film's to say. The ratio is that of the widest
    gap between the lungs to the greatest width across both; a cardiothoracic ratio is drawn on the heart, which is not
    outlined here.

    Returns:
        the measurements, none where nothing was found; and what speaks against them.
    """
    if not mask.any():
        return [], []
    left, right = sides(mask)
    pixel = scale.x * scale.y
    found = [Measurement("Lung area", mask.sum() * pixel, scale.area)]
    for name, lung in (("left side of the image", left), ("right side of the image", right)):
        if lung.any():
            found.append(Measurement(f"Lung area, {name}", lung.sum() * pixel, scale.area))
            found.append(Measurement(f"Lung width, {name}", _widest(lung) * scale.x, scale.length))
    if not (left.any() and right.any()):
        return found, ["A lung was found on one side of the image only: no width across the chest was measured."]
    across = (left | right).any(axis=1)
    first, last = _ends(left | right)
    chest = int((last - first)[across].max()) + 1
    found.append(Measurement("Width across both lungs", chest * scale.x, scale.length))
    both = _wide(left) & _wide(right)
    gaps = (_ends(right)[0] - _ends(left)[1] - 1)[both]
    if len(gaps) and gaps.max() > 0:
        found.append(Measurement("Widest gap between the lungs", gaps.max() * scale.x, scale.length))
        found.append(Measurement("Gap / width across both lungs", gaps.max() / chest))
    return found, []


def sides(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lungs (y, x) on the left and on the right side of the image, without specks."""
    areas, count = scipy.ndimage.label(mask, np.ones((3, 3)))
    sizes = np.bincount(areas.ravel(), minlength=count + 1)[1:]
    kept = 1 + np.flatnonzero(sizes >= _SPECK * sizes.sum())
    columns = np.flatnonzero(mask.any(axis=0))
    middle = (columns[0] + columns[-1]) / 2
    if sizes.max() > _BOTH * sizes.sum() and columns[-1] - columns[0] > mask.shape[1] / 2:
        lungs, at = np.isin(areas, kept), np.arange(mask.shape[1]) <= middle
        return lungs & at, lungs & ~at
    if len(kept) > 1:  # the middle lies between the two largest, wherever the patient stands in the image
        largest = 1 + np.argsort(sizes)[-2:]
        middle = np.mean([centre[1] for centre in scipy.ndimage.center_of_mass(mask, areas, largest)])
    elif sizes.max() > _BOTH * sizes.sum():
        middle = (mask.shape[1] - 1) / 2
    centres = {area: scipy.ndimage.center_of_mass(mask, areas, area)[1] for area in kept}
    on_left = [area for area, x in centres.items() if x <= middle]
    return np.isin(areas, on_left), np.isin(areas, [area for area in kept if area not in on_left])


def _ends(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each row the first and the last column of the mask; any number where it has none."""
    return mask.argmax(axis=1), mask.shape[1] - 1 - mask[:, ::-1].argmax(axis=1)


def _wide(mask: np.ndarray) -> np.ndarray:
    """The rows (y,) in which a lung is about as wide as it gets: not its apex, nor its tip beside the diaphragm."""
    first, last = _ends(mask)
    return mask.any(axis=1) & (last - first + 1 >= _WIDE * _widest(mask))


def _widest(mask: np.ndarray) -> int:
    first, last = _ends(mask)
    return int((last - first)[mask.any(axis=1)].max()) + 1
