"""Installs a model of the shelf: its publisher's files are downloaded, and made into a bundle on this computer.

    agreed to? -> models that it needs -> each file, verified or recorded -> convert -> rename to <name>/<version>

A file that several models share is downloaded once and stays; others go when the model is made. Of a file whose hash
nobody publishes, the first copy's is kept, and a later one has to be like it. Standard library only at file scope.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

from .. import converters, strict_json
from ..converters import public_card
from ..converters.public import PublicFile, PublicModel, public_models
from ..errors import BundleError, OutputError, StoreError, UsemaError
from ..files import move_into_place, replace_file, sha256_of_file
from ..models.bundle import Bundle, read_bundle
from ..models.card_files import CARD_FILE
from . import cache, settings, shelf
from .consent import Question, about_entry, check
from .download import disk_error, fetch
from .install import alone, installed
from .meter import Meter, Progress

Report = Callable[[str], None]


def install_public(
    entry: shelf.PublicEntry,
    *,
    consent: Question | None = None,
    progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    report: Report = lambda sentence: None,
) -> Bundle:
    """Downloads and converts a model, and first those that it needs. Nothing happens if it is here and whole.

    Args:
        entry: of the shelf.
        consent: the question that the user was shown and said yes to; None: nobody was asked.
        progress: called up to ten times a second.
        should_stop: asked as often.
        report: called with sentences that the user should read.

    Raises:
        ConsentNeeded: the user has to be asked something else than was.
        StoreError: a file cannot be had, is another than before, or the cache cannot be written; says what to do.
        BundleError: a file is no model.
        Cancelled: ``should_stop`` said so; what has come is kept for the next time.
    """
    whole = installed(entry.name, entry.version)
    if whole is not None:
        return whole
    here = {one.name for one in shelf.needed(entry, ()) if installed(one.name, one.version)}
    together = shelf.needed(entry, here)
    questions = [about_entry(one, None) for one in together]
    for question in questions:
        check(question, consent)
    course = _Course(together, progress)
    for one in together:
        bundle = _install(one, course, should_stop, report)
    for question in questions:
        if question is not None and question.licence is not None:
            with suppress(UsemaError):  # where nothing can be kept, the next time asks again
                settings.accept(question)
    return bundle


class _Course:
    """Progress of files that come one after another, as that of all of them.

    Args:
        together: the models that they are of.
        progress: receives it.
    """

    def __init__(self, together: list[shelf.PublicEntry], progress: Callable[[Progress], None] | None):
        self._sizes = {file.url: file.size or 0 for entry in together for file in entry.model.files}
        self._done = dict.fromkeys(self._sizes, 0)
        self._progress = progress or (lambda step: None)

    def of(self, url: str) -> Callable[[Progress], None]:
        """What takes the progress of one file."""

        def tell(step: Progress) -> None:
            self._sizes[url], self._done[url] = step.total, step.done  # as the server says
            self._tell(step)

        return tell

    def here(self, url: str) -> None:
        """A file is here, wherever it came from."""
        self._done[url] = self._sizes[url]

    def between(self, step: Progress) -> None:
        """Progress of what is done with files that are here."""
        self._tell(step)

    def _tell(self, step: Progress) -> None:
        done, total = sum(self._done.values()), sum(self._sizes.values())
        left = None if step.bytes_per_second is None else (total - done) / max(step.bytes_per_second, 1)
        self._progress(replace(step, done=done, total=total, seconds_left=left))


def _install(entry: shelf.PublicEntry, course: _Course, should_stop, report: Report) -> Bundle:
    meter = Meter(entry.model.size, course.between, should_stop)
    with alone(entry.name, entry.version, meter):
        whole = installed(entry.name, entry.version)  # by the process that was waited for
        if whole is not None:
            return whole
        files = []
        for file in entry.model.files:
            files.append(_fetched(file, course.of(file.url), should_stop, report))
            course.here(file.url)
        return _converted(entry, files, meter, report)


def addresses(model: PublicModel) -> list[tuple[str, Path]]:
    """What is to be carried to a computer without a network: each address, and where its file belongs there."""
    return [(file.url, _place(file)) for file in model.files]


def to_download(together: Iterable[shelf.PublicEntry]) -> tuple[int, bool]:
    """(bytes to download for models that are installed together, whether that is all: some publishers tell no size).

    Files that lie here already, because another model shares them or somebody carried them here, are not counted.
    """
    files = {file.url: file.size for entry in together for file in entry.model.files if not _lies_here(file)}
    return sum(size or 0 for size in files.values()), None not in files.values()


def _lies_here(file: PublicFile) -> bool:
    try:
        return _place(file).is_file()
    except cache.UNREADABLE:
        return False


def _fetched(file: PublicFile, progress, should_stop, report: Report) -> tuple[Path, str]:
    """The publisher's file in the cache and its SHA-256: what lies there already or was put there, or a download."""
    target, known = _place(file), file.sha256 or _recorded().get(file.url)
    another = ""
    try:
        if target.is_file():
            found = sha256_of_file(target)
            if known in (None, found):
                return target, found
            another = f"{target} lies here, but is another file: its SHA-256 is {found}, and should be {known}. "
    except OSError as error:
        raise disk_error(error, target.parent) from error
    chosen = settings.read()
    try:
        fetch(
            [file.url],
            target,
            size=file.size,
            sha256=file.sha256,
            ca_bundle=chosen.ca_bundle or None,
            in_clear=chosen.indexes,
            progress=progress,
            should_stop=should_stop,
        )
    except UsemaError as error:
        with suppress(OSError):  # what has come stays for the next time
            target.parent.rmdir()
        if not another or not isinstance(error, StoreError):
            raise
        raise StoreError(f"{another}{error.message}", error.hint) from error
    found = file.sha256 or sha256_of_file(target)  # what is stated, fetch has compared
    if known is not None and found != known:
        target.unlink()
        raise StoreError(
            f"{target.name} is another file than the first time: its SHA-256 is {found}, and was {known}. Its "
            "publisher changed it, or somebody on the way did.",
            f"Ask the publisher ({file.url}); nothing was installed.",
        )
    if known is None:
        report(
            f"The publisher states no checksum of {target.name}: this is the first copy seen on this computer. Its "
            f"SHA-256 is {found}."
        )
    return target, found


