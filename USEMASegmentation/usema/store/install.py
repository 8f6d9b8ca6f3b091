"""Puts a model into the cache: from an index's entry, or from a file on disk. Whole and verified, or not at all.

    lock -> room on the disk? -> download -> unpack beside the cache, verified -> rename to <name>/<version>

Other versions stay. Standard library only at file scope.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from ..errors import BundleError, MissingDependencyError, StoreError
from ..files import move_into_place
from ..models.bundle import METADATA_FILE, Bundle, read_bundle
from . import archive, cache, settings
from .download import disk_error, fetch
from .index import Entry
from .meter import Meter, Progress

_LOCK_SECONDS = 0.2  # how often somebody who waits asks whether to stop


def install(
    entry: Entry,
    *,
    progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Bundle:
    """Downloads a model, or goes on with an earlier download. Nothing happens if that version is here and whole.

    Whether the licence was accepted is the caller's to ask.

    Args:
        entry: what an index offers.
        progress: called up to ten times a second.
        should_stop: asked as often.

    Returns:
        The installed bundle.

    Raises:
        StoreError: it cannot be downloaded or written, or needs a newer USEMA; says what to do.
        BundleError: the file is what the index describes, but no valid model.
        Cancelled: ``should_stop`` said so; what has come is kept for the next time.
    """
    if entry.why_not:
        raise StoreError(entry.why_not, "Update USEMA.")
    whole = _installed(entry.name, entry.version)  # also where the cache may not be written
    if whole is not None:
        return whole
    meter = Meter(entry.file.size, progress, should_stop)
    with alone(entry.name, entry.version, meter):
        whole = _installed(entry.name, entry.version)  # by the process that was waited for
        if whole is not None:
            return whole
        file = cache.parts() / f"{entry.file.sha256}{archive.ENDING}"
        here = max(cache.size_of(file), cache.size_of(file.with_name(f"{file.name}.part")))
        _check_room(entry.title, entry.file.size - min(here, entry.file.size), entry.file.size)
        fetch(
            entry.file.urls,
            file,
            size=entry.file.size,
            sha256=entry.file.sha256,
            ca_bundle=settings.read().ca_bundle or None,
            progress=progress,
            should_stop=should_stop,
        )
        try:
            bundle = _unpack(file, entry.name, entry.version, meter)
        except BundleError:  # it is what the index describes; to unpack it again would not help
            _delete(file)
            raise
        _delete(file)
        return bundle


def install_file(
    file: str | os.PathLike,
    *,
    progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Bundle:
    """Imports a model from a ``.usema`` file or another zip of a bundle; needs no network. The file stays.

    Args:
        file: the zip.
        progress: called up to ten times a second.
        should_stop: asked as often.

    Returns:
        The installed bundle.

    Raises:
        BundleError: the file is no valid model.
        StoreError: the cache cannot be written.
        Cancelled: ``should_stop`` said so; nothing was changed.
    """
    file = Path(file)
    size = archive.unpacked_size(file)
    metadata = read_bundle(file).metadata
    whole = _installed(metadata.name, metadata.version)
    if whole is not None and whole.metadata == metadata:
        return whole
    meter = Meter(size, progress, should_stop)
    with alone(metadata.name, metadata.version, meter):
        return _unpack(file, metadata.name, metadata.version, meter)


def _delete(file: Path) -> None:
    with suppress(OSError):  # a virus scanner may hold it; it only takes room
        file.unlink()


def _installed(name: str, version: str) -> Bundle | None:
    """The bundle in the cache, if it is there and whole."""
    place = cache.place(name, version)
    if not (place / METADATA_FILE).is_file():
        return None
    try:
        bundle = read_bundle(place)
        bundle.verify()
    except BundleError:
        return None
    return bundle


def _unpack(file: Path, name: str, version: str, meter: Meter) -> Bundle:
    """Unpacks into the cache; what lay there under the same version stays until the new bundle is verified."""
    size = archive.unpacked_size(file)
    _check_room(f"{name} {version}", 0, size)
    place, staging = cache.place(name, version), cache.parts() / f"{name}-{version}.unpacked"
    shutil.rmtree(staging, ignore_errors=True)  # of a process that was killed
    try:
        metadata = archive.unpack(file, staging, partial(meter.says, message="Unpacking")).metadata
        if (metadata.name, metadata.version) != (name, version):
            raise BundleError(
                f"The file for {name} {version} holds {metadata.name} {metadata.version}.",
                "Tell whoever keeps the index.",
            )
        place.parent.mkdir(parents=True, exist_ok=True)
        move_into_place(staging, place)
    except OSError as error:
        raise disk_error(error, cache.folder()) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return read_bundle(place)


def _check_room(title: str, download: int, unpacked: int) -> None:
    """Raises StoreError if the cache's disk is too full for what is to come."""
    folder = cache.parts()
    free, needed = shutil.disk_usage(folder).free, download + unpacked
    if free < needed:
        raise StoreError(
            f"The disk is too full for {title}: {needed / 1e6:.1f} MB are needed, "
            f"{free / 1e6:.1f} MB are free in {cache.folder()}.",
            "Make room, or name a folder on another disk in USEMA_MODELS.",
        )


@contextmanager
def alone(name: str, version: str, meter: Meter) -> Iterator[None]:
    """Waits until no other process works on this version of a model. The system frees the lock of a killed process."""
    try:
        import filelock
    except ImportError as error:
        raise MissingDependencyError(
            f"Installing models needs {error.name}.", f"Install it: pip install {error.name}"
        ) from error
    lock = filelock.FileLock(cache.parts() / f"{name}-{version}.lock")
    while not lock.is_locked:
        try:
            cache.parts().mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=_LOCK_SECONDS)
        except filelock.Timeout:
            meter.says(0, "Waiting for another process that installs this model")
        except (OSError, NotImplementedError) as error:  # a share that knows no locks
            raise disk_error(error, cache.folder()) from error
    try:
        yield
    finally:
        lock.release()
