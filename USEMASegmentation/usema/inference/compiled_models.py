"""Compiled models that are kept on disk, so that a model is compiled once for a computer. Never a reason to fail.

    <folder>/<key>-<SHA-256 of the content>.blob

Where nothing can be read or written, a model is compiled anew. A file that does not have its hash is not read, nor one
that somebody else may have written: OpenVINO takes it as it is.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG, S_IWOTH

from ..errors import UsemaError
from ..files import remove_abandoned, replace_file, user_place

ENVIRONMENT_VARIABLE = "USEMA_CACHE"
MOST_BYTES = 2 * 2**30  # of all together; what was not used for longest leaves first
_SUFFIX = ".blob"


def folder() -> Path:
    """Where they lie: the folder that ``USEMA_CACHE`` names, else one of the user's for what can be made again.

    Raises:
        UsemaError: this user has no such place.
    """
    return user_place(ENVIRONMENT_VARIABLE, "cache", "Compiled", title="Compiled models", what="folder")


def find(key: str) -> bytearray | None:
    """The content under a key; None if there is none, or it is damaged.

    In memory, not mapped: on a shared disk another computer may remove the file.
    """
    with suppress(OSError, UsemaError):
        for path in _own(key):
            content = bytearray(path.stat().st_size)
            with path.open("rb") as file:
                file.readinto(content)
            if path.stem == _stem(key, content):
                with suppress(OSError):
                    os.utime(path)
                return content
            path.unlink()
    return None


def holds(key: str) -> bool:
    """Whether there is something under a key, without reading it."""
    with suppress(OSError, UsemaError):
        return any(_own(key))
    return False


def keep(key: str, content: bytes) -> None:
    """Puts the content under a key, in place of what was there, and makes room."""
    with suppress(OSError, UsemaError):
        forget(key)
        replace_file(folder() / (_stem(key, content) + _SUFFIX), content)
        remove_abandoned(folder())
        _bound()


def forget(key: str) -> None:
    """Removes what is under a key."""
    with suppress(OSError, UsemaError):
        for path in folder().glob(f"{key}-*{_SUFFIX}"):
            path.unlink()


def _own(key: str) -> Iterator[Path]:
    """The files under a key that this user wrote, and nobody else could."""
    for path in folder().glob(f"{key}-*{_SUFFIX}"):
        entry = path.lstat()
        mine = not hasattr(os, "getuid") or (entry.st_uid == os.getuid() and not entry.st_mode & S_IWOTH)
        if S_ISREG(entry.st_mode) and mine:
            yield path


def _stem(key: str, content: bytes | bytearray) -> str:
    return f"{key}-{hashlib.sha256(content).hexdigest()}"


def _bound() -> None:
    files = [(path.stat(), path) for path in folder().glob(f"*{_SUFFIX}")]
    room = MOST_BYTES
    for stat, path in sorted(files, key=lambda file: file[0].st_mtime, reverse=True):
        room -= stat.st_size
        if room < 0:
            path.unlink()
