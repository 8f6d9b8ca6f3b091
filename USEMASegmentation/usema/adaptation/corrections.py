"""What a user has corrected in a result: slices that are right as they stand, and voxels that stay as they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..models.metadata import ModelMetadata
from ..volumes.geometry import Geometry

Slice = tuple[int, int]  # axis of the volume's array (0 is z), index


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
            if axis not in (0, 1, 2) or not 0 <= index < labels.shape[axis]:
                size = f"0 to {labels.shape[axis] - 1}" if axis in (0, 1, 2) else "axes 0 to 2"
                raise InputError(f"There is no slice {index} along axis {axis}.", f"There are {size}.")
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
