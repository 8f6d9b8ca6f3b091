"""A volume: voxels and the grid they lie on. Reads the formats of the field and refuses what cannot be segmented.

One convention holds everywhere in the engine: arrays are (z, y, x), C-ordered; geometry is x, y, z, in LPS
millimetres (``geometry.py``).
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from .file_grid import refuse_single_slice
from .geometry import Geometry
from .outside import fill_outside
from .paths import SEGMENTATION_SUFFIXES, check_path
from .told import NOTHING, Told, told_of_file

if TYPE_CHECKING:
    import SimpleITK as sitk

    from .dicom_stack import Stack

__all__ = [
    "Geometry",
    "Volume",
    "check_values",
    "check_volume",
    "load_volume",
    "read_volume",
    "reorient",
    "resample_onto",
    "restore",
]

log = logging.getLogger(__name__)

MOST = float(np.finfo(np.float32).max)  # networks compute in single precision


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels ``array`` (z, y, x), C-ordered, on the grid ``geometry``; ``stack``: the DICOM slices that they are;
    ``told``: what is said of it."""

    array: np.ndarray
    geometry: Geometry
    stack: Stack | None = None
    told: Told = NOTHING

    def to_image(self) -> sitk.Image:
        """A copy as SimpleITK has it. An array (z, y, x, K) becomes an image with K components."""
        import SimpleITK as sitk  # not above: a worker starts without it, in a tenth less time

        image = sitk.GetImageFromArray(self.array, isVector=self.array.ndim == 4)
        image.SetSpacing(self.geometry.spacing)
        image.SetOrigin(self.geometry.origin)
        image.SetDirection(self.geometry.direction)
        return image


def read_volume(path: str | Path, *, interpolate_slices: bool = False) -> Volume:
    """Read a volume to segment; its voxels keep the type they have in the file.

    What a user should know of how it was read (copies and other things left out, a contradiction in the header, NaN
    outside the field of view) goes to the log as a warning.

    Args:
        path: a NIfTI, NRRD or MetaImage file, a folder with one DICOM series, or one file of a series (then its whole
            series is read).
        interpolate_slices: make missing slices of a DICOM series from their neighbours instead of refusing it.

    Raises:
        InputError: there is no such file, it is of another kind or damaged, or :func:`check_volume` refuses it.
    """
    if str(path).lower().endswith(SEGMENTATION_SUFFIXES):
        raise InputError(f"{path} is a segmentation, not an image.", "Give the volume that it was drawn on.")
    return checked_volume(load_volume(path, interpolate_slices=interpolate_slices), str(path))


def checked_volume(volume: Volume, name: str) -> Volume:
    """A volume as it was read, made ready to be segmented: NaN outside the field of view is background.

    Args:
        name: what messages call it.

    Raises:
        InputError: as :func:`check_volume`.
    """
    array, said = fill_outside(volume.array, name)
    if said:
        log.warning("%s", said)
    volume = replace(volume, array=array)
    check_volume(volume, name)
    return volume


def load_volume(path: str | Path, *, interpolate_slices: bool = False) -> Volume:
    """As :func:`read_volume`, but whatever its values are: a label map may be empty.

    Raises:
        InputError: there is no such file, it is of another kind, damaged, or not one three-dimensional scalar volume.
    """
    from .dicom import is_dicom, read_series, told_of_series
    from .image_files import read_image_file

    path = Path(path)
    check_path(path)
    if is_dicom(path):
        array, geometry, stack = read_series(path, interpolate_slices)
        return Volume(array, geometry, stack, told_of_series(stack))
    return Volume(*read_image_file(path), told=told_of_file(path))


def check_volume(volume: Volume, name: str = "The volume") -> None:
    """Refuse what cannot be segmented.

    Args:
        name: what messages call the volume.

    Raises:
        InputError: the array is empty, not 3D or not on its geometry's grid, holds other than real numbers, NaN or
            infinite values, values beyond single precision, or the same value everywhere.
    """
    array = volume.array
    if array.size == 0:
        raise InputError(f"{name} is empty: its shape is {array.shape}.")
    if array.shape != volume.geometry.shape:
        raise InputError(
            f"{name} has shape {array.shape}, but its grid has {volume.geometry.shape} (z, y, x) voxels.",
            "Give one 3D array and its own geometry.",
        )
    refuse_single_slice(volume.geometry.size, name)
    check_values(array, name)


