"""Where this user's files lie, how one is written whole, and the hash of one. Standard library only at file scope."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from contextlib import suppress
from pathlib import Path
from typing import IO

from .errors import MissingDependencyError, NoPlaceError, OutputError

_CHUNK = 2**20  # bytes that are hashed at a time


def user_place(variable: str, kind: str, name: str, *, title: str, what: str) -> Path:
    """A file or folder of the user's, outside the extension.

    Args:
        variable: environment variable that names it; where that is not set, the system decides.
        kind: of the system's folders, "data", "config" or "cache".
        name: of the file or folder in there.
        title: whose place it is, and ``what``, "file" or "folder": for the message.

    Raises:
        MissingDependencyError: platformdirs, which knows where that is, is not installed.
        NoPlaceError: this user has no home.
    """
    named = os.environ.get(variable)
    try:
        if named:
            return Path(named).expanduser()
        import platformdirs

        folder = getattr(platformdirs, f"user_{kind}_path")("USEMA", appauthor=False)
        if not folder.is_absolute():  # so older versions of platformdirs say that there is no home
            raise RuntimeError(folder)
        return folder / name
    except ImportError as error:
        raise MissingDependencyError(
            f"{title} need {error.name}.", f"Install it, or name a {what} in {variable}."
        ) from error
    except RuntimeError as error:  # a user id without a name, as containers and batch jobs have
        raise NoPlaceError(
            f"{title} need a home folder, and this user has none.", f"Set HOME, or name a {what} in {variable}."
        ) from error


def refuse_existing(path: Path, overwrite: bool, kind: str = "file") -> None:
    """Refuses a name that is taken: before minutes of computing, and again before what they gave is written.

    Args:
        kind: what will have this name, "file" or "folder".

    Raises:
        OutputError: there is something of this name, and it shall not or, a folder in place of a file, cannot be
            overwritten.
    """
    if kind == "file" and path.is_dir():
        raise OutputError(f"{path} is a folder.", "Give the name of a file.")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists already.", f"Name another {kind}, or ask to overwrite it (--overwrite).")


def replace_file(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all, whatever stood there; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".usema-{uuid.uuid4().hex[:12]}")  # shorter than a name may be, however long that is
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        with suppress(OSError):  # on a read-only file system this fails too, and would hide why
            temporary.unlink(missing_ok=True)


def move_into_place(temporary: Path, folder: Path) -> None:
    """Renames a folder on the same disk; what has its name is deleted afterwards, or put back if renaming fails."""
    if not folder.exists():
        temporary.rename(folder)
        return
    old = temporary.with_name(temporary.name + "-old")
    shutil.rmtree(old, ignore_errors=True)  # of a process that was killed at this very place; the folder is there
    folder.rename(old)
    try:
        temporary.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def sha256_of(stream: IO[bytes]) -> str:
    """The SHA-256 of what is still to be read of a stream, in lower-case hex; in a megabyte of memory."""
    digest = hashlib.sha256()
    while chunk := stream.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()
