"""Which DICOM files of a folder make the one series to read.

A folder may hold more than its series: structure sets, segmentations, a localizer, a DICOMDIR, files of other kinds.
What is no image is left out with a word; what is broken is never left out in silence, for its slice would be missing.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from ..errors import InputError
from .dicom_headers import ORIGINAL_SLICES, DicomFile, Slice, looks_like_dicom, read_header
from .dicom_stack import Stack, checked_stack
from .dicom_straight import straight_voxels
from .told import NOTHING, Told, told_by

__all__ = [
    "folders_of_series",
    "is_dicom",
    "read_series",
    "scan_files",
    "slices_of_series",
    "told_of_series",
    "whole_series",
]

log = logging.getLogger(__name__)

_DIRECTORY = "DICOMDIR"  # what a disc holds, in a file of its own
_SHOWN = 5  # names in a message


def is_dicom(path: Path) -> bool:
    """Whether ``path`` is a folder or a DICOM file. Raises InputError where it cannot be opened."""
    if path.is_dir() or path.name.upper() == _DIRECTORY:
        return True
    try:
        return path.suffix.lower() == ".dcm" or looks_like_dicom(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error


def read_series(path: Path, interpolate: bool = False):
    """Read the one series in a folder (or, if it has no images itself, below it), or the series of a file.

    Args:
        interpolate: make missing slices from their neighbours, instead of refusing the series.

    Returns:
        the voxels (z, y, x), rescaled (Hounsfield units, activity), their :class:`Geometry`, and the :class:`Stack` of
        slices they came from. Where slices differ in type after rescaling, float32.

    Raises:
        InputError: no series or several, broken files, a colour series, or slices that are no even stack.
    """
    stack = checked_stack(path, slices_of_series(path), interpolate)
    return straight_voxels(stack), stack.geometry, stack


def slices_of_series(path: Path) -> list[Slice]:
    """The images of the one series in a folder, or of a file's series. Raises InputError as :func:`read_series`."""
    files = _of_file(path) if path.is_file() else _of_folder(path)
    return [one for file in files for one in file.slices()]


def told_of_series(stack: Stack) -> Told:
    """What the headers of a series say that it shows."""
    found = read_header(stack.slices[0].file)
    return NOTHING if found is None or found.header is None else told_by(found.header)


def scan(folder: Path) -> list[DicomFile]:
    """Every DICOM file of a folder, not of those in it; also what should be one by its name, but is broken."""
    try:
        paths = sorted(path for path in folder.iterdir() if path.name[0] != "." and path.is_file())
    except OSError as error:
        raise InputError(f"The folder {folder} cannot be read: {error.strerror}.") from error
    return scan_files(paths)


def scan_files(paths: Sequence[Path]) -> list[DicomFile]:
    """As :func:`scan`, of files that somebody chose, wherever they lie."""
    headers = {path: read_header(path) for path in paths if path.name.upper() != _DIRECTORY}
    files = [header for header in headers.values() if header is not None and header.fault != "it is empty"]
    patterns = {_pattern(file.path) for file in files}
    for path, header in headers.items():
        if header is None or header.fault == "it is empty":
            named_so = path.suffix.lower() == ".dcm" or _pattern(path) in patterns
            fault = header.fault if header else "it is no DICOM file"
            files += [DicomFile(path, fault=fault)] if named_so else []
    return sorted(files, key=lambda file: file.path)


def folders_of_series(top: Path) -> dict[Path, list[DicomFile]]:
    """The folders at and below ``top`` that hold DICOM images, broken ones too, and the DICOM files in each."""
    found = {}
    for folder in folders(top):
        files = scan(folder)
        if any(not file.other for file in files):
            found[folder] = files
    return found


def folders(top: Path, skip: Collection[str] = ()) -> Iterator[Path]:
    """``top`` and the folders below it, in order, each once even where links lead in circles; hidden ones left out.

    Args:
        skip: real paths of folders not to look into.
    """

    def refuse(error: OSError):
        raise InputError(f"The folder {error.filename} cannot be read: {error.strerror}.") from error

    seen = set(skip)
    for name, below, _ in os.walk(top, onerror=refuse, followlinks=True):
        real = os.path.realpath(name)
        below[:] = sorted(one for one in below if not one.startswith(".")) if real not in seen else []
        if real not in seen:
            yield Path(name)
        seen.add(real)


