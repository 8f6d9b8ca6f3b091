"""Colours of images: luminance of red, green and blue, and grey as all three, as a model says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..errors import InputError
from .pictures import Picture

# ITU-R BT.601, in parts of 2**16 that add up to it: red, green and blue of one value have that value as luminance.
_LUMINANCE = (19595, 38470, 7471)


def luminance(array: np.ndarray) -> np.ndarray:
    """Grey values (...) of colours (..., 3), in the type of the colours; whole numbers are rounded."""
    if array.dtype.kind == "f":
        return (array @ (np.array(_LUMINANCE) / 2**16)).astype(array.dtype)
    total = np.full(array.shape[:-1], 2**15, np.int64)
    for index, weight in enumerate(_LUMINANCE):  # colour by colour: no second array of all three
        total += array[..., index].astype(np.int64) * weight
    return (total >> 16).astype(array.dtype)


def as_grey(pictures: Sequence[Picture]) -> tuple[list[Picture], list[str]]:
    """Each image as one channel, and sentences about what was changed."""
    grey = [replace(one, array=luminance(one.array)) if one.in_colour else one for one in pictures]
    changed = any(one.in_colour for one in pictures)
    return grey, ["The image is in colour: the model sees its luminance."] if changed else []


def as_rgb(pictures: Sequence[Picture]) -> tuple[list[Picture], list[str]]:
    """Red, green and blue, 0 to 255, as channels; and sentences about what was changed.

    Args:
        pictures: one image, or three of which each is a channel.

    Raises:
        InputError: it is neither.
    """
    if len(pictures) == 3 and not any(one.in_colour for one in pictures):
        channels, notes = list(pictures), []
    elif len(pictures) == 1:
        picture, notes = pictures[0], []
        if picture.in_colour:
            channels = [replace(picture, array=np.ascontiguousarray(picture.array[..., k])) for k in range(3)]
        else:
            channels, notes = [picture] * 3, ["The image is grey: the model sees it as red, green and blue alike."]
    else:
        raise InputError(
            f"The model takes one image in colour, or three grey ones, not {len(pictures)}.", "Give one image."
        )
    if all(one.array.dtype == np.uint8 for one in channels):
        return channels, notes
    low = min(float(one.array.min()) for one in channels)
    high = max(float(one.array.max()) for one in channels)
    if low >= 0 and high <= 255 and high > 1:
        return channels, notes
    notes.append(f"The values {low:g} to {high:g} were scaled to 0 to 255, which the model knows.")
    scale = 255 / ((high - low) or 1)
    return [replace(one, array=((one.array.astype(np.float32) - low) * scale)) for one in channels], notes
