"""A model as one file, ``.usema``: a zip of a bundle's folder, to be published, mailed, or carried to a computer that
is not connected. Standard library only.

What is unpacked is chosen by name: the two files of a bundle, and a few that describe it, its model card among them.
Nothing else in a zip is written to disk, and nothing can grow beyond what is announced and allowed.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from ..errors import BundleError, OutputError
from ..files import whole_file
from ..models.archive_safety import members, why_unreadable
from ..models.bundle import METADATA_FILE, WEIGHTS_FILE, Bundle, read_bundle
from ..models.card_files import FILES as CARD_FILES

ENDING = ".usema"
EXTRAS = ("README.md", "LICENSE", "LICENSE.txt", "preview.png", "preview.jpg", *CARD_FILES)
_MAX_EXTRA_BYTES = 16 * 2**20  # of each
_CHUNK = 2**20
_GET_AGAIN = "Download or copy the file again."
Contents = dict[str, tuple[int, Callable[[], IO[bytes]]]]  # name in the new folder -> (bytes, how to open it)
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)  # RuntimeError: a password


def pack(bundle_folder: str | os.PathLike, file: str | os.PathLike) -> Path:
    """Writes a bundle as one file, which appears whole or not at all. The same bundle always gives the same bytes.

    Args:
        bundle_folder: with ``model.json``, ``weights.safetensors`` and perhaps some of ``EXTRAS``.
        file: where to, in a folder that is made if need be; replaced if it exists.

    Returns:
        The file.

    Raises:
        BundleError: the folder is no bundle, or its weights are not those of its ``model.json``.
        OutputError: the file cannot be written.
    """
    folder, file = Path(bundle_folder), Path(file)
    if not folder.is_dir():
        raise BundleError(
            f"{folder} is no bundle's folder.", "A .usema file is imported first, then named by its name."
        )
    read_bundle(folder).verify()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # Not compressed: weights in float16 would become a few per cent smaller, and take ten times as long to unpack.
        with whole_file(file) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for name, (size, open_it) in _files(folder).items():
                member = zipfile.ZipInfo(name)  # dated 1980: the hash must not depend on the day
                member.create_system = 3  # Unix, also where it is not: nor on the computer
                member.external_attr = 0o644 << 16
                member.file_size = size
                with open_it() as source, archive.open(member, "w") as sink:
                    _copy(source, sink)
    except OSError as error:
        raise OutputError(f"{file} cannot be written: {error.strerror or error}.") from error
    return file


def size_of(source: str | os.PathLike) -> int:
    """Bytes that ``unpack`` or ``copy`` will write.

    Raises:
        BundleError: the source is no model, or not safe to unpack.
    """
    source = Path(source)
    if source.is_dir():
        return sum(size for size, _ in _files(source).values())
    with _open(source) as archive:
        return sum(member.file_size for member in _members(source, archive).values())


def unpack(file: str | os.PathLike, folder: str | os.PathLike, copied: Callable[[int], None] | None = None) -> Bundle:
    """Unpacks a ``.usema`` file, or any zip of a bundle, and verifies it on the way.

    Args:
        file: the zip.
        folder: where to; must not exist. What is in it after an error must not be used.
        copied: called with the bytes written so far; may raise to stop.

    Raises:
        BundleError: the file is no model, is damaged or altered, or not safe to unpack.
        OSError: the folder cannot be written.
    """
    file = Path(file)
    with _open(file) as archive:
        members = _members(file, archive)
        contents = {name: (member.file_size, partial(archive.open, member)) for name, member in members.items()}
        return _take(file, contents, Path(folder), copied)


def copy(source: str | os.PathLike, folder: str | os.PathLike, copied: Callable[[int], None] | None = None) -> Bundle:
    """Copies a bundle's folder, what ``pack`` would take of it, as ``unpack`` does with a file."""
    return _take(Path(source), _files(Path(source)), Path(folder), copied)


def _take(source: Path, contents: Contents, folder: Path, copied: Callable[[int], None] | None) -> Bundle:
    bundle = read_bundle(source)  # this also checks the sizes of both files
    expected = {METADATA_FILE: bundle.metadata_sha256, WEIGHTS_FILE: bundle.metadata.weights["sha256"]}
    folder.mkdir(parents=True)
    before = 0
    for name, (size, open_it) in contents.items():
        (folder / name).parent.mkdir(exist_ok=True)  # card/
        # zipfile ends a member at its announced size, which was checked; if there is more, its CRC is wrong.
        try:
            with open_it() as stream, (folder / name).open("xb") as sink:
                found = _copy(stream, sink, lambda done, before=before: copied and copied(before + done))
                os.fsync(sink.fileno())
        except _UNREADABLE as error:
            raise _unreadable(source, error) from error
        before += size
        if found != expected.get(name, found):
            raise BundleError(
                f"{source}: {name} was altered: its SHA-256 is {found}, and should be {expected[name]}.", _GET_AGAIN
            )
    bundle = read_bundle(folder)
    bundle.check_header()
    return bundle


def _files(folder: Path) -> Contents:
    read_bundle(folder)  # says what is missing
    found = {}
    for name in (METADATA_FILE, WEIGHTS_FILE, *EXTRAS):
        file = folder / name
        # A link could lead to a file of the user's that the model's maker wants to have published.
        if file.is_file() and (name not in EXTRAS or file.resolve().is_relative_to(folder.resolve())):
            size = file.stat().st_size
            if name in EXTRAS:
                _check_extra(folder, name, size)
            found[name] = (size, partial(file.open, "rb"))
    return found


def _check_extra(source: Path, name: str, size: int) -> None:
    if size > _MAX_EXTRA_BYTES:
        raise BundleError(
            f"{source} holds {name} of {size} bytes, more than {_MAX_EXTRA_BYTES}.",
            "Do not use it, and tell whoever gave it to you.",
        )


def _open(file: Path) -> zipfile.ZipFile:
    if not file.exists():
        raise BundleError(f"There is no file {file}.")
    if not file.is_file():  # to read from a pipe or a device could wait for ever
        raise BundleError(f"{file} is no model, or is damaged: it is no file.", _GET_AGAIN)
    try:
        return zipfile.ZipFile(file)
    except (*_UNREADABLE, OSError) as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> BundleError:
    return BundleError(f"{file} is no model, or is damaged: {why_unreadable(file, error)}.", _GET_AGAIN)


def _members(file: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """What is unpacked, by the name it gets: what lies beside ``model.json``, at the top or in one folder."""
    by_path = {member.filename: member for member in members(file, archive)}
    tops = [PurePosixPath(name).parent for name in by_path if PurePosixPath(name).name == METADATA_FILE]
    tops = [top for top in tops if len(top.parts) <= 1]
    if len(tops) != 1:
        raise BundleError(f"{file} holds {len(tops)} files {METADATA_FILE}, and should hold one.", _GET_AGAIN)
    found = {}
    for name in (METADATA_FILE, WEIGHTS_FILE, *EXTRAS):
        member = by_path.get(str(tops[0] / name))
        if member is None:
            continue
        if name in EXTRAS:
            _check_extra(file, name, member.file_size)
        found[name] = member
    return found


def _copy(source: IO[bytes], sink: IO[bytes], copied: Callable[[int], None] = lambda done: None) -> str:
    """Copies in chunks and returns the SHA-256."""
    digest, done = hashlib.sha256(), 0
    while chunk := source.read(_CHUNK):
        sink.write(chunk)
        digest.update(chunk)
        done += len(chunk)
        copied(done)
    sink.flush()
    return digest.hexdigest()
