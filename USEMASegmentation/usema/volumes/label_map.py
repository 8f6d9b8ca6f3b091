"""Whether voxels are labels rather than an image: the wrong file was chosen."""

from __future__ import annotations

import numpy as np

# Images of few values exist (8 bits, masked background), but what they show never lies in flat areas: of neighbouring
# voxels off the background, 3 to 20 % are equal in an MR or CT, and 80 % and more in label maps.
_MOST_VALUES = 1024
_EQUAL_NEIGHBOURS = 0.7


def label_values(array: np.ndarray) -> int | None:
    """How many values a label map has, background included; None where the array looks like an image.

    Args:
        array: (z, y, x), real numbers.
    """
    low, high = array.min(), array.max()
    if array.dtype.kind not in "biuf" or not (low >= 0 and high <= 65535):
        return None
    counts = np.zeros(int(high) + 1, np.int64)
    for plane in array:  # plane by plane: no second array of the volume's size
        whole = plane.astype(np.int64)
        if plane.dtype.kind == "f" and (whole != plane).any():
            return None
        counts += np.bincount(whole.ravel(), minlength=len(counts))
        found = int((counts > 0).sum())
        if found > _MOST_VALUES:
            return None
    if found < 2:
        return None
    background = int(counts.argmax())
    pairs = equal = 0
    for plane in array:
        left, right = plane[:, :-1], plane[:, 1:]
        both = (left != background) & (right != background)
        pairs += int(both.sum())
        equal += int((both & (left == right)).sum())
    return found if pairs == 0 or equal >= _EQUAL_NEIGHBOURS * pairs else None
