"""How far what the user changed on a slice reaches: a few voxels, and farther the wider it is.

A voxel that was changed says something of its neighbours, not of the other end of a structure; a part that was missing
says something of all around it. Nothing else ties what is carried or propagated to where the user drew.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

WIDTHS = 2.0  # a connected change reaches as many times the radius of a disc of its area
SOFT = 3.0  # voxels over which that ends, or its reach if that is less
EMPTIED = 0.3  # of what a model has of a label on a slice: if less is left, the label was taken from it
# What a slice does not tell is where a label ends along the axis. Measured on hippocampi cut across: without these, a
# tail that a model drew four slices too long took four right ones with it.
INWARD = 0.2  # how much counts of a label that was taken, on the side where the model has more of it
BOTH_SIDES = 0.3  # of what a model has on the larger side: if the other has more, the slice is a gap and no end
GAP = 0.1  # how much counts on both sides then
EXCHANGED = 0.1  # where the model has none of a label that was drawn over another: two parts meet on that slice alone
NEAR = 2  # planes: if a model lets two labels meet so near, that they meet elsewhere tells of no other slice


@dataclass(frozen=True, eq=False)
class Drawn:
    """The changes of one slice.

    Attributes:
        parts: for those of about one size, how far they reach in voxels, and float32 (b, c) the distance to them, which
            is infinite if nothing was changed.
    """

    parts: tuple[tuple[float, np.ndarray], ...]

    @classmethod
    def of(cls, changed: np.ndarray) -> Drawn:
        """Of bool (b, c), what the user changed."""
        labels, _ = ndimage.label(changed, np.ones((3, 3)))
        reaches = np.ceil(WIDTHS * np.sqrt(np.bincount(labels.ravel())[1:] / np.pi))
        parts = []
        for reach in np.unique(reaches):
            those = np.concatenate([[False], reaches == reach])[labels]
            parts.append((float(reach), ndimage.distance_transform_edt(~those).astype(np.float32)))
        return cls(tuple(parts) or ((SOFT, np.full(changed.shape, np.inf, np.float32)),))

    def weight(self, planes_away: np.ndarray | float, *cut: slice) -> np.ndarray:
        """float32, 1 where a change reaches, 0 where it does not, and between along its rim; 0 if nothing was changed.

        Args:
            planes_away: from the slice, of a shape that broadcasts.
            cut: what of the slice is wanted.
        """
        found = np.zeros(1, np.float32)
        for reach, away in self.parts:
            its = np.clip(1 - (np.hypot(away[cut], planes_away) - reach) / min(SOFT, reach), 0, 1)
            found = np.maximum(found, its.astype(np.float32))
        return found


def along(areas: np.ndarray, planes: np.ndarray, left: int, exchanged: bool = False) -> np.ndarray:
    """float32 (planes, 1, 1), how much of a change counts along the axis, where its slice may be near a label's end.

    Args:
        areas: (planes,) voxels that a model has of a label.
        planes: those of the slice.
        left: voxels that the label has there now.
        exchanged: whether most of what was changed went from one label to another.
    """
    first, last = int(planes.min()), int(planes.max())
    here, below, above = areas[planes].sum(), areas[:first].sum(), areas[last + 1 :].sum()
    result = np.ones(len(areas), np.float32)
    if exchanged:
        empty = areas == 0
        empty[planes] = False
        result[empty] = EXCHANGED
    if left < EMPTIED * here:
        if min(below, above) >= BOTH_SIDES * max(below, above):
            result[:first] *= GAP
            result[last + 1 :] *= GAP
        elif below > above:
            result[:first] *= INWARD
        else:
            result[last + 1 :] *= INWARD
    return result[:, None, None]


def meets_another(areas: np.ndarray, planes: np.ndarray, left: int) -> bool:
    """Whether a label that another took the place of on a slice, or the reverse, ends near it in a model's eyes, too.

    Then the slice tells that the two meet a little before or behind where the model has it, and no more: how far, only
    the next slices know. Measured on hippocampi cut across, where the front part meets the back part on one slice.

    Args:
        areas: (planes,) voxels that a model has of the label.
        planes: those of the slice.
        left: voxels that the label has there now.
    """
    here, left = areas[planes].mean(), left / len(planes)
    first, last = int(planes.min()), int(planes.max())
    around = np.concatenate([areas[max(0, first - NEAR) : first], areas[last + 1 : last + 1 + NEAR]])
    went = left < EMPTIED * here and bool((around < EMPTIED * here).any())
    came = here < EMPTIED * left and bool((around > EMPTIED * left).any())
    return went or came