def _converted(entry: shelf.PublicEntry, fetched: list[tuple[Path, str]], meter: Meter, report: Report) -> Bundle:
    files = [path for path, _ in fetched]
    staging, place = cache.parts() / f"{entry.name}-{entry.version}.converted", cache.place(entry.name, entry.version)
    work = converters.Work(report, partial(_says, meter), lambda: False)
    shutil.rmtree(staging, ignore_errors=True)  # of a process that was killed
    try:
        staging.mkdir(parents=True)
        bundle = converters.convert_public(files, entry.name, staging / "model", work)
        (bundle.path / CARD_FILE).write_text(public_card.markdown(entry.model), encoding="utf-8")
        place.parent.mkdir(parents=True, exist_ok=True)
        move_into_place(bundle.path, place)
    except BundleError as error:
        for file, path in zip(entry.model.files, files, strict=True):
            if file.sha256 is None:  # a web page, or half a file: the next download has to begin anew
                shutil.rmtree(path.parent, ignore_errors=True)
        raise BundleError(f"{entry.title} could not be made: {error.message}", error.hint) from error
    except (OSError, OutputError) as error:
        raise disk_error(error, cache.folder()) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    bundle = read_bundle(place)
    cache.note(bundle, entry.source)
    _record({file.url: sha256 for file, (_, sha256) in zip(entry.model.files, fetched, strict=True)})
    for file, path in zip(entry.model.files, files, strict=True):
        if not _shared(file):
            shutil.rmtree(path.parent, ignore_errors=True)
    return bundle


def _says(meter: Meter, sentence: str) -> None:
    meter.says(meter.total, sentence)


def _shared(file: PublicFile) -> bool:
    return sum(other.url == file.url for model in public_models() for other in model.files) > 1


def _place(file: PublicFile) -> Path:
    """Where a publisher's file lies: under its own name, in a folder for its address."""
    key = hashlib.sha256(file.url.encode()).hexdigest()[:16]
    return cache.sources() / key / Path(unquote(urlsplit(file.url).path)).name


def _recorded() -> dict[str, str]:
    """Address -> SHA-256 of the first copy that was converted here."""
    try:
        known = strict_json.loads((cache.sources() / "first_seen.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return {str(key): str(value) for key, value in known.items()} if isinstance(known, dict) else {}


def _record(hashes: dict[str, str]) -> None:
    text = json.dumps({**_recorded(), **hashes}, indent=2)
    with suppress(OSError):  # where nothing can be kept, nothing is compared later
        cache.sources().mkdir(parents=True, exist_ok=True)
        replace_file(cache.sources() / "first_seen.json", text.encode())
