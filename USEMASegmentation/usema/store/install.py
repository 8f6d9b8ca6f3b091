"""Puts a model into the cache: from an index's entry, or from a file or folder. Whole and verified, or not at all.

    agreed to? -> lock -> room on the disk? -> download -> unpack beside the cache, verified
        -> agreed to what the file itself says? -> rename to <name>/<version>

Other versions stay. Standard library only at file scope.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from ..errors import BundleError, MissingDependencyError, StoreError, UsemaError
from ..files import move_into_place
from ..models.bundle import METADATA_FILE, Bundle, read_bundle
from ..resources import bundled_models
from . import archive, cache, settings
from .consent import Question, about_bundle, about_entry, check, replacement
from .download import disk_error, fetch
from .index import Entry
from .meter import Meter, Progress
from .shelf import PublicEntry

_LOCK_SECONDS = 0.2  # how often somebody who waits asks whether to stop


def install(
    entry: Entry,
    *,
    consent: Question | None = None,
    progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    report: Callable[[str], None] = lambda sentence: None,
) -> Bundle:
    """Downloads a model, or goes on with an earlier download. Nothing happens if that version is here and whole.

    Args:
        entry: what an index offers.
        consent: the question that the user was shown and said yes to; None: nobody was asked.
        progress: called up to ten times a second.
        should_stop: asked as often.
        report: called with sentences that the user should read.

    Returns:
        The installed bundle.

    Raises:
        ConsentNeeded: the user has to be asked something else than was, before the download or, where the file tells
            another licence than the index, after it. Ask, and call this again: nothing is downloaded twice.
        StoreError: it cannot be downloaded or written, or needs a newer USEMA; says what to do.
        BundleError: the file is what the index describes, but no valid model.
        Cancelled: ``should_stop`` said so; what has come is kept for the next time.
    """
    if isinstance(entry, PublicEntry):
        from .shelf_install import install_public

        return install_public(entry, consent=consent, progress=progress, should_stop=should_stop, report=report)
    if entry.why_not:
        raise StoreError(entry.why_not, "Update USEMA.")
    whole = _installed_as(entry)  # also where the cache may not be written
    if whole is not None:
        return whole
    meter = Meter(entry.file.size, progress, should_stop)
    file = cache.parts() / f"{entry.file.sha256}{archive.ENDING}"
    if not cache.size_of(file):  # else it was asked before the download, and what is left to ask depends on the file
        check(about_entry(entry, _here(entry.name, entry.version)), consent)
    with alone(entry.name, entry.version, meter):
        whole = _installed_as(entry)  # by the process that was waited for
        if whole is not None:
            return whole
        here = max(cache.size_of(file), cache.size_of(file.with_name(f"{file.name}.part")))
        _check_room(entry.title, entry.file.size - min(here, entry.file.size), entry.file.size)
        chosen = settings.read()
        fetch(
            entry.file.urls,
            file,
            size=entry.file.size,
            sha256=entry.file.sha256,
            ca_bundle=chosen.ca_bundle or None,
            in_clear=chosen.indexes,
            progress=progress,
            should_stop=should_stop,
        )
        try:
            bundle = _take(
                file, entry.name, entry.version, meter, partial(_question_of_file, entry), consent, entry.source
            )
        except BundleError:  # it is what the index describes; to unpack it again would not help
            _delete(file)
            raise
        _delete(file)
        return bundle


def install_file(
    source: str | os.PathLike,
    *,
    consent: Question | None = None,
    progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Bundle:
    """Imports a model from a bundle's folder, a ``.usema`` file or another zip of it; needs no network. It stays.

    Args:
        source: the folder or the zip.
        consent: the question that the user was shown and said yes to; None: nobody was asked.
        progress: called up to ten times a second.
        should_stop: asked as often.

    Returns:
        The installed bundle.

    Raises:
        ConsentNeeded: the user has to be asked something else than was; ask, and call this again.
        BundleError: the source is no valid model.
        StoreError: the cache cannot be written.
        Cancelled: ``should_stop`` said so; nothing was changed.
    """
    source = Path(source)
    size = archive.size_of(source)
    metadata = read_bundle(source).metadata
    whole = installed(metadata.name, metadata.version)
    if whole is not None and whole.metadata == metadata:
        return whole
    meter = Meter(size, progress, should_stop)
    with alone(metadata.name, metadata.version, meter):
        return _take(source, metadata.name, metadata.version, meter, _question_of_bundle, consent, cache.FILE)


def question_of_entry(entry: Entry) -> Question | None:
    """What ``install`` will ask before it downloads an entry; None: nothing. Takes milliseconds: reads no weights."""
    return about_entry(entry, _here(entry.name, entry.version, read_bundle))


def question_of_file(source: str | os.PathLike) -> Question | None:
    """What ``install_file`` will ask; None: nothing. Takes milliseconds: reads no weights.

    Raises:
        BundleError: the source is no valid model.
    """
    bundle = read_bundle(source)
    here = _here(bundle.metadata.name, bundle.metadata.version, read_bundle)
    return (
        None if here is not None and _same_installed(here, bundle) else about_bundle(bundle, replacement(here, bundle))
    )


def _same_installed(here: Bundle, bundle: Bundle) -> bool:
    return cache.installed_at(here.path) is not None and here.metadata == bundle.metadata


def _question_of_bundle(bundle: Bundle) -> Question | None:
    return about_bundle(bundle, replacement(_here(bundle.metadata.name, bundle.metadata.version), bundle))


def _question_of_file(entry: Entry, bundle: Bundle) -> Question | None:
    """What is to be agreed to when the file of an entry is here."""
    expected = entry.file.metadata_sha256 or bundle.metadata_sha256
    if bundle.metadata_sha256 != expected:
        raise BundleError(
            f"The file for {entry.name} {entry.version} holds another {METADATA_FILE} than the index says: its "
            f"SHA-256 is {bundle.metadata_sha256}, not {expected}.",
            "Tell whoever keeps the index.",
        )
    before = about_entry(entry, _here(entry.name, entry.version))
    return about_bundle(bundle, before.replaces if before else None, entry)


def _delete(file: Path) -> None:
    with suppress(OSError):  # a virus scanner may hold it; it only takes room
        file.unlink()


def _read_whole(path: Path) -> Bundle:
    bundle = read_bundle(path)
    bundle.verify()
    return bundle


def installed(name: str, version: str, read: Callable[[Path], Bundle] = _read_whole) -> Bundle | None:
    """The bundle in the cache, if it is there and whole."""
    place = cache.place(name, version)
    try:
        return read(place) if (place / METADATA_FILE).is_file() else None
    except (BundleError, OSError):  # OSError: a cache that may not be looked at; whoever writes into it says so
        return None


def _installed_as(entry: Entry) -> Bundle | None:
    """The bundle in the cache, if it is there, whole, and what the entry offers as far as that says."""
    bundle = installed(entry.name, entry.version)
    offered = entry.file.metadata_sha256
    return bundle if bundle is not None and offered in ("", bundle.metadata_sha256) else None


def _here(name: str, version: str, read: Callable[[Path], Bundle] = _read_whole) -> Bundle | None:
    """The whole model of that name and version which is used now: installed, or what came with USEMA."""
    bundle = installed(name, version, read)
    if bundle is None and name in bundled_models():
        with suppress(UsemaError):
            bundled = read_bundle(bundled_models()[name])
            bundle = bundled if bundled.metadata.version == version else None
    return bundle


def _take(
    source: Path,
    name: str,
    version: str,
    meter: Meter,
    ask: Callable[[Bundle], Question | None],
    consent: Question | None,
    from_where: str,
) -> Bundle:
    """Puts a bundle into the cache; what lay there under the same version stays until the new one is verified.

    Args:
        source: zip or folder.
        name, version: that it has to have.
        ask: what has to be agreed to before a verified bundle is moved to its place; consent: what was.
        from_where: what is kept as the model's source.
    """
    size = archive.size_of(source)
    _check_room(f"{name} {version}", 0, size)
    place, staging = cache.place(name, version), cache.parts() / f"{name}-{version}.unpacked"
    shutil.rmtree(staging, ignore_errors=True)  # of a process that was killed
    try:
        take = archive.copy if source.is_dir() else archive.unpack
        bundle = take(source, staging, partial(meter.says, message="Unpacking"))
        metadata = bundle.metadata
        if (metadata.name, metadata.version) != (name, version):
            raise BundleError(
                f"The file for {name} {version} holds {metadata.name} {metadata.version}.",
                "Tell whoever keeps the index.",
            )
        question = ask(bundle)  # about what lies here now, whatever its source has become
        check(question, consent)
        place.parent.mkdir(parents=True, exist_ok=True)
        move_into_place(staging, place)
        cache.note(bundle, from_where)
    except OSError as error:
        raise disk_error(error, cache.folder()) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    if question is not None and question.licence is not None:
        with suppress(UsemaError):  # where nothing can be kept, the next version asks again
            settings.accept(question)
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
