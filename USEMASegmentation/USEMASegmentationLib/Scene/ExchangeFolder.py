"""The folder through which voxels go to the worker and labels come back; it lives as long as one segmentation."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import slicer
from usema.errors import OutputError, UsemaError
from usema.serving.exchange import make_folder, remove_abandoned, remove_folder

from .Images import described, withoutTransparency
from .VolumeBridge import Box, cropped, wholeBox, worldGeometries

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
        """Write the volumes for the worker; the box is of the first, the others are resampled onto it there.

        Args:
            under: see `worldGeometries`.
            images: a model for two-dimensional images will see them.

        Returns:
            the request's ``inputs``: path of the array and geometry, for each volume.

        Raises:
            OutputError: the disk is full, or not writable.
            InputError: see `worldGeometries`.
        """
        inputs, geometries = [], worldGeometries(volumeNodes, under)
        for index, (node, geometry) in enumerate(zip(volumeNodes, geometries, strict=True)):
            part = wholeBox(node) if index else box
            path = self.save(_channel(index), _voxels(node)[part])  # no copy in memory
            geometry = cropped(geometry, part).to_dict()
            inputs.append({"array": path, "geometry": geometry, **(described(node) if images else {})})
        return inputs

    def save(self, name: str, array: np.ndarray) -> str:
        """Write an array for the worker; gives its path.

        Raises:
            OutputError: the disk is full, or not writable.
        """
        path = self.path / name
        try:
            np.save(path, array, allow_pickle=False)
        except OSError as error:
            # A write that came out short is a bare OSError of numpy's, without strerror.
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

    def holds(self, volumeNodes: Sequence, box: Box) -> bool:
        """Whether the volumes still have the voxels that were written."""
        for index, node in enumerate(volumeNodes):
            written = np.load(self.path / _channel(index), mmap_mode="r", allow_pickle=False)
            part = _voxels(node)[wholeBox(node) if index else box]
            if not np.array_equal(written, part, equal_nan=part.dtype.kind == "f"):
                return False
        return True

    def remove(self) -> bool:
        """Whether it is gone: on Windows a file stays as long as the worker has it open."""
        return remove_folder(self.path, self._lock)


def removeAbandoned() -> None:
    """Remove the folders of applications that crashed: they hold patients' voxels."""
    remove_abandoned(_parent())


def _voxels(volumeNode) -> np.ndarray:
    return withoutTransparency(slicer.util.arrayFromVolume(volumeNode))


def _channel(index: int) -> str:
    return f"channel-{index}.npy"


def _parent() -> Path:
    return Path(slicer.app.temporaryPath if hasattr(slicer, "app") else tempfile.gettempdir())
