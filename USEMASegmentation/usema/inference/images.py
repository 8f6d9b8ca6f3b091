"""What a model for two-dimensional images does beside one for volumes: its channels, its checks, frame after frame."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ..errors import Cancelled
from ..models.metadata import ModelMetadata
from ..volumes.pictures import Picture
from .running import Found, Wishes


def run_frames(
    run: Callable[[Sequence[Picture], Wishes], Found],
    pictures: Sequence[Picture],
    metadata: ModelMetadata,
    wishes: Wishes,
) -> Found:
    """What ``run`` finds in each frame by itself, together.

    A frame of one value shows nothing, and nothing is found in it. Of several frames, progress counts frames.
    """
    frames, pictures = pictures[0].geometry.size[2], _believed(pictures, metadata, wishes)
    if frames == 1:
        return run(pictures, wishes)
    found: list[Found | None] = []
    started, blank = time.monotonic(), 0
    for index in range(frames):
        if wishes.should_stop is not None and wishes.should_stop():
            raise Cancelled("Stopped between two frames.")
        one = [_frame(picture, index) for picture in pictures]
        if all(picture.array.min() == picture.array.max() for picture in one):
            blank += 1
            found.append(None)
        else:
            found.append(run(one, replace(wishes, progress=None)))
        if wishes.progress is not None:
            left = (time.monotonic() - started) * (frames - index - 1) / (index + 1)
            wishes.progress(index + 1, frames, left)
    if blank:
        wishes.warn(f"{blank} of {frames} frames have the same value everywhere: nothing was looked for in them.")
    return _together(found, pictures[0].geometry.shape)


def _together(found: Sequence[Found | None], shape: tuple[int, int, int]) -> Found:
    some = next(one for one in found if one is not None)
    labels = np.zeros(shape, some.labels.dtype)
    probabilities = None
    if some.probabilities is not None:
        probabilities = np.zeros((len(some.probabilities), *shape), some.probabilities.dtype)
        probabilities[0] = 1
    for index, one in enumerate(found):
        if one is not None:
            labels[index] = one.labels[0]
            if probabilities is not None:
                probabilities[:, index] = one.probabilities[:, 0]
    return Found(labels, probabilities, max(one.highest for one in found if one is not None))


def _frame(picture: Picture, index: int) -> Picture:
    geometry = picture.geometry
    return replace(
        picture, array=picture.array[index : index + 1], geometry=replace(geometry, size=(*geometry.size[:2], 1))
    )


def _believed(pictures: Sequence[Picture], metadata: ModelMetadata, wishes: Wishes) -> Sequence[Picture]:
    """With the spacing that preprocessing is to believe, where that counts and nobody knows the true one."""
    preprocessing = metadata.networks[-1].preprocessing
    if pictures[0].pixel_size_known or not preprocessing.get("fit", {}).get("to_spacing"):
        return pictures
    row, column = preprocessing["spacing"]
    wishes.warn(f"The size of a pixel is not known: it was taken to be the model's, {column:g} x {row:g} mm.")
    geometry = replace(pictures[0].geometry, spacing=(column, row, 1.0))
    return [replace(picture, geometry=geometry) for picture in pictures]
