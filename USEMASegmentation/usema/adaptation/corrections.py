"""What a user has corrected in a result: slices that are right as they stand, and voxels that stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..models.metadata import ModelMetadata
from ..volumes.geometry import Geometry

Slice = tuple[int, int]  # axis of the volume's array (0 is z), index
_LETTERS = "zyx"  # what users call the axes
_MOST_NAMED = 10  # slices in a sentence
_STAYS = "then what you changed stays, wherever it is"


@dataclass(frozen=True, eq=False)
class Corrections:
    """A result as the user left it.

    Args:
        labels: (z, y, x) whole numbers, the model's labels, corrections included.
        slices: those that are right, all of each.
        edited: bool (z, y, x), voxels that the user changed, wherever; None: only slices are told.

    Raises:
        InputError: these cannot be corrections of anything.
    """

    labels: np.ndarray
    slices: tuple[Slice, ...]
    edited: np.ndarray | None = None

    def __post_init__(self):
        labels, edited = self.labels, self.edited
        if labels.ndim != 3 or labels.dtype.kind not in "biu":
            raise InputError(
                f"The corrected labels are of shape {labels.shape} and type {labels.dtype}.",
                "Give a label map of three axes with whole numbers.",
            )
        if edited is not None and (edited.shape != labels.shape or edited.dtype.kind not in "biu"):
            raise InputError(
                f"The mask of edited voxels has the shape {edited.shape}, the labels {labels.shape}.",
                "Give both on one grid.",
            )
        if not self.slices:
            raise InputError(
                "No slice is marked as right: there is nothing to learn from.",
                "Correct a slice, or accept one that is right.",
            )
        for axis, index in self.slices:
            if axis not in (0, 1, 2):
                raise InputError(f"There is no slice {index} along axis {axis}.", "There are axes 0 to 2.")
            if not 0 <= index < (count := labels.shape[axis]):
                raise InputError(
                    f"There is no slice {index} along {_LETTERS[axis]}.",
                    f"Along {_LETTERS[axis]} there are {count}: 0 to {count - 1}.",
                )
        object.__setattr__(self, "slices", tuple(sorted({(int(axis), int(index)) for axis, index in self.slices})))

    def check(self, metadata: ModelMetadata, geometry: Geometry) -> None:
        """Refuses what is none of this model, or of another volume.

        Raises:
            InputError: says which.
        """
        if self.labels.shape != geometry.shape:
            raise InputError(
                f"The corrected labels have the shape {self.labels.shape}, the volume {geometry.shape} (z, y, x).",
                "Give the result of this volume, on its grid.",
            )
        known = {0, *(label.value for label in metadata.labels)}
        strange = sorted(set(np.unique(self.labels).tolist()) - known)
        if strange:
            raise InputError(
                f"The corrected labels hold the value {strange[0]}, which is no label of '{metadata.name}'.",
                f"Its labels are {', '.join(f'{one.value} ({one.name})' for one in metadata.labels)}.",
            )

    def beside(self, own: np.ndarray) -> str:
        """What was changed where nothing tells so, on slices that are not named; in a sentence, empty if there is none.

        Args:
            own: (z, y, x), the model's own result, which takes its place.

        Raises:
            InputError: all of it lies there. The slices that were named are the wrong ones.
        """
        changed, kept = own != self.labels, self.kept
        if not (changed & ~kept).any():
            return ""
        others = _named(_across(changed & ~kept, {axis for axis, _ in self.slices}))
        if not (changed & kept).any():
            raise InputError(
                f"What you changed would be lost: on {_named(self.slices)} all is as the model has it, and what is not "
                f"lies on {others}.",
                f"Name the slices that you corrected, or give the model's own result too (--before): {_STAYS}.",
            )
        return (
            f"On {others}, which you did not name, what differs from the model's own result was not kept. Name them as "
            f"well, or give that result too (--before): {_STAYS}."
        )

    @property
    def kept(self) -> np.ndarray:
        """bool (z, y, x): what comes back exactly as it is."""
        mask = np.zeros(self.labels.shape, bool)
        for axis, index in self.slices:
            mask[_cut(axis, index)] = True
        if self.edited is not None:
            mask |= self.edited.astype(bool)
        return mask

    @property
    def told(self) -> str:
        """The slices in words: "axis 0: 40, 52; axis 2: 7"."""
        axes = sorted({axis for axis, _ in self.slices})
        return "; ".join(f"axis {axis}: {', '.join(str(i) for a, i in self.slices if a == axis)}" for axis in axes)


def _cut(axis: int, index: int) -> tuple:
    return (*[slice(None)] * axis, index)


def _across(mask: np.ndarray, axes: set[int]) -> list[Slice]:
    """The slices that hold something of a mask, along the axis where they are fewest; rather along one of these axes,
    as what was drawn in slices may be narrower than they are many.
    """
    found = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    axis = min(range(3), key=lambda one: len(found[one]) * (1 if one in axes else 2))
    return [(axis, int(index)) for index in found[axis]]


def _named(slices: Sequence[Slice]) -> str:
    """As the user writes them: "slice 12", "slices 12, x:40 and 9 more"."""
    words = [f"{index}" if axis == 0 else f"{_LETTERS[axis]}:{index}" for axis, index in slices]
    more = f" and {len(words) - _MOST_NAMED} more" if len(words) > _MOST_NAMED else ""
    return f"slice{'s' * (len(words) > 1)} {', '.join(words[:_MOST_NAMED])}{more}"
