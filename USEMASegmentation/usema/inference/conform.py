"""The head on FreeSurfer's "conformed" grid: 256 voxels of 1 mm along each axis, intensities 0 to 255.

The rule is FastSurfer's ``conform.py`` (Henschel et al. 2020, NeuroImage 219:117012) as niimath's ``-conform`` restates
it, which is what brainchop's networks were trained behind: scale the intensities so that the brightest 2 % of what is
not zero are cut off, move the middle of the volume to voxel (128, 128, 128), interpolate linearly, round.

Arrays here are (i, j, k): i increases towards the patient's left, j towards the feet, k towards the face.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np

from ..volumes.geometry import Geometry

SIDE = 256  # voxels, of 1 mm
# Columns: how one step along i, j, k moves in LPS millimetres.
_AXES = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, -1.0, 0.0]])
_BINS = 1000


@dataclass(frozen=True)
class Conformed:
    """A volume on the conformed grid, and the way back.

    Attributes:
        image: uint8 (256, 256, 256), axes (i, j, k).
        to_input: 4 x 4, from conformed indices (i, j, k) to the input's indices (x, y, z).
        input_shape: (z, y, x).
        cut_off_mm: by how much the input is larger than the grid, along its axis where that is the most; 0: it fits.
        side: voxels along each axis of the grid.
    """

    image: np.ndarray
    to_input: np.ndarray
    input_shape: tuple[int, int, int]
    cut_off_mm: float
    side: int = SIDE

    def coarser(self, step: int) -> Conformed:
        """The grid whose voxels are ``step`` times as long, each over that many of this one's; same ``image``."""
        to_fine = np.diag([step, step, step, 1.0])
        to_fine[:3, 3] = (step - 1) / 2
        return replace(self, to_input=self.to_input @ to_fine, side=self.side // step)

    def labels_on_input(self, labels: np.ndarray) -> np.ndarray:
        """Labels (i, j, k) on the input's grid (z, y, x): each voxel takes the nearest conformed one, outside 0."""
        return _nearest(labels, np.linalg.inv(self.to_input), self.input_shape[::-1]).transpose(2, 1, 0)

    def labels_from_input(self, labels: np.ndarray) -> np.ndarray:
        """Labels (z, y, x) of the input's grid on the conformed one (i, j, k), likewise."""
        return _nearest(labels.transpose(2, 1, 0), self.to_input, (self.side,) * 3)


def conform(array: np.ndarray, geometry: Geometry) -> Conformed:
    """Bring a volume onto the conformed grid.

    Args:
        array: (z, y, x), finite.
        geometry: of the array.
    """
    to_input = _conformed_to_input(geometry)
    scaled = _scaled(array)
    return Conformed(_interpolated(scaled, to_input), to_input, array.shape, _cut_off(geometry))


def hounsfield_to_cormack(array: np.ndarray) -> np.ndarray:
    """Hounsfield units with the range of soft tissue stretched, as brainchop's ``--ct`` does (Rorden et al. 2012,
    NeuroImage 61:957): air is 0, and 900 to 1100 count tenfold.
    """
    units = np.maximum(array.astype(np.float32), -1000) + 1000
    return units + 9 * np.clip(units - 900, 0, 200)


def normalised_by_quantiles(image: np.ndarray) -> np.ndarray:
    """Intensities between the 2nd and the 98th percentile become 0 to 1, those outside 0 or 1; float32."""
    low, high = np.quantile(image, (0.02, 0.98))
    return np.clip((image.astype(np.float32) - np.float32(low)) / np.float32(high - low + 1e-3), 0, 1)


def averaged(image: np.ndarray, step: int) -> np.ndarray:
    """An image (i, j, k) on the grid of ``Conformed.coarser``: each voxel is the mean of those that it covers."""
    if step == 1:
        return image
    i, j, k = (length // step for length in image.shape)
    return image.reshape(i, step, j, step, k, step).mean(axis=(1, 3, 5))


def _scaled(array: np.ndarray) -> np.ndarray:
    """Intensities as 0 to 255, float32."""
    values = array.astype(np.float32)
    least, most = float(values.min()), float(values.max())
    if least < 0 and np.count_nonzero(values < 0) < 0.02 * values.size:
        least = 0.0
    if most <= least:
        return np.zeros_like(values)
    counts, _ = np.histogram(values, _BINS, (least, most))
    cut = int((1 - float(np.float32(0.98))) * np.count_nonzero(np.abs(values) >= 1e-15))
    enough = np.flatnonzero(np.cumsum(counts)[1:] >= values.size - cut)
    index = int(enough[0]) if enough.size else _BINS - 2
    top = least + index * (most - least) / _BINS
    scale = 255 / (top - least) if top > least else 1.0
    return np.clip((values - np.float32(least)) * np.float32(scale), 0, 255)


def _conformed_to_input(geometry: Geometry) -> np.ndarray:
    axes = np.array(geometry.direction).reshape(3, 3) * np.array(geometry.spacing)
    middle = np.array(geometry.origin) + axes @ (np.array(geometry.size) / 2)
    result = np.eye(4)
    result[:3, :3] = np.linalg.inv(axes) @ _AXES
    offset = middle - _AXES @ np.full(3, SIDE / 2)
    result[:3, 3] = np.linalg.inv(axes) @ (offset - np.array(geometry.origin))
    return result


def _interpolated(values: np.ndarray, to_input: np.ndarray) -> np.ndarray:
    """Linear; a voxel without all eight neighbours inside gets the least value. Rounded half up to uint8."""
    limits = np.array(values.shape[::-1])[:, None] - 1
    least = values.min()
    flat = values.ravel()
    step_y, step_z = values.shape[2], values.shape[1] * values.shape[2]
    result = np.empty((SIDE, SIDE, SIDE), np.uint8)
    j, k = (part.ravel() for part in np.meshgrid(np.arange(SIDE), np.arange(SIDE), indexing="ij"))
    for i in range(SIDE):
        points = to_input[:3, :3] @ np.stack([np.full(j.size, i), j, k]) + to_input[:3, 3:]
        whole = np.round(points)  # a point on a voxel but for rounding takes that voxel, not its neighbour's neighbours
        points = np.where(np.abs(points - whole) < 1e-6, whole, points)
        floor = np.floor(points)
        inside = ((floor >= 0) & (floor + 1 <= limits)).all(axis=0)
        x, y, z = floor[:, inside].astype(np.intp)
        fx, fy, fz = (points[:, inside] - floor[:, inside]).astype(np.float32)
        first = x + y * step_y + z * step_z
        total = np.zeros(first.size, np.float32)
        # Along an axis on which all points lie on voxels, as where a head has 1 mm already, nothing is in between.
        along = ((step_z, fz), (step_y, fy), (1, fx))
        taps = [[(0, 1 - weight), (step, weight)] if weight.any() else [(0, 1 - weight)] for step, weight in along]
        for (dz, wz), (dy, wy), (dx, wx) in itertools.product(*taps):
            total += wx * wy * wz * flat[first + dx + dy + dz]
        plane = np.full(j.size, least, np.float32)
        plane[inside] = total
        result[i] = np.floor(plane + 0.5).astype(np.uint8).reshape(SIDE, SIDE)
    return result


def _nearest(values: np.ndarray, to_values: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Values on another grid, C-ordered along its last axis first: the nearest one, halves away from zero, or 0.

    Args:
        to_values: 4 x 4, from indices of the other grid to indices of ``values``.
        shape: of the other grid.
    """
    result = np.zeros(shape[::-1], values.dtype)
    first, second = (part.ravel() for part in np.meshgrid(np.arange(shape[1]), np.arange(shape[0]), indexing="ij"))
    limits = np.array(values.shape)[:, None]
    for last in range(shape[2]):
        points = to_values[:3, :3] @ np.stack([second, first, np.full(first.size, last)]) + to_values[:3, 3:]
        nearest = np.trunc(points + np.copysign(0.5, points)).astype(np.intp)
        inside = ((nearest >= 0) & (nearest < limits)).all(axis=0)
        result[last].reshape(-1)[inside] = values[tuple(nearest[:, inside])]
    return result.transpose(2, 1, 0)


def _cut_off(geometry: Geometry) -> float:
    extent = max(size * spacing for size, spacing in zip(geometry.size, geometry.spacing, strict=True))
    return max(0.0, extent - SIDE)
