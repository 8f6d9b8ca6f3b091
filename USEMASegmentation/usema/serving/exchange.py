"""Folders through which voxels go to the worker and labels come back, and which nobody shall find afterwards.

They hold a patient's voxels. So only this user may look into them; whoever made one removes it; and where that one has
crashed, the worker does, or the next application. Standard library only.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path
from typing import IO

PREFIX = "USEMA-"
_LOCK = "in-use"  # a file that is locked as long as the process that made the folder lives, however that ends


def make_folder(parent: Path) -> tuple[Path, IO[bytes]]:
    """A new folder that only this user may look into.

    Returns:
        its path, and a file in it: as long as that is open, nobody else removes the folder.

    Raises:
        OSError: nothing can be written there.
    """
    while True:
        path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))  # with the mode 0700
        lock = (path / _LOCK).open("wb")
        # Between these lines, an application that starts may have found it unlocked, and removes it.
        if _lock(lock) is not False and _is_there(path / _LOCK, lock):
            return path, lock
        lock.close()


def remove_folder(path: Path, lock: IO[bytes]) -> bool:
    """Whether it is gone: on Windows a file stays as long as the worker has it open."""
    lock.close()  # an open file stays there too
    shutil.rmtree(path, ignore_errors=True)
    return not path.exists()


def remove_abandoned(parent: Path) -> None:
    """Remove the folders of applications that crashed."""
    for path in parent.glob(f"{PREFIX}*"):
        remove_if_abandoned(path)


def remove_if_abandoned(path: Path) -> None:
    """Remove a folder that `make_folder` made, if the process that did so is gone."""
    if not path.name.startswith(PREFIX) or path.is_symlink():
        return
    try:
        with (path / _LOCK).open("r+b") as lock:
            abandoned = _lock(lock)
            if abandoned:  # still locked: whoever makes it in this moment sees that it goes
                shutil.rmtree(path, ignore_errors=True)
    except OSError:  # another user's, just removed, or no such folder
        return
    if abandoned:  # on Windows, the file that was open is still there
        shutil.rmtree(path, ignore_errors=True)


def _lock(file: IO[bytes]) -> bool | None:
    """Whether the file is this process's now; False: another has it; None: the disk knows no locks."""
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK) else None
    return True


def _is_there(path: Path, file: IO[bytes]) -> bool:
    """Whether the path still leads to this very file."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except OSError:
        return False