def check_values(array: np.ndarray, name: str) -> None:
    """Refuse voxels or pixels (z, y, x, ...) that no network can see anything in.

    Raises:
        InputError: they are other than real numbers, NaN or infinite, beyond single precision, or all the same.
    """
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name} holds values of type {array.dtype}.", "Give real numbers.")
    low, high = array.min(), array.max()  # NaN and infinity show in these, without another array of this size
    if not (np.isfinite(low) and np.isfinite(high)):
        bad = ~np.isfinite(array)
        place = tuple(int(i) for i in np.unravel_index(bad.argmax(), bad.shape))
        z, y, x = place[:3]
        raise InputError(
            f"{name} has {bad.sum()} NaN or infinite voxels; the first is {array[place]} at x {x}, y {y}, z {z}.",
            "Replace them, for example by the value of the background.",
        )
    if max(abs(float(low)), abs(float(high))) > MOST:
        raise InputError(
            f"{name} has values from {low:g} to {high:g}: no measurement is beyond {MOST:.1g}.",
            "They are damage, or mark what was not measured: replace them by the value of the background.",
        )
    if low == high:
        raise InputError(f"{name} has the value {low} in every voxel: there is nothing to segment.")


def reorient(volume: Volume, orientation: str) -> Volume:
    """The same voxels at the same places, with axes permuted and flipped so that they increase towards ``orientation``.

    An oblique volume stays oblique: its axes become the closest ones. Nothing is interpolated; the array is copied
    only if it changes.

    Args:
        orientation: three letters, one each of L/R, P/A, S/I, for x, y, z: "LPS", "RAS", ...

    Raises:
        InputError: ``orientation`` is no such word.
    """
    moves = volume.geometry.moves_to(orientation)
    return Volume(_moved(volume.array, moves), volume.geometry.moved(moves))


def restore(array: np.ndarray, from_geometry: Geometry, to_geometry: Geometry) -> np.ndarray:
    """Undo :func:`reorient` on an array that was computed on the reoriented grid.

    Args:
        array: (..., z, y, x) on ``from_geometry``; leading axes (channels, classes) are kept.
        from_geometry: the grid that :func:`reorient` made.
        to_geometry: the grid it was made from.

    Raises:
        ValueError: the array is not on ``from_geometry``, or the two are not one grid in different axis orders.
    """
    if array.shape[-3:] != from_geometry.shape:
        raise ValueError(f"an array of shape {array.shape} is not on a grid of shape {from_geometry.shape}")
    return _moved(array, moves_between(from_geometry, to_geometry))


def moves_between(from_geometry: Geometry, to_geometry: Geometry) -> tuple[tuple[int, bool], ...]:
    """Which axis of a grid each axis (x, y, z) of the other one is, and whether it is turned round.

    Raises:
        ValueError: the two are not one grid in different axis orders.
    """
    cosines = from_geometry.axes.T @ to_geometry.axes  # near -1, 0 or 1: which old axis each new axis is
    moves = tuple((int(np.abs(column).argmax()), bool(column.sum() < 0)) for column in cosines.T)
    if {source for source, _ in moves} != {0, 1, 2} or not from_geometry.moved(moves).same_grid(to_geometry):
        raise ValueError(f"{from_geometry} is not {to_geometry} in another axis order")
    return moves


def resample_onto(volume: Volume, geometry: Geometry, fill: float) -> Volume:
    """Resample linearly in physical space, for input channels that were not acquired on one grid.

    Args:
        geometry: the grid of the result.
        fill: the value of voxels outside ``volume``.

    Returns:
        float32 voxels on ``geometry``; the volume's own voxels if it lies on that grid already.

    Raises:
        InputError: no voxel of ``geometry`` lies inside ``volume``.
    """
    if volume.geometry.same_grid(geometry):
        return Volume(volume.array, geometry)
    import SimpleITK as sitk

    image = sitk.Resample(
        volume.to_image(),
        geometry.size,
        sitk.Transform(),
        sitk.sitkLinear,
        geometry.origin,
        geometry.spacing,
        geometry.direction,
        math.nan,  # marks what lies outside: the volume itself has no NaN
        sitk.sitkFloat32,
    )
    array = sitk.GetArrayFromImage(image)
    outside = np.isnan(array)
    if outside.all():
        raise InputError(
            f"The fields of view do not overlap: one volume covers {_extent(volume.geometry)}, the other "
            f"{_extent(geometry)}.",
            "Give volumes of the same examination, or register them to each other first.",
        )
    array[outside] = fill
    return Volume(array, geometry)


def _moved(array: np.ndarray, moves: tuple[tuple[int, bool], ...]) -> np.ndarray:
    """The last three axes permuted and flipped; ``moves`` are of x, y, z, as :meth:`Geometry.moves_to` has them."""
    leading = range(array.ndim - 3)
    order = [*leading, *(array.ndim - 1 - source for source, _ in reversed(moves))]
    flips = [slice(None, None, -1 if flipped else 1) for _, flipped in reversed(moves)]
    return np.ascontiguousarray(array.transpose(order)[(..., *flips)])


def _extent(geometry: Geometry) -> str:
    corners = geometry.corners
    ranges = zip("LPS", corners.min(axis=0), corners.max(axis=0), strict=True)
    return ", ".join(f"{axis} {low:.0f} to {high:.0f} mm" for axis, low, high in ranges)
