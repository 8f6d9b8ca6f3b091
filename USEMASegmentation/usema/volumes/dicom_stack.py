"""DICOM slices as one even stack, or why they are none (PS3.3 C.7.6.2).

ITK reads whatever files it is given as a stack, so what makes them a volume is checked here, from the headers: one
orientation, one size and pixel spacing, every slice where an even stack has it. Copies are left out. A tilted gantry
and, on request, missing slices are planned here and made straight in ``dicom_straight``.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from .dicom_headers import ORIGINAL_SLICES, Slice
from .dicom_pixels import read_slices
from .file_grid import GIVE_ALL_SLICES
from .geometry import Geometry

log = logging.getLogger(__name__)

# A slice may lie this part of the slice distance from its place in an even stack: positions rounded to 0.1 mm at
# 1.25 mm distance need 0.04; one missing slice makes it 0.5 and more.
_PLACE_TOLERANCE = 0.1
# Degrees between the stack and the slice normal. At 0.1 the last of 300 mm of slices would lie 0.5 mm off.
_TILT_TOLERANCE = 0.1
_MOST_TILT = 45.0  # no gantry tilts by more than 30
_SAME_ORIENTATION = 1e-3  # largest difference of direction cosines
_SAME_PLACE = 1e-3  # mm
# Pixel spacings are the same if rounding explains their difference, and it adds up to less than this across the image.
_SAME_SPACING = 0.25  # pixels
_MOST_INTERPOLATED = 0.5  # of the slices


@dataclass(frozen=True, eq=False)
class Stack:
    """Slices in order along their normal, and the straight, even grid that they are to lie on.

    Attributes:
        shifts: (n, 2) pixels along x and y by which each slice's first pixel lies off that of the grid.
        between: (m, 2) for each slice of the grid the two of ``slices`` that it lies between, and
        weights: (m,) how much of the second; 0 everywhere where nothing is missing.
    """

    slices: list[Slice]
    geometry: Geometry
    shifts: np.ndarray
    between: np.ndarray
    weights: np.ndarray

    @property
    def as_acquired(self) -> bool:
        """Whether plane z of the grid is the slice z, not moved and not made."""
        return not self.shifts.any() and not self.weights.any() and len(self.slices) == len(self.between)

    def slice_in(self, z: int) -> Slice | None:
        """The slice that was acquired in plane z of the grid; None: it was made from its neighbours."""
        return None if self.weights[z] else self.slices[self.between[z][0]]


def checked_stack(path: Path, slices: list[Slice], interpolate: bool) -> Stack:
    """The slices of a series as a stack.

    Args:
        path: what messages call the series.
        interpolate: whether slices that are missing are made from their neighbours.

    Raises:
        InputError: they are no stack.
    """
    if len(slices) == 1:
        raise InputError(f"{path} holds a single DICOM slice, a 2D image.", GIVE_ALL_SLICES)
    first = slices[0]
    if any(np.abs(one.orientation - first.orientation).max() > _SAME_ORIENTATION for one in slices):
        raise InputError(
            f"The series in {path} has slices in more than one orientation.",
            "Give a series of parallel slices, without localisers.",
        )
    _check_equal(path, slices)
    rows, columns = first.orientation[:3], first.orientation[3:]
    normal = np.cross(rows, columns)
    if np.linalg.norm(normal) < 0.5:
        raise InputError(
            f"{first.file} gives rows and columns the directions {rows.tolist()} and {columns.tolist()}, which span "
            "no plane.",
            ORIGINAL_SLICES,
        )
    normal = normal / np.linalg.norm(normal)
    slices = _without_copies(path, sorted(slices, key=lambda one: (one.position @ normal, str(one.file))), normal)
    if len(slices) == 1:
        raise InputError(f"{path} holds copies of a single DICOM slice.", "Give all slices.")

    positions = np.array([one.position for one in slices])
    heights = (positions - positions[0]) @ normal
    aside = positions - positions[0] - heights[:, None] * normal
    per_mm = aside[-1] / heights[-1]  # how far a tilted stack moves aside with each mm of height
    _check_straight(path, slices, aside - heights[:, None] * per_mm, heights)
    between, weights, step = _places(path, slices, heights, positions[0] @ normal, interpolate)

    spacing_y, spacing_x = np.median([one.spacing for one in slices], axis=0)
    tilt = float(np.degrees(np.arctan(np.linalg.norm(per_mm))))
    if tilt <= _TILT_TOLERANCE:
        shifts, size, origin = np.zeros((len(slices), 2)), first.size, positions[0]
    else:
        _check_tilt(path, tilt)
        shifts = np.stack([aside @ rows / spacing_x, aside @ columns / spacing_y], axis=1)
        low, high = np.floor(shifts.min(axis=0) + 1e-6), np.ceil(shifts.max(axis=0) - 1e-6)
        shifts = shifts - low
        size = tuple(int(length + more) for length, more in zip(first.size, high - low, strict=True))
        origin = positions[0] + low[0] * spacing_x * rows + low[1] * spacing_y * columns
    direction = np.stack([rows, columns, normal], axis=1)
    try:
        geometry = Geometry((*size, len(between)), (spacing_x, spacing_y, step), origin, direction.ravel())
    except InputError as error:
        raise InputError(f"{path}: {error.message}", error.hint) from error
    return Stack(slices, geometry, shifts, between, weights)


def _check_equal(path: Path, slices: list[Slice]) -> None:
    first = slices[0]
    if others := {one.size for one in slices} - {first.size}:
        raise InputError(
            f"The series in {path} has images of different size: {first.size} and {others.pop()}.",
            "Give a series of equal slices, without localisers.",
        )
    for one in slices:
        digits = max(min(one.decimals, first.decimals), 1)
        apart = np.abs(np.subtract(one.spacing, first.spacing))
        across = (apart / first.spacing * first.size[::-1]).max()
        if not (apart.max() <= 1.01 * 10.0**-digits and across < _SAME_SPACING):
            raise InputError(
                f"The series in {path} has images of different spacing: {first.spacing} and {one.spacing}.",
                "Give a series of equal slices, without localisers.",
            )


def _without_copies(path: Path, slices: list[Slice], normal: np.ndarray) -> list[Slice]:
    """Each place once. Raises InputError where images of one place are no copies of each other."""
    kept, copies = [slices[0]], []
    for one in slices[1:]:
        last = kept[-1]
        if np.linalg.norm((one.position - last.position) @ normal) >= _SAME_PLACE:
            kept.append(one)
        elif np.linalg.norm(one.position - last.position) < _SAME_PLACE and _same_voxels(one, last):
            longer = max(one, last, key=lambda each: len(each.file.name))
            kept[-1] = last if longer is one else one
            copies.append(longer.file.name)
        else:
            told = [
                f"{name} {last.phase[name]} and {one.phase[name]}"
                for name in last.phase
                if one.phase.get(name, last.phase[name]) != last.phase[name]
            ]
            raise InputError(
                f"The series in {path} has more than one image at the same place "
                f"({one.position @ normal:.2f} mm along the stack): several phases, echoes or time points. "
                f"{last.file.name} and {one.file.name} differ in {', '.join(told[:3]) or 'their voxels'}.",
                "`usema segment` takes phases one after the other if every place has all of them. Else give the images "
                "of one of them.",
            )
    if copies:
        named = ", ".join(copies[:5]) + (f" and {len(copies) - 5} more" if len(copies) > 5 else "")
        many = f"{len(copies)} images are copies" if len(copies) > 1 else "1 image is a copy"
        log.warning("%s: %s of others at the same place and left out: %s.", path, many, named)
    return kept


def _same_voxels(one: Slice, other: Slice) -> bool:
    if one.file == other.file and one.frame == other.frame:
        return True
    return np.array_equal(*(read_slices([each])[0] for each in (one, other)))


def _check_straight(path: Path, slices: list[Slice], off: np.ndarray, heights: np.ndarray) -> None:
    distances = np.linalg.norm(off, axis=1)
    if distances.max() > _PLACE_TOLERANCE * np.median(np.diff(heights)):
        raise InputError(
            f"The series in {path} is no straight stack: {slices[distances.argmax()].file.name} lies "
            f"{distances.max():.2f} mm beside the line of the others.",
            "Give the slices of one straight series, or resample them to one grid first.",
        )


def _places(path: Path, slices: list[Slice], heights: np.ndarray, base: float, interpolate: bool):
    """For each slice of an even stack: the two slices it lies between, the second one's weight; and the distance."""
    gaps = np.diff(heights)
    step = heights[-1] / len(gaps)
    if np.abs(heights - np.arange(len(heights)) * step).max() <= _PLACE_TOLERANCE * step:
        own = np.arange(len(heights))
        return np.stack([own, own], axis=1), np.zeros(len(own)), step
    usual = float(np.sort(gaps)[(len(gaps) - 1) // 2])  # of few gaps, the smaller
    odd = int(np.abs(gaps - usual).argmax())
    what = (
        f"The series in {path} has missing or unevenly spaced slices: from {base + heights[odd]:.2f} to "
        f"{base + heights[odd + 1]:.2f} mm along the stack the gap is {gaps[odd]:.2f} mm, elsewhere {usual:.2f} mm "
        f"(between {slices[odd].file.name} and {slices[odd + 1].file.name})."
    )
    if not interpolate:
        raise InputError(
            what,
            "Add the missing slices; or have them interpolated from their neighbours (--interpolate-slices), and look "
            "at the result there with care.",
        )
    count = round(heights[-1] / usual) + 1
    step = heights[-1] / (count - 1)
    wanted = np.arange(count) * step
    nearest = np.abs(heights[None] - wanted[:, None]).argmin(axis=1)
    is_own = np.abs(heights[nearest] - wanted) <= _PLACE_TOLERANCE * step
    after = np.clip(np.searchsorted(heights, wanted), 1, len(heights) - 1)
    weights = (wanted - heights[after - 1]) / (heights[after] - heights[after - 1])
    between = np.stack([np.where(is_own, nearest, after - 1), np.where(is_own, nearest, after)], axis=1)
    made = int((~is_own).sum())
    if made > _MOST_INTERPOLATED * count:
        raise InputError(f"{what} {made} of {count} slices would be interpolated.", "Give the whole series.")
    log.warning("%s %d of %d slices were interpolated from their neighbours.", what, made, count)
    return between, np.where(is_own, 0.0, weights), step


def _check_tilt(path: Path, tilt: float) -> None:
    if tilt > _MOST_TILT:
        raise InputError(
            f"The slices of the series in {path} lie aside of each other as if tilted by {tilt:.1f} degrees.",
            "Give the slices of one straight series.",
        )
    log.warning(
        "%s was acquired with a tilted gantry (%.1f degrees). Each slice was moved within its plane onto a straight "
        "grid, as 3D Slicer does; the result lies on this grid.",
        path,
        tilt,
    )
