"""Resampling before everything and back after everything, the way of TotalSegmentator.

The first and the last voxel centres of each axis stay where they are; images linearly, cut to whole numbers; labels by
the nearest voxel (``scipy.ndimage.zoom`` without ``grid_mode``, as TotalSegmentator's ``resampling.py`` calls it).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy

from ..volumes.geometry import Geometry


def pre_resample(array: np.ndarray, geometry: Geometry, spacing_mm: Sequence[float]) -> tuple[np.ndarray, Geometry]:
    """Images (C, z, y, x) at another spacing (x, y, z); themselves where they have it already.

    Returns:
        int32 images, and the grid they lie on as the next steps are to believe it.
    """
    if np.allclose(geometry.spacing, spacing_mm, rtol=0, atol=1e-6):
        return array, geometry
    size = [
        max(1, round(n * old / new)) for n, old, new in zip(geometry.size, geometry.spacing, spacing_mm, strict=True)
    ]
    grid = Geometry(tuple(size), tuple(spacing_mm), geometry.origin, geometry.direction)
    # Transposed, because TotalSegmentator's arrays are (x, y, z): the order in which axes are summed tips last digits.
    images = [_zoomed(channel.T.astype(np.float64), grid.size).T.astype(np.int32) for channel in array]
    return np.ascontiguousarray(np.stack(images)), grid


def back_to(labels: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Labels, or probabilities (K, z, y, x), on the grid before ``pre_resample``: by the nearest voxel."""
    if labels.shape[-3:] == tuple(shape):
        return labels
    # SciPy itself says which voxel is the nearest; along each axis alone, so that it is asked only once a line.
    axes = zip(labels.shape[-3:], shape, strict=True)
    nearest = (scipy.ndimage.zoom(np.arange(old), new / old, order=0, mode="nearest") for old, new in axes)
    z, y, x = np.ix_(*nearest)
    return labels[..., z, y, x]


def _zoomed(array: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    factors = [new / old for new, old in zip(shape, array.shape, strict=True)]
    return scipy.ndimage.zoom(array, factors, order=1, mode="nearest")
