"""Two-dimensional images: one, or several frames of one size that have nothing to do with each other."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InputError
from .volume import Volume, check_values

LEAST_SIDE = 8  # pixels; what is narrower shows nothing that a model could know


@dataclass(frozen=True, eq=False)
class Picture(Volume):
    """Pixels ``array`` on ``geometry``, whose third axis counts frames.

    Attributes:
        array: (n, y, x), or in colour (n, y, x, 3): red, green, blue; n is 1 but for a stack or cine.
        pixel_size_known: whether the spacing of ``geometry`` is that of the patient or specimen; else it is nominal,
            1, and nothing may be told in millimetres.
    """

    pixel_size_known: bool = True

    @property
    def in_colour(self) -> bool:
        return self.array.ndim == 4


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
