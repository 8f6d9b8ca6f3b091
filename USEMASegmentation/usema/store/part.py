"""A file under way: what has come so far, on disk beside its target, with the hash of it. Standard library only."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_CHUNK = 2**20


class Part:
    """A file to which is only appended until it is whole, and which outlives the process if anything has come.

    Args:
        path: the part; created with its folder if it is not there.
        size: bytes of the whole file. A longer part belongs to something else, and is emptied.
        check: called with the bytes looked at so far while those on disk are hashed; may raise to stop.

    Attributes:
        path: as above.
        done: bytes that have come.
    """

    def __init__(self, path: Path, size: int, check: Callable[[int], None]):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.done = 0
        self._hash = hashlib.sha256()
        # Without a buffer: what was appended is with the system even if this process is killed.
        self._file = path.open("ab+", buffering=0)
        try:
            if self._file.seek(0, os.SEEK_END) > size:
                self.restart()
            self._file.seek(0)
            while chunk := self._file.read(_CHUNK):
                self._hash.update(chunk)
                self.done += len(chunk)
                check(self.done)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Part:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if not self.done:
            with suppress(OSError):
                self.path.unlink()

    @property
    def sha256(self) -> str:
        """Of what has come, in lower-case hex."""
        return self._hash.hexdigest()

    def append(self, data: bytes) -> None:
        """Writes at the end."""
        rest = memoryview(data)
        while rest:  # a write without a buffer may take less than it was given
            rest = rest[self._file.write(rest) :]
        self._hash.update(data)
        self.done += len(data)

    def restart(self) -> None:
        """Throws away what has come."""
        self._file.truncate(0)
        self._hash = hashlib.sha256()
        self.done = 0

    def move_to(self, target: Path) -> None:
        """Gives the whole file its name, once it is safely on the disk."""
        os.fsync(self._file.fileno())
        self._file.close()  # Windows renames no open files
        os.replace(self.path, target)
