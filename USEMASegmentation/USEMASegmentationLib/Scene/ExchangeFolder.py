"""The folder through which voxels go to the worker and labels come back; it lives as long as one segmentation."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import slicer
from usema.errors import InputError, OutputError, UsemaError
from usema.serving.exchange import make_folder, remove_abandoned, remove_folder

from ..Steps import Working, atOnce, inSlabs
from .Images import described, withoutTransparency
from .VolumeBridge import Box, cropped, wholeBox, worldGeometries

_MOST_TIMES = 4  # that a volume is written because its voxels changed meanwhile
_FREE_SPACE = "Free some disk space, or choose another temporary folder in the application settings."


class ExchangeFolder:
    """A new folder in the application's temporary folder.

    Raises:
        OutputError: nothing can be written there.
    """

    def __init__(self):
        parent = _parent()
        try:
            self.path, self._lock = make_folder(parent)
        except OSError as error:
            raise OutputError(
                f"Nothing can be written to the temporary folder {parent}: {error.strerror}.", _FREE_SPACE
            ) from error

    def export(
        self, volumeNodes: Sequence, box: Box, under: Sequence | None = None, images: bool = False
    ) -> list[dict]:
        """As `exporting`, without a pause."""
        return atOnce(self.exporting(volumeNodes, box, under, images))

    def exporting(
        self, volumeNodes: Sequence, box: Box, under: Sequence | None = None, images: bool = False
    ) -> Working:
        """Writes the volumes for the worker, a moment at a time; the box is of the first, the others are resampled
        onto it there. Voxels that change meanwhile are written anew.

        Args:
            under: see `worldGeometries`.
            images: a model for two-dimensional images will see them.

        Returns:
            the request's ``inputs``: path of the array and geometry, for each volume.

        Raises:
            OutputError: the disk is full, or not writable.
            InputError: see `worldGeometries`; or the voxels change all the time.
        """
        inputs, geometries = [], worldGeometries(volumeNodes, under)
        for index, (node, geometry) in enumerate(zip(volumeNodes, geometries, strict=True)):
            part = wholeBox(node) if index else box
            for _ in range(_MOST_TIMES):
                image, time = node.GetImageData(), node.GetImageData().GetMTime()
                unchanged = functools.partial(_hasTime, image, time)  # of this image, not of another in its place
                path = yield from self._saving(_channel(index), _voxels(node)[part], unchanged)
                if unchanged():
                    break
            else:
                raise InputError(
                    f"The voxels of '{node.GetName()}' change all the time: they cannot be sent to the engine.",
                    "Stop what changes them, then segment again.",
                )
            geometry = cropped(geometry, part).to_dict()
            inputs.append({"array": path, "geometry": geometry, **(described(node) if images else {})})
        return inputs

    def save(self, name: str, array: np.ndarray) -> str:
        """Write an array for the worker; gives its path.

        Raises:
            OutputError: the disk is full, or not writable.
        """
        return atOnce(self._saving(name, array))

    def _saving(self, name: str, array: np.ndarray, unchanged: Callable[[], bool] = lambda: True) -> Working:
        path, about = self.path / name, np.lib.format.header_data_from_array_1_0(array)
        try:
            with path.open("wb") as file:
                np.lib.format.write_array_header_1_0(file, {**about, "fortran_order": False})

                def write(part: slice) -> bool:
                    if unchanged():  # else its memory may be gone
                        file.write(np.ascontiguousarray(array[part]).data)
                        return True
                    return False

                yield from inSlabs(array.shape, write)
        except OSError as error:
            raise OutputError(
                f"Voxels cannot be written to the temporary folder {self.path.parent}: {error.strerror or error}.",
                _FREE_SPACE,
            ) from error
        return str(path)

    @staticmethod
    def load(path: str, shape: tuple[int, ...]) -> np.ndarray:
        """Read an array that the worker wrote.

        Raises:
            UsemaError: it cannot be read, or is not of this shape.
        """
        try:
            array = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise OutputError(f"The engine's result cannot be read: {error}.", _FREE_SPACE) from error
        if array.shape != shape:
            raise UsemaError(f"The engine's result has the shape {array.shape}, not {shape}.", "Please report it.")
        return array

    @staticmethod
    def loadText(path: str) -> str:
        """Read a text that the worker wrote.

        Raises:
            OutputError: it cannot be read.
        """
        try:
            return Path(path).read_text("utf-8")
        except (OSError, ValueError) as error:
            raise OutputError(f"The engine's result cannot be read: {error}.", _FREE_SPACE) from error

    def comparing(self, volumeNodes: Sequence, box: Box) -> Working:
        """Looks, a moment at a time, whether the volumes still have the voxels that were written; returns that."""
        for index, node in enumerate(volumeNodes):
            if not (yield from self._comparing(index, node, box)):
                return False
        return True

    def _comparing(self, index: int, node, box: Box) -> Working:
        written, same = np.load(self.path / _channel(index), mmap_mode="r", allow_pickle=False), []

        def compare(part: slice) -> bool:
            now = _voxels(node)[wholeBox(node) if index else box]  # whatever image it has by now
            fits = written.shape == now.shape and written.dtype == now.dtype
            same.append(fits and np.array_equal(written[part], now[part], equal_nan=now.dtype.kind == "f"))
            return same[-1]

        yield from inSlabs(written.shape, compare)
        return all(same)

    def remove(self) -> bool:
        """Whether it is gone: on Windows a file stays as long as the worker has it open."""
        return remove_folder(self.path, self._lock)


def removeAbandoned() -> None:
    """Remove the folders of applications that crashed: they hold patients' voxels."""
    remove_abandoned(_parent())


def _hasTime(image, time: int) -> bool:
    return image.GetMTime() == time


def _voxels(volumeNode) -> np.ndarray:
    return withoutTransparency(slicer.util.arrayFromVolume(volumeNode))


def _channel(index: int) -> str:
    return f"channel-{index}.npy"


def _parent() -> Path:
    return Path(slicer.app.temporaryPath if hasattr(slicer, "app") else tempfile.gettempdir())
