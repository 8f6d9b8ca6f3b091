"""Puts a model that lies on this computer into the cache: one of USEMA's own, or of another program, converted.

Which programs' models can be converted, ``usema.converters`` knows; nothing here does. Standard library only at file
scope.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .. import converters
from ..converters import Model, Options, Work
from ..errors import InputError, OutputError, StoreError
from ..files import move_into_place
from ..models.bundle import METADATA_FILE, Bundle, read_bundle
from . import archive, cache
from .consent import Question
from .download import disk_error
from .install import alone, install_file, question_of_file
from .library import library
from .meter import Meter, Progress
from .shelf import PublicEntry

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_OURS = {"schema_version", "labels", "weights", "preprocessing", "architecture"}  # keys of a bundle's model.json
_MOST_JSON = 2**24  # bytes


@dataclass(frozen=True)
class OwnModel:
    """A model of USEMA's own; see ``usema.converters.Model``."""

    key: str
    short: str
    summary: str


def look(path: str | os.PathLike) -> list[Model]:
    """The models in a file or folder, to choose from.

    Raises:
        BundleError: there are none, or they cannot be used; says what to do.
    """
    if not is_own(path):
        return converters.look(path)
    metadata = read_bundle(_bundle_folder(path)).metadata
    return [OwnModel(metadata.name, metadata.name, f"{metadata.title} {metadata.version}")]


def is_own(path: str | os.PathLike) -> bool:
    """Whether a file or folder is a bundle of USEMA's, by what it is called or holds; it need not be whole."""
    path = _bundle_folder(path)
    if path.is_dir() or path.suffix == archive.ENDING:
        return path.suffix == archive.ENDING or _says_ours(path / METADATA_FILE)
    if not path.is_file():  # a named pipe would never end
        return False
    try:
        with zipfile.ZipFile(path) as zipped:
            places = [PurePosixPath(name) for name in zipped.namelist()]
            ours = [place for place in places if place.name == METADATA_FILE and len(place.parts) <= 2]
            return any(_says_ours(zipfile.Path(zipped, str(place))) for place in ours)
    except (zipfile.BadZipFile, OSError):
        return False


def _says_ours(file: Path | zipfile.Path) -> bool:
    """Whether a ``model.json`` is a bundle's, as a damaged one is taken to be: other programs have that name too."""
    if not file.is_file():
        return False
    try:
        with file.open("rb") as stream:
            document = json.loads(stream.read(_MOST_JSON))
    except (OSError, ValueError, RecursionError, RuntimeError, NotImplementedError, zlib.error, zipfile.BadZipFile):
        return True
    return not isinstance(document, dict) or not document or not _OURS.isdisjoint(document)


def question_of(path: str | os.PathLike) -> Question | None:
    """What ``import_model`` will ask; None: nothing, as for models of other programs, which tell no terms.

    Raises:
        BundleError: it is a model of USEMA's own that cannot be used.
    """
    return question_of_file(_bundle_folder(path)) if is_own(path) else None


def import_model(
    path: str | os.PathLike,
    *,
    wanted: Sequence[str] = (),
    options: Options | None = None,
    consent: Question | None = None,
    report: Callable[[str], None] = lambda sentence: None,
    progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Bundle:
    """Installs a model from a file or folder; needs no network. What it came from stays as it is.

    Args:
        path: a ``.usema`` file, a bundle's folder, a zip of it, or what ``usema.converters`` knows.
        wanted, options: for models of other programs, see ``usema.converters.convert``.
        consent: the question that the user was shown and said yes to; None: nobody was asked.
        report: called with sentences that the user should read.
        progress: called up to ten times a second.
        should_stop: asked as often.

    Raises:
        InputError: the choice does not fit; says between what to choose.
        BundleError: it is no valid model, or none that can be converted.
        ConsentNeeded: the user has to be asked something else than was; ask, and call this again.
        StoreError: the cache cannot be written, or another model has that name.
        Cancelled: ``should_stop`` said so; nothing was changed.
    """
    options = options or Options()
    if options.name and not _NAME.fullmatch(options.name):
        raise InputError(f"{options.name!r} is no name of a model.", "Use small letters, digits and hyphens.")
    if options.orientation and not _is_orientation(options.orientation):
        raise InputError(
            f"{options.orientation!r} is no orientation.",
            "Name one of L and R, P and A, S and I, in order: LPS, RAS, ...",
        )
    if is_own(path):
        if wanted or options != Options():
            raise InputError(
                f"{path} is a model of USEMA's own, which says all of itself.", "Import it without further options."
            )
        return install_file(_bundle_folder(path), consent=consent, progress=progress, should_stop=should_stop)
    meter = Meter(0, progress, should_stop)
    work = Work(report, lambda sentence: meter.says(0, sentence), should_stop or (lambda: False))
    with _staging() as staging:
        bundle = converters.convert(path, staging / "model", wanted, options, work)
        return _install_converted(bundle, meter, named=bool(options.name))


def _bundle_folder(path: str | os.PathLike) -> Path:
    """What the user named; its ``model.json`` stands for a bundle's folder."""
    path = Path(path)
    return path.parent if path.name == METADATA_FILE and path.is_file() else path


def _is_orientation(letters: str) -> bool:
    kinds = ["LR", "PA", "SI"]
    found = [next((kind for kind in kinds if letter in kind), "") for letter in letters.upper()]
    return sorted(found) == sorted(kinds)


def _install_converted(bundle: Bundle, meter: Meter, named: bool) -> Bundle:
    metadata = bundle.metadata
    with alone(metadata.name, metadata.version, meter):
        known = library().get(metadata.name)
        if known is not None and known.path is None:
            # A name of the shelf that the converter gives by itself: downloading it would make this very model.
            if named or not isinstance(known.entry, PublicEntry):
                raise StoreError(
                    f"{metadata.name!r} is the name of another model, which can be downloaded.",
                    "Import this one under another name (command line: --name).",
                )
        elif known is not None:
            if known.bundle is not None and known.bundle.metadata == metadata:
                return known.bundle
            raise StoreError(
                f"There is a model called {metadata.name!r} already, and it is another one.",
                "Import this one under another name (command line: --name), or remove that one first.",
            )
        place = cache.place(metadata.name, metadata.version)
        place.parent.mkdir(parents=True, exist_ok=True)
        move_into_place(bundle.path, place)
        cache.note(bundle, cache.FILE)
    return read_bundle(place)


@contextmanager
def _staging():
    """A folder in the cache, for the time of an import; errors of its disk are told in a sentence."""
    folder = cache.parts() / f"import-{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True)
        yield folder
    except (OSError, OutputError) as error:
        raise disk_error(error, cache.folder()) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
