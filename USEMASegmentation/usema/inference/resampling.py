"""The resampling rules of nnU-Net's ``resample_data_or_seg_to_shape`` and ``resample_torch_fornnunet``.

For images, for labels, and the positions for logits. All of them put voxel ``i`` of an axis that goes from ``n`` to
``m`` voxels at ``n / m * (i + 0.5) - 0.5`` and repeat the edge voxel outside. Axes are in the plan's (transposed)
order, spacings in mm.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy  # its parts when they are first needed: together they take as long to import as the engine
import torch
from torch.nn import functional

from ..errors import InputError
from .device_resampling import resampled_on

# nnunetv2.configuration.ANISO_THRESHOLD: from this ratio of spacings on, slices are too far apart for a spline.
_ANISOTROPY = 3


def resampled_shape(
    shape: Sequence[int], spacing: Sequence[float], new_spacing: Sequence[float]
) -> tuple[int, int, int]:
    """The shape that ``shape`` takes at another spacing (nnU-Net's ``compute_new_shape``).

    Raises:
        InputError: an axis is so thin that no voxel of the new spacing fits.
    """
    new_shape = tuple(round(old / new * n) for n, old, new in zip(shape, spacing, new_spacing, strict=True))
    if 0 in new_shape:
        axis = new_shape.index(0)
        raise InputError(
            f"The volume is only {shape[axis] * spacing[axis]:g} mm thick along one axis; "
            f"the model works at {new_spacing[axis]:g} mm there.",
            "Use a volume with more slices.",
        )
    return new_shape


def separate_axis(spacing: Sequence[float], new_spacing: Sequence[float]) -> int | None:
    """The axis that is resampled apart from the other two, nearest neighbour, or None if all three go together.

    The spacing before resampling decides; the one after is asked only where the first is not anisotropic. Two coarse
    axes and a fine one count as not separable (nnU-Net's ``determine_do_sep_z_and_axis``).
    """
    for candidate in (np.asarray(spacing, float), np.asarray(new_spacing, float)):
        if candidate.max() / candidate.min() > _ANISOTROPY:
            coarse = np.flatnonzero(candidate.max() / candidate == 1)
            return int(coarse[0]) if len(coarse) == 1 else None
    return None


def nearest_indices(old: int, new: int, exact: bool = False) -> np.ndarray:
    """For each of ``new`` voxels the index of the nearest of ``old``.

    Of two equally near it is the one that SciPy takes, or with ``exact`` the one of torch's "nearest-exact".
    """
    if old == new:
        return np.arange(old)
    if exact:
        indices = torch.arange(old, dtype=torch.float32)[None, None]
        return functional.interpolate(indices, size=new, mode="nearest-exact")[0, 0].long().numpy()
    # SciPy itself says which of two equally near voxels it takes, so that no rounding of ours can differ from it.
    return scipy.ndimage.map_coordinates(np.arange(old), [_positions(old, new)], order=0, mode="nearest")


def linear_taps(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of ``new`` voxels its two neighbours among ``old`` and the weight of the upper one."""
    return taps_at(_positions(old, new), old)


def taps_at(position: np.ndarray, old: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As ``linear_taps``, for voxels that lie at any positions, in voxels of ``old``; outside the edge is repeated."""
    position = position.clip(0, old - 1)
    lower = np.floor(position).astype(int)
    return lower, np.minimum(lower + 1, old - 1), position - lower


def resample_image(
    data: np.ndarray, new_shape: Sequence[int], separate: int | None, device: torch.device | None = None
) -> np.ndarray:
    """Cubic spline resampling, each channel clipped to its own range; with ``separate`` slice by slice.

    Args:
        data: (C, a, b, c) float32.
        new_shape: the three new lengths.
        separate: the axis (0 to 2) along which nearest slices are taken, from `separate_axis`.
        device: a GPU that computes it, while there is memory: the same to a few units of float32's last place.

    Returns:
        (C, *new_shape) float32; ``data`` itself where no length changes. Needs, beside its input and its result,
        one float32 channel of shape (a, new b, new c), and nothing where ``separate`` is given.
    """
    new_shape = tuple(new_shape)
    if data.shape[1:] == new_shape:
        return data
    result = np.empty((len(data), *new_shape), np.float32)
    for channel, out in zip(data, result, strict=True):
        if separate is not None:
            channel, out = np.moveaxis(channel, separate, 0), np.moveaxis(out, separate, 0)
        matrices = [_spline(old, new) for old, new in zip(channel.shape, out.shape, strict=True)]
        nearest = None if separate is None else nearest_indices(len(channel), len(out))
        if nearest is not None:
            matrices[0] = None
        if device is not None and resampled_on(device, channel, matrices, nearest, out):
            continue
        if nearest is None:
            resample_by(matrices, channel, out)
            np.clip(out, channel.min(), channel.max(), out=out)
        else:
            _resample_slices(matrices, nearest, channel, out)
    return result


def resample_image_linear(data: np.ndarray, new_shape: Sequence[int], separate: int | None) -> np.ndarray:
    """Linear resampling as ``resample_torch_fornnunet`` has it; arguments and result as of ``resample_image``."""
    new_shape = tuple(new_shape)
    if data.shape[1:] == new_shape:
        return data
    result = np.empty((len(data), *new_shape), np.float32)
    for channel, out in zip(data, result, strict=True):
        if separate is None:
            out[:] = _interpolated(channel, new_shape, "trilinear")
            continue
        volume, target = np.moveaxis(channel, separate, 0), np.moveaxis(out, separate, 0)
        nearest = nearest_indices(len(volume), len(target), exact=True)
        for source in np.unique(nearest):
            target[nearest == source] = _interpolated(volume[source], target.shape[1:], "bilinear")
    return result


def _interpolated(array: np.ndarray, shape: Sequence[int], mode: str) -> np.ndarray:
    tensor = torch.from_numpy(np.ascontiguousarray(array))[None, None]
    return functional.interpolate(tensor, size=tuple(shape), mode=mode, align_corners=False)[0, 0].numpy()


def resample_labels(labels: np.ndarray, new_shape: Sequence[int], separate: int | None, exact: bool) -> np.ndarray:
    """Resample labels: each voxel takes the label whose mask, resampled linearly, is the largest there.

    Of equal ones it is the nearest voxel's label (the ``resize_segmentation`` that nnU-Net calls).

    Args:
        labels: (a, b, c) of a whole number type.
        new_shape: the three new lengths.
        separate: the axis along which nearest slices are taken, from ``separate_axis``.
        exact: which of two equally near slices that is, see ``nearest_indices``.

    Returns:
        ``new_shape``, of the same type. Needs a few slices of float64 beside its input and its result.
    """
    new_shape = tuple(new_shape)
    if labels.shape == new_shape:
        return labels
    result = np.empty(new_shape, labels.dtype)
    axis = 0 if separate is None else separate
    volume, out = np.moveaxis(labels, axis, 0), np.moveaxis(result, axis, 0)
    plane = [(old, new, _linear(old, new)) for old, new in zip(volume.shape[1:], out.shape[1:], strict=True)]
    if separate is None:
        taps = zip(*linear_taps(len(volume), len(out)), nearest_indices(len(volume), len(out)), strict=True)
        for target, (lower, upper, weight, nearest) in zip(out, taps, strict=True):
            target[:] = _voted(volume[lower], volume[upper], weight, volume[nearest], plane)
    else:
        nearest = nearest_indices(len(volume), len(out), exact)
        for source in np.unique(nearest):
            out[nearest == source] = _voted(volume[source], volume[source], 0.0, volume[source], plane)
    return result


def _voted(lower: np.ndarray, upper: np.ndarray, weight: float, nearest: np.ndarray, plane: list) -> np.ndarray:
    """One plane of ``resample_labels`` between two planes of labels, of which one is the nearest."""
    rows, columns = (nearest_indices(old, new) for old, new, _ in plane)
    near = nearest[rows][:, columns]
    present = np.union1d(lower, upper)
    if len(present) == 1:
        return near
    best, score = near.copy(), np.full(near.shape, -1.0)
    for label in present:
        mask = (1 - weight) * (lower == label) + weight * (upper == label)
        found = _apply(plane[0][2], plane[1][2], mask)
        better = (found > score + 1e-9) | ((abs(found - score) <= 1e-9) & (near == label))
        best[better] = label
        np.maximum(score, found, out=score)
    return best


def resample_by(matrices: Sequence[scipy.sparse.csr_array | None], volume: np.ndarray, out: np.ndarray) -> None:
    """Resample (a, b, c) into ``out`` by a matrix (new, old) for each axis; None: nothing changes along it."""
    along, rows, columns = matrices
    planes = np.empty((len(volume), *out.shape[1:]), np.float32) if along is not None else out
    for index, plane in enumerate(volume):
        planes[index] = _apply(rows, columns, plane)
    if along is not None:
        for row in range(out.shape[1]):
            out[:, row] = _apply(along, None, planes[:, row])


def _resample_slices(matrices: Sequence, nearest: np.ndarray, volume: np.ndarray, out: np.ndarray) -> None:
    _, rows, columns = matrices
    for source in np.unique(nearest):
        plane = volume[source]
        out[nearest == source] = _apply(rows, columns, plane).clip(plane.min(), plane.max())


def _spline(old: int, new: int) -> scipy.sparse.csr_array | None:
    """Cubic spline resampling of one axis as a (new, old) matrix, or None where nothing changes.

    Spline resampling is linear and separable, so a matrix an axis does what `scipy.ndimage.zoom` does on the whole
    volume, in a fraction of its time. SciPy makes the matrix, so its boundary rule is the one that holds.
    """
    if old == new:
        return None
    unit = (scipy.ndimage.zoom(row, new / old, order=3, mode="nearest", grid_mode=True) for row in np.eye(old))
    matrix = np.stack(list(unit), axis=1)
    # Weights fall to a quarter with each voxel of distance. Where float32 ends, 23 or so a row are left; with these the
    # result is 2e-7 of the values' range off that of float64, in 0.3 of its time.
    matrix[abs(matrix) < 1e-7] = 0
    return scipy.sparse.csr_array(matrix.astype(np.float32))


def _linear(old: int, new: int) -> scipy.sparse.csr_array | None:
    """Linear resampling of one axis as a (new, old) matrix, or None where nothing changes."""
    return None if old == new else linear_matrix(_positions(old, new), old)


def linear_matrix(position: np.ndarray, old: int) -> scipy.sparse.csr_array:
    """Linear resampling of one axis to any positions, in voxels of ``old``, as a (new, old) matrix."""
    lower, upper, weight = taps_at(position, old)
    new = len(position)
    weights = np.concatenate([1 - weight, weight])
    columns = np.concatenate([lower, upper])
    return scipy.sparse.csr_array((weights, (np.tile(np.arange(new), 2), columns)), shape=(new, old))


def _apply(
    rows: scipy.sparse.csr_array | None, columns: scipy.sparse.csr_array | None, plane: np.ndarray
) -> np.ndarray:
    """Resample a plane (b, c) along b with ``rows`` and along c with ``columns``, in their precision."""
    for matrix in (rows, columns):
        if matrix is not None:
            plane = plane.astype(matrix.dtype, copy=False)
    if rows is not None:
        plane = rows @ plane
    if columns is not None:
        plane = (columns @ plane.T).T
    return plane


def _positions(old: int, new: int) -> np.ndarray:
    """Where the centres of ``new`` voxels lie, in voxels of ``old``."""
    return old / new * (np.arange(new) + 0.5) - 0.5
