"""Masks on a grid, and a mask as one line of text: a tag of a segment can hold it, and tags survive undo and saving."""

from __future__ import annotations

import base64
import binascii
import math
import zlib
from dataclasses import dataclass

import numpy as np
import scipy

MOST_VOXELS = 2**30  # of the box around a mask: a text from a damaged file must not fill the memory
_VERSION = "1"

Box = tuple[slice, slice, slice]  # indices in the order z, y, x
Boxes = dict[int, Box]


@dataclass(frozen=True, eq=False)
class PlacedMask:
    """Voxels that are set, somewhere on a grid without an end.

    Attributes:
        array: bool (z, y, x).
        start: index (i, j, k) of its first voxel; may be negative.
    """

    array: np.ndarray
    start: tuple[int, int, int]

    @property
    def count(self) -> int:
        """How many voxels are set."""
        return int(np.count_nonzero(self.array))

    @property
    def box(self) -> Box:
        """The indices that ``array`` covers, in the order z, y, x."""
        return tuple(
            slice(first, first + length) for first, length in zip(self.start[::-1], self.array.shape, strict=True)
        )

    def on(self, box: Box) -> np.ndarray:
        """A copy of what of it lies in another box, in the order z, y, x; nothing is set where it does not reach."""
        window = np.zeros([part.stop - part.start for part in box], bool)
        inner = common_box(self.box, box)
        if inner is not None:
            window[relative(inner, box)] = self.array[relative(inner, self.box)]
        return window

    def shifted(self, offset: tuple[int, int, int]) -> PlacedMask:
        """The same voxels on a grid whose first voxel lies ``offset`` (i, j, k) before this one's."""
        return PlacedMask(self.array, tuple(first + by for first, by in zip(self.start, offset, strict=True)))

    def trimmed(self) -> PlacedMask:
        """Without the margins that hold nothing."""
        found = scipy.ndimage.find_objects(self.array.view(np.uint8)) if self.array.size else []
        if not found:
            return NOTHING
        start = tuple(part.start + first for part, first in zip(found[0][::-1], self.start, strict=True))
        return PlacedMask(self.array[found[0]], start)


NOTHING = PlacedMask(np.zeros((0, 0, 0), bool), (0, 0, 0))


def common_box(*boxes: Box) -> Box | None:
    """What lies in all of them; None: nothing."""
    common = tuple(
        slice(max(one.start for one in parts), min(one.stop for one in parts)) for parts in zip(*boxes, strict=True)
    )
    return common if all(part.start < part.stop for part in common) else None


def box_around(*boxes: Box) -> Box:
    """The smallest box that holds all of them; boxes of no voxels do not count."""
    filled = [box for box in boxes if all(part.start < part.stop for part in box)]
    if not filled:
        return (slice(0, 0),) * 3
    return tuple(
        slice(min(one.start for one in parts), max(one.stop for one in parts)) for parts in zip(*filled, strict=True)
    )


def relative(box: Box, to: Box) -> Box:
    """The box in the indices of an array that covers ``to``."""
    return tuple(slice(one.start - base.start, one.stop - base.start) for one, base in zip(box, to, strict=True))


def mask_to_text(mask: PlacedMask, affine: np.ndarray) -> str:
    """A mask and the grid it lies on.

    Args:
        affine: (4, 4) from voxel index (i, j, k) to RAS millimetres.

    Returns:
        version, start, size, three rows of the matrix, and the packed bits, compressed, in base 64; without ``|`` and
        ``:``, which separate tags in files.
    """
    mask = mask.trimmed()
    numbers = [*mask.start, *mask.array.shape[::-1], *(float(value) for value in np.asarray(affine)[:3].flat)]
    bits = zlib.compress(np.packbits(mask.array).tobytes(), 6)
    return " ".join([_VERSION, *map(repr, map(_plain, numbers)), base64.b64encode(bits).decode()])


def text_to_mask(text: str) -> tuple[PlacedMask, np.ndarray]:
    """The inverse of :func:`mask_to_text`: the mask and the matrix.

    Raises:
        ValueError: it is no such text, or of a newer USEMA.
    """
    start, size, affine, bits = _parsed(text)
    voxels = math.prod(size)
    try:
        packed = zlib.decompressobj().decompress(base64.b64decode(bits, validate=True), voxels // 8 + 2)
    except (binascii.Error, zlib.error) as error:
        raise ValueError(f"this mask is damaged: {error}") from error
    if len(packed) != (voxels + 7) // 8:
        raise ValueError("this mask is damaged")
    array = np.unpackbits(np.frombuffer(packed, np.uint8), count=voxels).view(bool).reshape(size[::-1])
    return PlacedMask(array, start), affine


def text_to_grid(text: str) -> np.ndarray:
    """The matrix alone of what :func:`text_to_mask` gives; it looks at no voxels. Raises ValueError as that does."""
    return _parsed(text)[2]


def _parsed(text: str) -> tuple[tuple[int, ...], tuple[int, ...], np.ndarray, str]:
    """Start, size, matrix and packed bits."""
    parts = text.split(" ")
    if len(parts) != 20 or parts[0] != _VERSION:
        raise ValueError("this is no mask")
    start, size = (tuple(int(one) for one in parts[first : first + 3]) for first in (1, 4))
    affine = np.eye(4)
    affine[:3] = np.reshape([float(one) for one in parts[7:19]], (3, 4))
    far = max(map(abs, start)) > MOST_VOXELS
    if min(size) < 0 or math.prod(size) > MOST_VOXELS or not np.isfinite(affine).all() or far:
        raise ValueError("this mask lies nowhere")
    return start, size, affine, parts[19]


def label_boxes(labels: np.ndarray, start: tuple[int, int, int] = (0, 0, 0)) -> Boxes:
    """Where the labels of a label map lie, by their value; those that it does not hold are left out.

    Args:
        labels: integers (z, y, x).
        start: index (i, j, k) of its first voxel.
    """
    found = {}
    for value, box in enumerate(scipy.ndimage.find_objects(labels) if labels.size else [], 1):
        if box is not None:
            found[value] = tuple(slice(one.start + by, one.stop + by) for one, by in zip(box, start[::-1], strict=True))
    return found


def label_mask(labels: np.ndarray, value: int, boxes: Boxes, start: tuple[int, int, int] = (0, 0, 0)) -> PlacedMask:
    """One label of a label map; ``boxes`` and ``start`` as :func:`label_boxes` has them."""
    box = boxes.get(value)
    if box is None:
        return NOTHING
    inner = tuple(slice(one.start - by, one.stop - by) for one, by in zip(box, start[::-1], strict=True))
    return PlacedMask(labels[inner] == value, tuple(part.start for part in box[::-1]))


def _plain(number: float) -> float | int:
    return int(number) if float(number).is_integer() and abs(number) < 2**53 else float(number)
