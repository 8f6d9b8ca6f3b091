"""The folder through which voxels go to the worker and labels come back; it lives as long as one segmentation."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
import slicer
from usema.errors import OutputError, UsemaError

from .VolumeBridge import Box, cropped, wholeBox, worldGeometries

_PREFIX = "USEMA-"
_LOCK = "in-use"  # a file that is locked as long as the folder's process lives, however that ends
_FREE_SPACE = "Free some disk space, or choose another temporary folder in the application settings."


class ExchangeFolder:
    """A new folder in the application's temporary folder.

    Raises:
        OutputError: nothing can be written there.
    """

    def __init__(self):
        parent = _parent()
        try:
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
            self._lock = (self.path / _LOCK).open("wb")
        except OSError as error:
            raise OutputError(
                f"Nothing can be written to the temporary folder {parent}: {error.strerror}.", _FREE_SPACE
            ) from error
        _take(self._lock)

    def export(self, volumeNodes: Sequence, box: Box) -> list[dict]:
        """Write the volumes for the worker; the box is of the first, the others are resampled onto it there.

        Returns:
            the request's ``inputs``: path of the array and geometry, for each volume.

        Raises:
            OutputError: the disk is full, or not writable.
            InputError: see `worldGeometries`.
        """
        inputs = []
        for index, (node, geometry) in enumerate(zip(volumeNodes, worldGeometries(volumeNodes), strict=True)):
            part = wholeBox(node) if index else box
            path = self.path / f"channel-{index}.npy"
            try:
                np.save(path, slicer.util.arrayFromVolume(node)[part], allow_pickle=False)  # no copy in memory
            except OSError as error:
                # A write that came out short is a bare OSError of numpy's, without strerror.
                raise OutputError(
                    f"The volume cannot be written to the temporary folder {self.path.parent}: "
                    f"{error.strerror or error}.",
                    _FREE_SPACE,
                ) from error
            inputs.append({"array": str(path), "geometry": cropped(geometry, part).to_dict()})
        return inputs

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

    def remove(self) -> bool:
        """Whether it is gone: on Windows a file stays as long as the worker has it open."""
        self._lock.close()  # an open file stays there too
        shutil.rmtree(self.path, ignore_errors=True)
        return not self.path.exists()


def removeAbandoned() -> None:
    """Remove the folders of applications that crashed: they hold patients' voxels."""
    for path in _parent().glob(f"{_PREFIX}*/{_LOCK}"):
        try:
            with path.open("r+b") as lock:
                abandoned = _take(lock)
        except OSError:  # another user's, or just removed
            continue
        if abandoned:
            shutil.rmtree(path.parent, ignore_errors=True)


def _parent() -> Path:
    return Path(slicer.app.temporaryPath if hasattr(slicer, "app") else tempfile.gettempdir())


def _take(lock: IO[bytes]) -> bool:
    """Whether the file is this process's now; no where another has it, or where the disk knows no locks."""
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(lock.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
