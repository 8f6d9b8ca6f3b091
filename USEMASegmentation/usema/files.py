"""Where this user's files lie, how one is written whole, and the hash of one. Standard library only at file scope."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO

from .errors import MissingDependencyError, NoPlaceError, OutputError

_CHUNK = 2**20  # bytes that are hashed at a time
_TEMPORARY = re.compile(r"\.usema-([0-9a-f]{8})-(\d+)-[0-9a-f]{8}(\.[a-z.]+)?")
_ABANDONED_SECONDS = 24 * 3600  # nothing is written for so long


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
            overwritten; or it is a link that leads to nothing.
    """
    if path.is_symlink() and not path.exists():
        raise OutputError(
            f"{path} is a link to {os.readlink(path)}, which leads to no file.", f"Delete it, or name another {kind}."
        )
    if kind == "file" and path.is_dir():
        raise OutputError(f"{path} is a folder.", "Give the name of a file.")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists already.", f"Name another {kind}, or ask to overwrite it (--overwrite).")


def through_links(path: Path) -> Path:
    """The file that is meant by a link to it, which is written in place of the link; other paths as they are."""
    return Path(os.path.realpath(path)) if path.is_symlink() and not path.is_dir() else path


def temporary_beside(path: Path, suffix: str = "") -> Path:
    """A name that nothing has, on the same disk, for what shall be called ``path`` when it is whole.

    Of a link, it lies beside the file that the link leads to. It tells whose it is, so that what a killed process left
    can go. It is shorter than a name may be, however long that of ``path`` is.
    """
    return through_links(path).with_name(f".usema-{_numbering()}-{os.getpid()}-{uuid.uuid4().hex[:8]}{suffix}")


def remove_abandoned(folder: Path) -> None:
    """Remove from a folder what processes that are gone left under names of ``temporary_beside``.

    The number of the process tells it on this computer, and the age of what it left where the folder is shared.
    """
    with suppress(OSError):  # it may be another user's, or not be there any more
        for path in folder.glob(".usema-*"):
            found = _TEMPORARY.fullmatch(path.name)
            if found is None:
                continue
            gone = found[1] == _numbering() and not _is_running(int(found[2]))
            if gone or time.time() - path.lstat().st_mtime > _ABANDONED_SECONDS:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


@contextmanager
def whole_file(path: Path, temporary: Path | None = None) -> Iterator[Path]:
    """A file to be written, which is called ``path`` once the block ends well; else what stood there stays.

    A link stays, too: the file that it leads to is replaced.

    Args:
        temporary: its name until then, on the same disk; by default one that nothing has.
    """
    temporary = temporary or temporary_beside(path)
    try:
        yield temporary
        temporary.replace(through_links(path))
    finally:
        with suppress(OSError):  # on a read-only file system this fails too, and would hide why
            temporary.unlink(missing_ok=True)


def replace_file(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all, whatever stood there; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        temporary.write_bytes(data)


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


@cache
def _numbering() -> str:
    """Where the numbers of processes mean what they mean here: this computer since it started, and this container."""
    places = [platform.node()]
    with suppress(OSError):  # only Linux tells
        places += [Path("/proc/sys/kernel/random/boot_id").read_text(), os.readlink("/proc/self/ns/pid")]
    return hashlib.sha256(" ".join(places).encode("utf-8", "replace")).hexdigest()[:8]


def _is_running(number: int) -> bool:
    """Whether there is a process of this number; True where that cannot be asked without harm."""
    if os.name == "nt":  # there, 0 is Ctrl+C
        return True
    try:
        os.kill(number, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # another user's
        return True
    return True


def sha256_of(stream: IO[bytes]) -> str:
    """The SHA-256 of what is still to be read of a stream, in lower-case hex; in a megabyte of memory."""
    digest = hashlib.sha256()
    while chunk := stream.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def sha256_of_file(path: Path) -> str:
    """As ``sha256_of``, of a whole file. Raises OSError."""
    with path.open("rb") as stream:
        return sha256_of(stream)
