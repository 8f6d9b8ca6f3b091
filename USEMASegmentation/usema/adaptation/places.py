"""Where the voxels that a network sees lie in the volume that the user corrected."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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

    def planes(self, axis: int, index: int) -> tuple[int, np.ndarray]:
        """The axis of the data, and its planes, that show a slice of the volume; none where the data do not reach."""
        own = self.axes.index(axis)
        positions = self.positions[own]
        step = abs(positions[1] - positions[0]) if len(positions) > 1 else 1.0
        away = np.abs(positions - index)
        return own, np.flatnonzero(away <= max(1.0, step) / 2 + 1e-6)

    def nearest(self, values: np.ndarray, outside: int) -> np.ndarray:
        """An array of the volume at the data's voxels; ``outside`` where they lie beyond it."""
        taken = values.transpose(self.axes)
        for axis, positions in enumerate(self.positions):
            indices = np.round(positions).astype(int)
            length = values.shape[self.axes[axis]]
            taken = np.take(taken, indices.clip(0, length - 1), axis=axis)
            beyond = (indices < 0) | (indices >= length)
            if beyond.any():
                taken[(slice(None),) * axis + (beyond,)] = outside
        return taken
