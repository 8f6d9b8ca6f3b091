"""The volumes in a tree of folders: files that are volumes, and folders with a DICOM series."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from .dicom import folders, is_small, scan
from .dicom_headers import DicomFile
from .paths import SEGMENTATION_SUFFIXES, picture_suffix, volume_suffix


@dataclass(frozen=True)
class Found:
    """What lies in a tree.

    Attributes:
        volumes: what :func:`usema.volumes.volume.read_volume` takes, in order: files, and folders of one series.
        left_out: files beside them that could be taken for volumes, each with the reason.
    """

    volumes: tuple[Path, ...]
    left_out: tuple[tuple[Path, str], ...]


def find_pictures(top: Path, skip: Collection[Path] = ()) -> Found:
    """As :func:`find_volumes`, for two-dimensional images: each DICOM image is one, of whatever series."""
    skipped = {os.path.realpath(path) for path in skip}
    pictures, left_out = [], []
    for folder in folders(top, skipped):
        dicom = {file.path: file for file in scan(folder)}
        try:
            files = sorted(path for path in folder.iterdir() if path.name[0] != "." and not path.is_dir())
        except OSError as error:
            raise InputError(f"The folder {folder} cannot be read: {error.strerror}.") from error
        for path in files:
            own, named = dicom.get(path), picture_suffix(path) or volume_suffix(path)
            if path.name.lower().endswith(SEGMENTATION_SUFFIXES):
                left_out.append((path, "a segmentation, not an image"))
            elif own is not None and own.other:
                left_out.append((path, f"not a DICOM image but: {own.other}"))
            elif own is not None or (named and not is_second_of_pair(path, files)):
                pictures.append(path)
    return Found(tuple(sorted(pictures)), tuple(sorted(left_out)))


def find_volumes(top: Path, skip: Collection[Path] = ()) -> Found:
    """The volumes in a folder and below it; hidden files and folders are none.

    A folder with DICOM images is one volume: files of other formats in it (a mask that somebody saved there) are left
    out, and so are segmentations of 3D Slicer everywhere. A series whose images lie in several folders is the folder
    that holds them all.

    Args:
        skip: folders not to look into, for example where results go.

    Raises:
        InputError: a folder cannot be read.
    """
    skipped = {os.path.realpath(path) for path in skip}
    volumes, left_out = [], []
    series: dict[Path, list[DicomFile]] = {}
    for folder in folders(top, skipped):
        try:
            files = sorted(path for path in folder.iterdir() if path.name[0] != "." and not path.is_dir())
        except OSError as error:
            raise InputError(f"The folder {folder} cannot be read: {error.strerror}.") from error
        dicom = scan(folder)
        broken = [file for file in dicom if file.fault]
        is_series = any(file.is_image for file in dicom)
        if is_series or (broken and not any(volume_suffix(path) for path in files)):
            series[folder] = dicom
        else:
            left_out += [(file.path, f"a DICOM file, but {file.fault}") for file in broken]
        for path in files:
            name = path.name.lower()
            if name.endswith(SEGMENTATION_SUFFIXES):
                left_out.append((path, "a segmentation, not an image"))
            elif volume_suffix(path) and not is_second_of_pair(path, files):
                if not path.is_file():
                    left_out.append((path, "no regular file"))
                elif is_series:
                    left_out.append((path, "it lies in the folder of a DICOM series; name the file to segment it"))
                else:
                    volumes.append(path)
    whole = _joined(top, series)
    small = [folder for folder in whole if _is_small(series.get(folder, ()))]
    if len(small) < len(volumes) + len(whole):
        left_out += [(folder, "a localizer or a single DICOM image, no volume") for folder in small]
        whole = [folder for folder in whole if folder not in small]
    volumes += whole
    return Found(tuple(sorted(volumes)), tuple(sorted(left_out)))


def _is_small(files: Sequence[DicomFile]) -> bool:
    """Whether a folder has images, whole ones, that are no volume by themselves."""
    images = [file for file in files if not file.other]
    return (
        bool(images)
        and all(file.is_image for file in images)
        and all(is_small([file for file in images if file.series == uid]) for uid in {file.series for file in images})
    )


def is_second_of_pair(path: Path, files: Iterable[Path]) -> bool:
    """Whether it is the voxels that a header file beside it names; the header stands for both."""
    suffix = volume_suffix(path)
    if not suffix.startswith(".img"):
        return False
    stem = path.name[: -len(suffix)].lower()
    return any(other.name.lower() in (f"{stem}.hdr", f"{stem}.hdr.gz") for other in files)


def _joined(top: Path, series: dict[Path, list[DicomFile]]) -> list[Path]:
    """The folders to read: those of ``series``, but the common one where a single series is spread over several."""
    spread: dict[str, list[Path]] = {}
    for folder, files in series.items():
        for uid in {file.series for file in files if file.is_image}:
            spread.setdefault(uid, []).append(folder)
    common_of: dict[Path, Path] = {}
    for uid, places in spread.items():
        if len(places) < 2 or not uid:
            continue
        instances = [
            {file.instance for file in series[place] if file.is_image and file.series == uid} for place in places
        ]
        if len(set.union(*instances)) < sum(map(len, instances)):
            continue  # the same images twice: a copy of the series, not a part of it
        common = Path(os.path.commonpath(places))
        inside = [place for place in series if place == common or common in place.parents]
        if set(inside) == set(places) and common not in places and (common == top or top in common.parents):
            common_of |= dict.fromkeys(places, common)
    return list(dict.fromkeys(common_of.get(place, place) for place in series))
