"""A volume: voxels and the grid they lie on. Reads the formats of the field and refuses what cannot be segmented.

One convention holds everywhere in the engine: arrays are (z, y, x), C-ordered; geometry is x, y, z, in LPS
millimetres (``geometry.py``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..errors import InputError
from .dicom import is_dicom, read_series
from .geometry import Geometry
from .integrity import check_file
from .itk_messages import itk_reason, itk_warnings_logged

__all__ = ["Geometry", "Volume", "check_volume", "load_volume", "read_volume", "reorient", "resample_onto", "restore"]

_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels ``array`` (z, y, x), C-ordered, on the grid ``geometry``."""

    array: np.ndarray
    geometry: Geometry

    def to_image(self) -> sitk.Image:
        """A copy as SimpleITK has it. An array (z, y, x, K) becomes an image with K components."""
        image = sitk.GetImageFromArray(self.array, isVector=self.array.ndim == 4)
        image.SetSpacing(self.geometry.spacing)
        image.SetOrigin(self.geometry.origin)
        image.SetDirection(self.geometry.direction)
        return image


def read_volume(path: str | Path) -> Volume:
    """Read a volume to segment; its voxels keep the type they have in the file.

    Args:
        path: a NIfTI, NRRD or MetaImage file, a folder with one DICOM series, or one file of a series (then its whole
            series is read).

    Raises:
        InputError: there is no such file, it is of another kind or damaged, or :func:`check_volume` refuses it.
    """
    if str(path).lower().endswith(".seg.nrrd"):
        raise InputError(f"{path} is a segmentation, not an image.", "Give the volume that it was drawn on.")
    volume = load_volume(path)
    check_volume(volume, str(path))
    return volume


def load_volume(path: str | Path) -> Volume:
    """As :func:`read_volume`, but whatever its values are: a label map may be empty.

    Raises:
        InputError: there is no such file, it is of another kind, damaged, or not one three-dimensional scalar volume.
    """
    path = Path(path)
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        # ITK would end the process over it.
        raise InputError(f"The name {str(path)!r} has bytes that are no UTF-8 text.", "Rename the file.") from None
    if not path.exists():
        raise InputError(f"{path} does not exist.", "Check the path.")
    image = read_series(path) if is_dicom(path) else _read_file(path)
    return Volume(sitk.GetArrayFromImage(image), Geometry.of_image(image))


def check_volume(volume: Volume, name: str = "The volume") -> None:
    """Refuse what cannot be segmented.

    Args:
        name: what messages call the volume.

    Raises:
        InputError: the array is empty, not 3D or not on its geometry's grid, holds other than real numbers, NaN or
            infinite values, or the same value everywhere.
    """
    array = volume.array
    if array.size == 0:
        raise InputError(f"{name} is empty: its shape is {array.shape}.")
    if array.shape != volume.geometry.shape:
        raise InputError(
            f"{name} has shape {array.shape}, but its grid has {volume.geometry.shape} (z, y, x) voxels.",
            "Give one 3D array and its own geometry.",
        )
    _refuse_single_slice(volume.geometry.size, name)
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name} holds values of type {array.dtype}.", "Give real numbers.")
    low, high = array.min(), array.max()  # NaN and infinity show in these, without another array of this size
    if not (np.isfinite(low) and np.isfinite(high)):
        bad = ~np.isfinite(array)
        z, y, x = (int(i) for i in np.unravel_index(bad.argmax(), bad.shape))
        raise InputError(
            f"{name} has {bad.sum()} NaN or infinite voxels; the first is {array[z, y, x]} at x {x}, y {y}, z {z}.",
            "Replace them, for example by the value of the background.",
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
    cosines = from_geometry.axes.T @ to_geometry.axes  # near -1, 0 or 1: which old axis each new axis is
    moves = tuple((int(np.abs(column).argmax()), bool(column.sum() < 0)) for column in cosines.T)
    if {source for source, _ in moves} != {0, 1, 2} or not from_geometry.moved(moves).same_grid(to_geometry):
        raise ValueError(f"{from_geometry} is not {to_geometry} in another axis order")
    return _moved(array, moves)


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


def _read_file(path: Path) -> sitk.Image:
    if not path.name.lower().endswith(_SUFFIXES):
        raise InputError(
            f"{path} is no kind of file that USEMA reads.",
            f"Give a file that ends in {', '.join(_SUFFIXES)}, or a folder with one DICOM series.",
        )
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    with itk_warnings_logged(path):
        try:
            reader.ReadImageInformation()
            _check_header(reader, path)
            check_file(path)
            return reader.Execute()
        except RuntimeError as error:
            raise InputError(
                f"{path} cannot be read: {itk_reason(error)}.",
                "It is incomplete, damaged, or not what its name says: copy or export it again.",
            ) from error


def _check_header(reader: sitk.ImageFileReader, path: Path) -> None:
    """Refuse what is not one three-dimensional scalar volume before its voxels are read."""
    size = reader.GetSize()
    if len(size) > 3:
        raise InputError(
            f"{path} is {len(size)}D, size {size}: it holds {size[3]} volumes (time points).",
            "Choose one of them and save it as a volume of its own.",
        )
    _refuse_single_slice(size, str(path))
    if reader.GetNumberOfComponents() > 1:
        raise InputError(
            f"{path} has {reader.GetNumberOfComponents()} values in each voxel "
            f"({sitk.GetPixelIDValueAsString(reader.GetPixelIDValue())}): colours, vectors or complex numbers.",
            "Save each channel as a volume of its own.",
        )
    try:
        Geometry.of_image(reader)
    except InputError as error:
        raise InputError(f"{path}: {error.message}", error.hint) from error


def _refuse_single_slice(size: tuple[int, ...], name: str) -> None:
    if len(size) < 3 or 1 in size:
        raise InputError(f"{name} is a 2D image, size {size}.", "USEMA segments volumes: give all slices.")


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
