"""A DICOM series: the one set of parallel, evenly spaced slices in a folder.

ITK reads whatever files it is given as a stack, so what makes them a volume is checked here first, from the headers:
one series, one orientation, one size and pixel spacing, every slice where an even stack has it (PS3.3 C.7.6.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..errors import InputError
from .itk_messages import itk_reason, itk_warnings_logged

# Tags as SimpleITK spells them.
_DESCRIPTION, _MODALITY, _SERIES = "0008|103e", "0008|0060", "0020|000e"
_POSITION, _ORIENTATION, _PIXEL_SPACING = "0020|0032", "0020|0037", "0028|0030"
_SAMPLES, _FRAMES = "0028|0002", "0028|0008"

# A slice may lie this part of the slice distance from its place in an even stack: positions rounded to 0.1 mm at
# 1.25 mm distance need 0.04; one missing slice makes it 0.5 and more.
_PLACE_TOLERANCE = 0.1
# Degrees between the stack and the slice normal. At 0.1 the last of 300 mm of slices would lie 0.5 mm off.
_TILT_TOLERANCE = 0.1
_SAME_ORIENTATION = 1e-3  # largest difference of direction cosines
_SAME_PLACE = 1e-3  # mm
_ORIGINAL_SLICES = "Give the original slices, not screenshots or secondary captures."


@dataclass(frozen=True)
class _Slice:
    file: str
    position: np.ndarray  # (3,) LPS mm, centre of the first pixel
    orientation: np.ndarray  # (6,) direction of the rows, direction of the columns
    spacing: tuple[float, float]  # mm between rows, between columns
    size: tuple[int, int]
    pixel_type: int


def is_dicom(path: Path) -> bool:
    """Whether ``path`` is a folder or a DICOM file. Raises InputError where it cannot be opened."""
    if path.is_dir():
        return True
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM" or path.suffix.lower() == ".dcm"
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error


def read_series(path: Path) -> sitk.Image:
    """Read the one series in a folder, or the series that a file belongs to.

    Voxels are the rescaled values (Hounsfield units, activity); where slices differ in type after rescaling, float32.

    Raises:
        InputError: no series or several, a colour or multi-frame one, or slices that are no even, straight stack.
    """
    with itk_warnings_logged(path):
        slices = _checked_stack(path, [_read_slice(file) for file in _series_files(path)])
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames([one.file for one in slices])
        # ITK takes the type of the first slice for all and would cut the others' fractions (PET rescales each slice).
        if len({one.pixel_type for one in slices}) > 1:
            reader.SetOutputPixelType(sitk.sitkFloat32)
        try:
            return reader.Execute()
        except RuntimeError as error:
            raise InputError(f"{path} cannot be read: {itk_reason(error)}.") from error


def _series_files(path: Path) -> tuple[str, ...]:
    if path.is_file():
        series = _tag(_read_header(str(path)), _SERIES)
        files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(path.parent), series)
        if path.name not in {Path(file).name for file in files}:  # without a series, GDCM gives some other one
            raise InputError(f"{path} does not say which DICOM series it belongs to.", _ORIGINAL_SLICES)
        return files
    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(path))
    if not series:
        raise InputError(
            f"The folder {path} has no DICOM images.",
            "Pass the folder that itself holds the images, not one above it. Structure sets and reports are no images.",
        )
    files = [sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(path), one) for one in series]
    if len(files) > 1:
        raise InputError(
            f"The folder {path} has {len(files)} DICOM series: {'; '.join(_describe(names) for names in files)}.",
            "Pass a folder with one series, or one file of the series that you want.",
        )
    return files[0]


def _describe(files: tuple[str, ...]) -> str:
    header = _read_header(files[0])
    description = _tag(header, _DESCRIPTION) or "no description"
    return f"{description} ({_tag(header, _MODALITY)}, {len(files)} images, for example {Path(files[0]).name})"


def _read_header(file: str) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetFileName(file)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise InputError(
            f"{file} is not a DICOM image.", "Structure sets, reports and presentation states hold no voxels."
        ) from error
    return reader


def _tag(header: sitk.ImageFileReader, tag: str) -> str:
    if not header.HasMetaDataKey(tag):
        return ""
    # SimpleITK hands on the file's bytes; Latin-1 is the commonest where they are not UTF-8.
    value = header.GetMetaData(tag).encode("utf-8", "surrogateescape")
    try:
        return value.decode("utf-8").strip(" \0")
    except UnicodeDecodeError:
        return value.decode("latin-1").strip(" \0")


def _read_slice(file: str) -> _Slice:
    header = _read_header(file)
    if _tag(header, _FRAMES) not in ("", "1"):
        raise InputError(
            f"{file} is a multi-frame DICOM file with {_tag(header, _FRAMES)} frames.",
            "Convert it to NIfTI or NRRD first, for example with 3D Slicer.",
        )
    if _tag(header, _SAMPLES) not in ("", "1"):
        raise InputError(f"{file} is a colour image.", "Give a series with one intensity per voxel.")
    position = _numbers(header, _POSITION, 3)
    orientation = _numbers(header, _ORIENTATION, 6)
    spacing = _numbers(header, _PIXEL_SPACING, 2)
    if min(spacing) <= 0:
        raise InputError(f"{file} gives a pixel spacing of {spacing[0]:g}, {spacing[1]:g} mm.", _ORIGINAL_SLICES)
    return _Slice(
        file, position, orientation, tuple(spacing.round(4).tolist()), header.GetSize()[:2], header.GetPixelIDValue()
    )


def _numbers(header: sitk.ImageFileReader, tag: str, count: int) -> np.ndarray:
    """The numbers that place a slice in the patient; ITK would fill in defaults where they are missing."""
    text = _tag(header, tag)
    try:
        values = np.array(text.split("\\"), float)
    except ValueError:
        values = np.empty(0)
    if len(values) != count or not np.isfinite(values).all():
        raise InputError(
            f"{header.GetFileName()} has {text!r} in DICOM tag ({tag.replace('|', ',')}).", _ORIGINAL_SLICES
        )
    return values


def _checked_stack(path: Path, slices: list[_Slice]) -> list[_Slice]:
    """The slices in order along their normal. Raises InputError where they are no straight, even stack."""
    first = slices[0]
    if len(slices) == 1:
        raise InputError(f"{path} holds a single DICOM slice, a 2D image.", "USEMA segments volumes: give all slices.")
    if any(np.abs(one.orientation - first.orientation).max() > _SAME_ORIENTATION for one in slices):
        raise InputError(
            f"The series in {path} has slices in more than one orientation.",
            "Give a series of parallel slices, without localisers.",
        )
    for what in ("size", "spacing"):
        if others := {getattr(one, what) for one in slices} - {getattr(first, what)}:
            raise InputError(
                f"The series in {path} has images of different {what}: {getattr(first, what)} and {others.pop()}.",
                "Give a series of equal slices, without localisers.",
            )

    normal = np.cross(first.orientation[:3], first.orientation[3:])
    # GDCM sorts by other things than the position where two slices share one; the messages below need this order.
    slices = sorted(slices, key=lambda one: one.position @ normal)
    positions = np.array([one.position for one in slices])
    heights = positions @ normal
    gaps = np.diff(heights)
    if gaps.min() < _SAME_PLACE:
        raise InputError(
            f"The series in {path} has more than one image at the same place ({heights[gaps.argmin()]:.2f} mm along "
            "the stack): several phases, echoes or time points.",
            "Give the images of one of them.",
        )
    step = (positions[-1] - positions[0]) / (len(slices) - 1)
    distance = np.linalg.norm(step)
    misplaced = np.linalg.norm(positions - positions[0] - np.arange(len(slices))[:, None] * step, axis=1)
    if misplaced.max() > _PLACE_TOLERANCE * distance:
        usual = np.median(gaps)
        odd = np.abs(gaps - usual).argmax()
        raise InputError(
            f"The series in {path} has missing or unevenly spaced slices: from {heights[odd]:.2f} to "
            f"{heights[odd + 1]:.2f} mm along the stack the gap is {gaps[odd]:.2f} mm, elsewhere {usual:.2f} mm.",
            "Add the missing slices, or resample the series to even spacing first.",
        )
    tilt = np.degrees(np.arccos(min(1.0, step @ normal / distance)))
    if tilt > _TILT_TOLERANCE:
        raise InputError(
            f"The series in {path} was acquired with a tilted gantry ({tilt:.1f} degrees): its voxels are sheared.",
            "Resample it to a straight grid first, for example with 3D Slicer's DICOM module.",
        )
    return slices
