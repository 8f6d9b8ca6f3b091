"""Which regions of a new list the user accepted in the list before: the same places, with the same labels in them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence

import numpy as np
from usema.quality.review_regions import Region
from usema.volumes.masks import Box, common_box, relative

from .Port import Edits

SAME = 0.8  # of the voxels that one of two boxes has at least both have: then they are one place


def seenIn(edits: Mapping[int, Edits], box: Box) -> str:
    """What differs if any segment has other voxels in a box."""
    digest = hashlib.sha256()
    for value, one in sorted(edits.items()):
        inside = np.zeros([part.stop - part.start for part in box], bool)
        inner = common_box(one.now.box, box) if one.now.array.size else None
        if inner is not None:
            inside[relative(inner, box)] = one.now.array[relative(inner, one.now.box)]
        digest.update(f"{value} {inside.shape} ".encode())
        digest.update(np.packbits(inside).tobytes())
    return digest.hexdigest()[:16]


def placeOf(region: Region, before: Sequence[Region]) -> int | None:
    """Which of the regions before is the same place, for the same reason; None: none of them.

    The nearest alike counts, so that one accepted region says nothing of others that lie partly in it.
    """
    alike = [_alike(region.box, one.box) if one.why == region.why else 0.0 for one in before]
    best = int(np.argmax(alike)) if alike else -1
    return best if best >= 0 and alike[best] >= SAME else None


def _alike(one: Box, other: Box) -> float:
    inner = common_box(one, other)
    both = 0 if inner is None else _size(inner)
    return both / (_size(one) + _size(other) - both)


def _size(box: Box) -> int:
    return math.prod(part.stop - part.start for part in box)
