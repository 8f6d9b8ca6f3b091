"""Where the voxels that a network sees lie in the volume that the user corrected."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..inference.preprocessing import Prepared
from ..volumes.geometry import Geometry


@dataclass(frozen=True, eq=False)
class Places:
    """For each axis of a network's data, along which axis of the volume it runs and where its voxels lie.

    Attributes:
        axes: three axes of the volume's array (0 is z).
        positions: for each, float indices along that axis of the volume.
    """

    axes: tuple[int, int, int]
    positions: tuple[np.ndarray, np.ndarray, np.ndarray]

    @classmethod
    def of(cls, prepared: Prepared, grid: Geometry, volume: Geometry) -> Places:
        """Of data that were prepared from an array on ``grid``, which may be turned, cut out or resampled.

        Args:
            grid: of the array that was prepared; its axes run along those of the volume.
            volume: the volume's own.
        """
        step = np.linalg.inv(volume.affine) @ grid.affine  # (x, y, z) indices on the grid -> on the volume
        axes, positions = [], []
        for axis, indices in prepared.places:
            row = int(np.abs(step[:3, 2 - axis]).argmax())
            axes.append(2 - row)
            positions.append(step[row, 2 - axis] * indices + step[row, 3])
        return cls(tuple(axes), tuple(positions))

    def planes(self, axis: int, index: int, others: Sequence[int] = ()) -> tuple[int, np.ndarray]:
        """The axis of the data, and its planes, that show a slice of the volume; none where the data do not reach.

        Args:
            others: slices along the same axis, which may show a plane better.
        """
        own = self.axes.index(axis)
        positions = self.positions[own]
        away = np.abs(positions - index)
        shown = away <= max(1.0, self._step(own)) / 2 + 1e-6
        for other in others:
            nearer = np.abs(positions - other)
            shown &= (away < nearer) | ((away == nearer) & (index <= other))
        return own, np.flatnonzero(shown)

    def nearest(self, values: np.ndarray, outside: int) -> np.ndarray:
        """An array of the volume at the data's voxels; ``outside`` where they lie beyond it."""
        return self._taken(values.transpose(self.axes), range(3), outside)

    def on_slice(self, values: np.ndarray, axis: int, index: int, outside: int) -> np.ndarray:
        """A slice of an array of the volume at the data's voxels, with one plane along its axis."""
        own = self.axes.index(axis)
        flat = values[(slice(None),) * axis + (slice(index, index + 1),)].transpose(self.axes)
        return self._taken(flat, [one for one in range(3) if one != own], outside)

    def touched(self, mask: np.ndarray, axis: int, index: int) -> np.ndarray:
        """As ``on_slice``, of a mask: whether any of it lies in a voxel of the data."""
        own = self.axes.index(axis)
        flat = mask[(slice(None),) * axis + (slice(index, index + 1),)]
        sizes = [1 if one == own else 2 * int(np.ceil(self._step(one) / 2)) + 1 for one in range(3)]
        wide = ndimage.maximum_filter(flat, [sizes[self.axes.index(one)] for one in range(3)], mode="constant")
        return self.on_slice(np.broadcast_to(wide, mask.shape), axis, index, False)

    def _step(self, own: int) -> float:
        """How many voxels of the volume one of the data is, along an axis of the data."""
        positions = self.positions[own]
        return abs(positions[1] - positions[0]) if len(positions) > 1 else 1.0

    def _taken(self, values: np.ndarray, along: Iterable[int], outside: int) -> np.ndarray:
        """Values, with the data's axes, taken at its voxels along some of them."""
        for own in along:
            indices = np.round(self.positions[own]).astype(int)
            length = values.shape[own]
            values = np.take(values, indices.clip(0, length - 1), axis=own)
            beyond = (indices < 0) | (indices >= length)
            if beyond.any():
                values[(slice(None),) * own + (beyond,)] = outside
        return values
