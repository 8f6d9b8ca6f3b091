"""Several volumes in one file or series, such as the phases of a heartbeat: how many, and one after the other.

A fourth dimension (NIfTI, MetaImage, NRRD as ITK writes it), an axis of kind "list" or "time" (NRRD as 3D Slicer writes
a sequence, or pynrrd), or DICOM images that lie at the same places and differ in phase, echo or time.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..errors import InputError, UsemaError
from .dicom import is_dicom, slices_of_series, told_of_series
from .dicom_phases import phases_of
from .dicom_stack import checked_stack
from .dicom_straight import straight_voxels
from .image_files import grid_of_image
from .integrity import METAIMAGE, NIFTI, check_file, file_format
from .itk_reading import IMAGE_IO, itk_reader
from .nifti import frames_in_nifti, read_nifti_frames
from .nrrd import NrrdHeader
from .paths import SEGMENTATION_SUFFIXES, check_path
from .told import told_of_file
from .volume import Volume, checked_volume


@dataclass(frozen=True)
class FrameList:
    """The frames of a file or series.

    Attributes:
        names: what tells each from the others, such as "2.5 s" or "TriggerTime 30"; its number where nothing does.
        step: how far one is from the next along the fourth dimension, in seconds where NIfTI names a unit of time; 1
            where there is no such dimension, or it does not say.
    """

    names: tuple[str, ...]
    step: float = 1.0

    def __len__(self) -> int:
        return len(self.names)


def find_frames(path: Path) -> FrameList | None:
    """The frames of a file or series, from its headers; None where it is one volume, or cannot be read."""
    try:
        check_path(path)
        if str(path).lower().endswith(SEGMENTATION_SUFFIXES):
            return None
        with _unsaid():
            found = FrameList(tuple(phases_of(slices_of_series(path)))) if is_dicom(path) else _of_file(path)
    except (UsemaError, OSError):  # reading it says why
        return None
    return found if len(found) > 1 else None


def read_frame(path: Path, number: int, count: int, *, interpolate_slices: bool = False) -> Volume:
    """One frame, as :func:`usema.volumes.volume.read_volume` reads a volume. One after the other is the quick way.

    Args:
        number: from 0, of ``count``.
        interpolate_slices: make missing slices of a DICOM series from their neighbours.

    Raises:
        InputError: it cannot be read, or cannot be segmented.
    """
    stat = path.stat()
    reader = _reader(path, (stat.st_size, stat.st_mtime_ns), interpolate_slices)
    return checked_volume(reader.read(number, count), f"{path}, frame {number + 1}")


class _Reader:
    """Goes through the frames of a path; back only by beginning anew."""

    def __init__(self, path: Path, interpolate: bool):
        self._path, self._interpolate = path, interpolate
        self._next, self._volumes = 0, iter(())

    def read(self, number: int, count: int) -> Volume:
        if number < self._next or self._next == 0:
            self._next, self._volumes = 0, _volumes(self._path, self._interpolate)
        reached, self._next = self._next, 0  # whatever ends this, the next one begins anew
        for volume in self._volumes:
            reached += 1
            if reached == number + 1:
                if reached == count:  # to the end, where a checksum is compared and the file closed
                    for _ in self._volumes:
                        pass
                else:
                    self._next = reached
                return volume
        raise InputError(f"{self._path} has no frame {number + 1}.", "It was changed: give the command again.")


@lru_cache(maxsize=1)  # a compressed file is not begun anew for each frame
def _reader(path: Path, state: tuple, interpolate: bool) -> _Reader:
    return _Reader(path, interpolate)


def _volumes(path: Path, interpolate: bool) -> Iterator[Volume]:
    if is_dicom(path):
        for slices in phases_of(slices_of_series(path)).values():
            stack = checked_stack(path, slices, interpolate)
            yield Volume(straight_voxels(stack), stack.geometry, stack, told_of_series(stack))
    elif file_format(path) == NIFTI:
        for array, geometry in read_nifti_frames(path):
            yield Volume(array, geometry, told=told_of_file(path))
    else:
        yield from _itk_volumes(path)


def _itk_volumes(path: Path) -> Iterator[Volume]:
    kind = file_format(path)
    with itk_reader(path, IMAGE_IO[kind], hint="Copy or export it again.") as reader:
        check_file(path)
        reader.ReadImageInformation()
        image = reader.Execute()
    array = sitk.GetArrayFromImage(image)
    if reader.GetDimension() == 3:  # a list of values in each voxel
        array = np.moveaxis(array, -1, 0)
    size = tuple(int(length) for length in array.shape[:0:-1])
    geometry = grid_of_image(path, kind, reader, size)
    for one in array:
        yield Volume(np.ascontiguousarray(one), geometry, told=told_of_file(path))


def _of_file(path: Path) -> FrameList:
    kind = file_format(path)
    if kind == NIFTI:
        count, step, in_seconds = frames_in_nifti(path)
        names = [f"{round(i * step, 6):g} s" if in_seconds else str(i + 1) for i in range(count)]
        return FrameList(tuple(names), step or 1.0)
    try:
        with itk_reader(path, IMAGE_IO[kind]) as reader:
            reader.ReadImageInformation()
    except InputError:
        return FrameList(())
    if reader.GetDimension() == 4 and reader.GetNumberOfComponents() == 1:
        step = reader.GetSpacing()[3]
        names = tuple(str(i + 1) for i in range(reader.GetSize()[3]))
        return FrameList(names, step if math.isfinite(step) and step > 0 else 1.0)
    axis = NrrdHeader(path).frame_axis if kind != METAIMAGE else None
    if reader.GetDimension() != 3 or axis is None:
        return FrameList(())
    count = reader.GetNumberOfComponents()
    values = _told(reader, f"axis {axis} index values").split()
    unit = _told(reader, f"axis {axis} index unit")
    named = [f"{value} {unit}".strip() for value in values]
    return FrameList(tuple(named if len(set(named)) == count else [str(i + 1) for i in range(count)]))


def _told(reader: sitk.ImageFileReader, key: str) -> str:
    return reader.GetMetaData(key).strip() if reader.HasMetaDataKey(key) else ""


@contextmanager
def _unsaid() -> Iterator[None]:
    """What is odd about a file is told when it is read: nothing is said of it in this thread before."""
    own, nobody, thread = logging.getLogger("usema"), logging.NullHandler(), threading.get_ident()
    own.addHandler(nobody)  # else Python prints what no other handler takes
    handlers = [*own.handlers, *logging.getLogger().handlers]

    def elsewhere(record: logging.LogRecord) -> bool:
        return record.thread != thread or not record.name.startswith("usema")

    for handler in handlers:
        handler.addFilter(elsewhere)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(elsewhere)
        own.removeHandler(nobody)