def _of_file(path: Path) -> list[DicomFile]:
    if path.name.upper() == _DIRECTORY:
        return _of_folder(path.parent)
    own = read_header(path) or DicomFile(path, fault="it is no DICOM file")
    if own.other:
        raise InputError(
            f"{path} is not a DICOM image but: {own.other}.",
            "Structure sets, segmentations, reports and presentation states are no images: give the series itself.",
        )
    if own.fault:
        _refuse_broken(path, [own], 1)
    if not own.series:
        raise InputError(f"{path} does not say which DICOM series it belongs to.", ORIGINAL_SLICES)
    return whole_series(path, [file for file in scan(path.parent) if file.series in (own.series, "")], own.series)


def _of_folder(path: Path) -> list[DicomFile]:
    files = scan(path)
    if not any(file.is_image for file in files):
        below = folders_of_series(path)
        files = [file for inside in below.values() for file in inside] or files
    series: dict[str, list[DicomFile]] = {}
    for file in files:
        if file.is_image:
            series.setdefault(file.series, []).append(file)
    others = [f"{file.path.name} ({file.other})" for file in files if file.other]
    if not series:
        if broken := [file for file in files if file.fault]:
            _refuse_broken(path, broken, len(broken))
        raise InputError(
            f"The folder {path} has no DICOM images{f', only {_list(others)}' if others else ''}.",
            "Pass a folder that holds the images. Structure sets, segmentations and reports are no images.",
        )
    chosen, small = _without_small(series)
    if len(chosen) > 1:
        raise InputError(
            f"The folder {path} has {len(chosen)} DICOM series: {'; '.join(_describe(one) for one in chosen)}.",
            "Pass a folder with one series, or one file of the series that you want.",
        )
    if small or others:
        log.warning("%s: left out: %s.", path, _list([*map(_describe, small), *others]))
    return whole_series(path, files, chosen[0][0].series)


def _without_small(series: dict[str, list[DicomFile]]) -> tuple[list[list[DicomFile]], list[list[DicomFile]]]:
    """Series to choose from, and those beside them that are no volumes: localizers, single images, screenshots."""
    groups = list(series.values())
    volumes = [files for files in groups if not is_small(files)]
    most = max((sum(file.frames for file in files) for files in volumes), default=0)
    small = [files for files in groups if is_small(files) and sum(file.frames for file in files) < most]
    return [files for files in groups if files not in small], small


def is_small(files: Sequence[DicomFile]) -> bool:
    """Whether images of one series are no volume by themselves: localizers, a single slice, colour screenshots."""
    if all(file.localizer or file.colour for file in files) or sum(file.frames for file in files) == 1:
        return True
    if any(file.frames > 1 for file in files):
        return False
    directions = {file.orientation for file in files}
    return len(directions) == len(files)  # no two are parallel


def whole_series(path: Path | str, files: Sequence[DicomFile], series: str) -> list[DicomFile]:
    """The images of a series. Raises InputError where files of it are broken, or may be of it and cannot say so.

    Args:
        path: what messages call it.
    """
    images = [file for file in files if file.is_image and file.series == series]
    broken = [file for file in files if file.fault and file.series in (series, "")]
    if broken:
        _refuse_broken(path, broken, len(images) + len(broken))
    localizers = [file for file in images if file.localizer]
    if 0 < len(localizers) < len(images):
        log.warning("%s: left out: localizers %s.", path, _list([file.path.name for file in localizers]))
        return [file for file in images if not file.localizer]
    return images


def _refuse_broken(path: Path | str, broken: Sequence[DicomFile], count: int) -> None:
    named = _list([f"{file.path.name} ({file.fault})" for file in broken])
    raise InputError(
        f"{path}: {len(broken)} of {count} DICOM files are broken: {named}.",
        "Copy or export them again. To go on without their slices, move these files out of the folder.",
    )


def _describe(files: Sequence[DicomFile]) -> str:
    first = files[0]
    count = sum(file.frames for file in files)
    kind = f"{first.modality}, localizer" if first.localizer else first.modality
    return f"{first.description or 'no description'} ({kind}, {count} images, for example {first.path.name})"


def _list(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:_SHOWN])} and {more} more"


def _pattern(path: Path) -> str:
    """A file's name without what differs from image to image: its words that have digits."""
    return re.sub(r"[A-Za-z]*\d[A-Za-z\d]*", "#", path.name)
