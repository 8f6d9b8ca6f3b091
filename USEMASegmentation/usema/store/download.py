"""Fetches one file: from the first mirror that has it, whole and verified, or not at all.

What comes is appended to a part beside the target, which outlives a cut connection, a cancelled download and a killed
process, and is gone on from. Whether a part still belongs to the file is not asked of the server (ETags differ between
mirrors, and get lost in proxies): the SHA-256 of the whole file decides, and a part that turns out wrong costs one
more download from the beginning. Standard library only at file scope.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from ..errors import OutputError, StoreError, UsemaError
from ..files import sha256_of_file
from . import web
from .faults import Fault, shown
from .meter import Meter, Progress
from .pace import Pace
from .part import Part

RETRIES = 4  # of one mirror, in a row without a new byte
FIRST_WAIT = 1.0  # seconds before the first retry; doubled for each further one
LONGEST_WAIT = 60.0  # seconds, also where a server asks for more
SLOWEST = 1024  # bytes a second; a mirror that stays below is left
SLOW_SECONDS = 60.0  # how long; an index is left after as long
IMPORT_HINT = "Or ask for a file of the model and import it (command line: usema models import FILE)."

Source = Callable[[str, int], Iterator[bytes]]  # (address, offset) -> the bytes from there on


def fetch(
    urls: Sequence[str],
    target: str | os.PathLike,
    *,
    size: int | None,
    sha256: str | None,
    ca_bundle: str | os.PathLike | None = None,
    in_clear: Collection[str] = (),
    progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Path:
    """Downloads a file, or goes on with an earlier download. Only one process at a time may fetch the same target.

    Args:
        urls: mirrors, tried in this order; ``http(s)://``, ``file://``, or the path of a file.
        target: where to. Bytes are collected in ``<target>.part``; the target appears whole, by renaming.
        size: bytes of the file; None: nobody states it, and the first mirror that answers is asked.
        sha256: of the file, in lower-case hex; None: nobody states it, and what comes is taken if it is whole.
        ca_bundle: certificates to trust instead of the system's, see ``web.open_session``.
        in_clear: addresses that the user named, see there.
        progress: called up to ten times a second.
        should_stop: asked with every chunk; a dead connection is noticed after ``web.READ_TIMEOUT``.

    Returns:
        The target.

    Raises:
        StoreError: no mirror gave the file, or it cannot be written; says why for each, and what to do.
        Cancelled: ``should_stop`` said so; the part is kept.
        MissingDependencyError: a library for HTTP is not installed.
    """
    target = Path(target)
    try:
        if sha256 is not None and size is not None and _is_whole(target, size, sha256):
            return target
        if size is None:
            size = _announced(urls, ca_bundle, in_clear)
        meter = Meter(size, progress, should_stop)
        check = partial(meter.says, message="Checking what is here already")
        with (
            Part(target.with_name(f"{target.name}.part"), size, check) as part,
            closing(_Sources(ca_bundle, in_clear, size)) as sources,
        ):
            faults = []
            for url in urls:
                try:
                    _fetch_from(url, sources.read, part, size, sha256, meter)
                except Fault as fault:
                    faults.append((url, fault))
                    continue
                part.move_to(target)
                return target
            raise _no_mirror(faults, part.done)
    except OSError as error:
        raise disk_error(error, target.parent) from error


def _announced(urls: Sequence[str], ca_bundle: str | os.PathLike | None, in_clear: Collection[str]) -> int:
    """Bytes of a file, as the first mirror that tells it has them. Raises StoreError."""
    faults = []
    for url in urls:
        try:
            parts = urlsplit(url)
            if parts.scheme == "file" or len(parts.scheme) <= 1:
                return os.path.getsize(url2pathname(parts.path) if parts.scheme == "file" else url)
            with closing(web.open_session(ca_bundle, in_clear)) as session:
                return web.announced_size(session, url)
        except OSError as error:
            faults.append((url, Fault(f"cannot be read: {error.strerror or error}", "Check that the disk is there.")))
        except Fault as fault:
            faults.append((url, fault))
    raise _no_mirror(faults, 0)


def disk_error(error: OSError | OutputError, folder: Path) -> UsemaError:
    """What a failed write into a folder of the store means, also one that whoever made a bundle there told of."""
    if isinstance(error, OutputError):
        if not isinstance(error.__cause__, OSError):
            return error
        error = error.__cause__
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StoreError(
            f"The disk is full: {folder} takes no more data.",
            "Make room, or name a folder on another disk in USEMA_MODELS; then start again, it goes on from here.",
        )
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return StoreError(
            f"{error.filename or folder} cannot be written: {os.strerror(error.errno)}.",
            "Name a folder that you may write to in USEMA_MODELS, or ask whoever looks after this computer.",
        )
    return StoreError(
        f"{error.filename or folder} cannot be written: {error.strerror or error}.",
        "Check the disk, and what USEMA_MODELS names.",
    )


def _is_whole(path: Path, size: int, sha256: str) -> bool:
    """Whether a file is here already, as after an interrupted installation."""
    if not path.is_file() or path.stat().st_size != size:
        return False
    return sha256_of_file(path) == sha256


class _Sources:
    """Reads files from the web and from disks; opens a session only when an address needs one."""

    def __init__(self, ca_bundle: str | os.PathLike | None, in_clear: Collection[str], size: int):
        self._ca_bundle, self._in_clear, self._size, self._session = ca_bundle, in_clear, size, None

    def close(self) -> None:
        if self._session is not None:
            self._session.close()

    def read(self, url: str, offset: int) -> Iterator[bytes]:
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise Fault("is no address on the web", "Tell whoever keeps the index.") from error
        if parts.scheme == "file":
            return _read_file(url2pathname(f"//{parts.netloc}{parts.path}" if parts.netloc else parts.path), offset)
        if len(parts.scheme) <= 1:  # none, or the letter of a drive
            return _read_file(url, offset)
        if self._session is None:
            self._session = web.open_session(self._ca_bundle, self._in_clear)
        return web.read_from(self._session, url, offset, self._size, Pace(SLOWEST, SLOW_SECONDS))


def _read_file(path: str, offset: int) -> Iterator[bytes]:
    try:
        if os.path.exists(path) and not os.path.isfile(path):  # a pipe or a device could be waited for, for ever
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR) if os.path.isdir(path) else "it is no file")
        with open(path, "rb") as stream:
            stream.seek(offset)
            while chunk := stream.read(web.CHUNK):
                yield chunk
    except OSError as error:
        lasting = isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError))
        raise Fault(
            f"cannot be read: {error.strerror or error}", "Check that the disk or share is there.", again=not lasting
        ) from error


def _fetch_from(url: str, read: Source, part: Part, size: int, sha256: str | None, meter: Meter) -> None:
    """Completes the part from one mirror, in as many attempts as bring it forward. Raises Fault."""
    failures = 0
    pieces = 2 if part.done else 0  # connections that what is here came from; those of earlier runs count as several
    restarted = False
    while True:
        before = part.done
        try:
            if part.done < size:
                pieces += 1
                _read_rest(read(url, part.done), part, size, meter)
            if sha256 is None or part.sha256 == sha256:
                return
            found = part.sha256
            part.restart()
            if pieces == 1 or restarted:
                raise Fault(
                    f"is not the file that the index describes: its SHA-256 is {found}, not {sha256}",
                    "Refresh the index, then try again; if that does not help, tell whoever keeps the index.",
                )
            # The pieces may be of different versions of the file. Once more, in one piece if the connection allows.
            restarted, pieces = True, 0
        except Fault as fault:
            failures = 1 if part.done > before else failures + 1
            if not fault.again or failures > RETRIES:
                raise
            wait = FIRST_WAIT * 2 ** (failures - 1) if fault.wait is None else fault.wait
            meter.wait(min(wait, LONGEST_WAIT), part.done, fault.reason)


def _read_rest(chunks: Iterator[bytes], part: Part, size: int, meter: Meter) -> None:
    """Appends until the part has its size; what comes after that is not read. Raises Fault."""
    with closing(chunks):
        for chunk in chunks:
            part.append(chunk[: size - part.done])
            meter.downloaded(part.done)
            if part.done == size:
                return
    raise Fault("stopped: the connection was cut", "Check the network.", again=True)


def _no_mirror(faults: Sequence[tuple[str, Fault]], kept: int) -> StoreError:
    reasons = [f"{shown(url)} {fault.reason}." for url, fault in faults]
    hints = list(dict.fromkeys(fault.hint for _, fault in faults if fault.hint))
    if kept:
        hints.append(f"{kept / 1e6:.1f} MB are kept, the next download goes on from there.")
    start = (
        "The model could not be downloaded." if len(faults) == 1 else f"None of {len(faults)} addresses has the model."
    )
    return StoreError(" ".join([start, *reasons]), " ".join([*hints, IMPORT_HINT]))
