"""Two-dimensional images: one, or several frames of one size that have nothing to do with each other."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..errors import InputError
from .geometry import Geometry
from .volume import Volume, check_values, reorient

LEAST_SIDE = 8  # pixels; what is narrower shows nothing that a model could know
# Where columns and rows of a shown slice run to, of either end of each axis: to the left, to posterior, to inferior.
_SHOWN = {"R": "L", "L": "L", "A": "P", "P": "P", "S": "I", "I": "I"}


@dataclass(frozen=True, eq=False)
class Picture(Volume):
    """Pixels ``array`` on ``geometry``, whose third axis counts frames.

    Attributes:
        array: (n, y, x), or in colour (n, y, x, 3): red, green, blue; n is 1 but for a stack or cine.
        pixel_size_known: whether the spacing of ``geometry`` is that of the patient or specimen; else it is nominal,
            1, and nothing may be told in millimetres.
        stored: the grid that it came on, where ``turned_upright`` turned it; None: its own.
    """

    pixel_size_known: bool = True
    stored: Geometry | None = None

    @property
    def in_colour(self) -> bool:
        return self.array.ndim == 4


def turned_upright(picture: Picture) -> Picture:
    """A slice across the first or second stored axis, as a viewer shows it; others as they are.

    Sagittal, coronal or axial: its upper edge is superior or anterior, its left edge the patient's right or anterior.
    """
    size = picture.geometry.size
    if size[2] == 1 or 1 not in size[:2]:
        return picture
    letters = [_SHOWN[letter] for letter in picture.geometry.orientation]
    across = letters.pop(size.index(1))
    columns, rows = sorted(letters, key="LPI".index)
    array = np.moveaxis(picture.array, 3, 0) if picture.in_colour else picture.array
    turned = reorient(Volume(array, picture.geometry), columns + rows + across)
    array = np.moveaxis(turned.array, 0, 3) if picture.in_colour else turned.array
    return replace(picture, array=np.ascontiguousarray(array), geometry=turned.geometry, stored=picture.geometry)


def check_picture(picture: Picture, name: str = "The image") -> None:
    """Refuse what cannot be segmented.

    Raises:
        InputError: the array is not on its grid, a strip, or of values that ``check_values`` refuses.
    """
    check_shape(picture, name)
    size = picture.geometry.size
    if min(size[:2]) < LEAST_SIDE:
        raise InputError(
            f"{name} is a strip of {size[0]} x {size[1]} pixels: a model needs at least {LEAST_SIDE} along each side.",
            "Give the whole image.",
        )
    check_values(picture.array, name)


def check_shape(picture: Picture, name: str = "The image") -> None:
    """Raises InputError where the array is no grey or colour image on its grid."""
    array = picture.array
    if array.shape[:3] != picture.geometry.shape or array.shape[3:] not in ((), (3,)):
        raise InputError(
            f"{name} has shape {array.shape}, and its grid {picture.geometry.shape} (frames, y, x).",
            "Give grey values, or red, green and blue.",
        )
