"""A file, a folder or a zip that a model may lie in: what is there, and how to read it. Standard library only."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import NamedTemporaryFile
from typing import IO, Any

from ..errors import BundleError, InputError, OutputError
from ..files import sha256_of, sha256_of_file
from ..models.archive_safety import check_zip_member, why_unreadable

_MAX_DEPTH = 8  # of folders; what is deeper is no part of a model
_MAX_FILES = 50_000
_MAX_TEXT_BYTES = 64 * 2**20
_GET_AGAIN = "Download or copy it again."
_BESIDE = {".pt": ("labels.csv",)}  # ending of a file -> what belongs to it in its folder
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError)


class Source:
    """Files by their place under a root, with "/" between folders.

    Attributes:
        path: what the user named.
        files: place -> bytes.
    """

    def __init__(self, path: Path, files: dict[str, int]):
        self.path = path
        self.files = files

    @property
    def name(self) -> str:
        """What the user named, without its ending."""
        return self.path.resolve().name.removesuffix(".zip")

    def has(self, place: str) -> bool:
        return place in self.files

    def json(self, place: str) -> Any:
        """Reads a JSON file. Raises BundleError if it is none."""
        if self.files[place] > _MAX_TEXT_BYTES:
            raise BundleError(f"{self.shown(place)} has {self.files[place]} bytes, more than {_MAX_TEXT_BYTES}.")
        with self.open(place) as stream:
            data = stream.read(_MAX_TEXT_BYTES)
        try:
            return json.loads(data.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise BundleError(f"{self.shown(place)} is not valid JSON: {error}.", _GET_AGAIN) from error

    def shown(self, place: str) -> str:
        """How messages call a file."""
        return str(self.path / place)

    def sha256(self, place: str) -> str:
        """Of a file's bytes."""
        with self.open(place) as stream:
            return sha256_of(stream)

    def whole_sha256(self, places: list[str]) -> str:
        """One hash for all that was used: of the file that the user named, else of the hashes of its files."""
        if self.path.is_file():
            return sha256_of_file(self.path)
        hashes = [self.sha256(place) for place in places]
        if len(hashes) == 1:
            return hashes[0]
        return hashlib.sha256("".join(hashes).encode()).hexdigest()

    @contextmanager
    def open(self, place: str) -> Iterator[IO[bytes]]:
        """Opens a file. Raises BundleError if it cannot be read."""
        raise NotImplementedError

    @contextmanager
    def on_disk(self, place: str, beside: Path) -> Iterator[Path]:
        """A file as one on the disk: itself, or for the time a copy in a folder.

        Raises:
            BundleError: it cannot be read.
            OutputError: the disk is too full for the copy.
        """
        raise NotImplementedError


class FolderSource(Source):
    """A folder, or one file of it, perhaps with others that belong to it."""

    def __init__(self, path: Path, only: str = "", beside: Sequence[str] = ()):
        self._root = path.parent if only else path
        here = [self._root / name for name in (only, *beside)]
        files = {file.name: file.stat().st_size for file in here if file.is_file()} if only else dict(_walk(path))
        super().__init__(path, files)

    def shown(self, place: str) -> str:
        return str(self._root / place)

    @contextmanager
    def open(self, place: str) -> Iterator[IO[bytes]]:
        try:
            stream = (self._root / place).open("rb")
        except OSError as error:
            raise BundleError(f"{self.shown(place)} cannot be read: {error.strerror}.", _GET_AGAIN) from error
        with stream:
            yield stream

    @contextmanager
    def on_disk(self, place: str, beside: Path) -> Iterator[Path]:
        yield self._root / place


class ZipSource(Source):
    """A zip, whatever folders are in it."""

    def __init__(self, path: Path):
        with self._archive(path) as archive:
            members = archive.infolist()
            if len(members) > _MAX_FILES:
                raise BundleError(f"{path} holds {len(members)} files: no model.", "Name the model's own folder.")
            for member in members:
                check_zip_member(path, member)
            super().__init__(path, {member.filename: member.file_size for member in members if not member.is_dir()})

    @staticmethod
    @contextmanager
    def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
        try:
            archive = zipfile.ZipFile(path)
        except _UNREADABLE as error:
            why = why_unreadable(path, error)
            raise BundleError(f"{path} is a zip that cannot be read: {why}.", _GET_AGAIN) from error
        with archive:
            yield archive

    @contextmanager
    def open(self, place: str) -> Iterator[IO[bytes]]:
        with self._archive(self.path) as archive:
            try:
                stream = archive.open(place)
            except _UNREADABLE as error:
                raise BundleError(f"{self.shown(place)} cannot be read: {error}.", _GET_AGAIN) from error
            with stream:
                yield _Checked(stream, self.shown(place))

    @contextmanager
    def on_disk(self, place: str, beside: Path) -> Iterator[Path]:
        size, free = self.files[place], shutil.disk_usage(beside).free
        if size > free:
            raise OutputError(
                f"The disk is too full to unpack {self.shown(place)}: {size / 1e6:.1f} MB are needed, "
                f"{free / 1e6:.1f} MB are free in {beside}.",
                "Make room, or name a folder on another disk in USEMA_MODELS.",
            )
        with NamedTemporaryFile(dir=beside, prefix=".unpacked-", delete=False) as copy:
            try:
                with self.open(place) as stream:
                    while chunk := stream.read(2**20):
                        copy.write(chunk)
                copy.close()
                yield Path(copy.name)
            finally:
                copy.close()
                os.unlink(copy.name)


class _Checked:
    """A member of a zip that tells in a sentence what is wrong with it."""

    def __init__(self, stream: IO[bytes], shown: str):
        self._stream = stream
        self._shown = shown

    def read(self, size: int = -1) -> bytes:
        try:
            return self._stream.read(size)
        except _UNREADABLE as error:
            raise BundleError(f"{self._shown} cannot be read: {error}.", _GET_AGAIN) from error


class JointSource(Source):
    """Several files of one model, as if each lay in a folder of its own, 1, 2, ..., under one root."""

    def __init__(self, sources: Sequence[Source]):
        self._sources = {str(number): source for number, source in enumerate(sources, 1)}
        files: dict[str, int] = {}
        for number, source in self._sources.items():
            files |= {f"{number}/{place}": size for place, size in source.files.items()}
        super().__init__(sources[0].path.parent, files)

    def shown(self, place: str) -> str:
        source, inside = self._of(place)
        return source.shown(inside)

    def whole_sha256(self, places: list[str]) -> str:
        hashes = []
        for number, source in self._sources.items():
            own = [place.partition("/")[2] for place in places if place.startswith(f"{number}/")]
            hashes.append(source.whole_sha256(own))
        return hashlib.sha256("".join(hashes).encode()).hexdigest()

    @contextmanager
    def open(self, place: str) -> Iterator[IO[bytes]]:
        source, inside = self._of(place)
        with source.open(inside) as stream:
            yield stream

    @contextmanager
    def on_disk(self, place: str, beside: Path) -> Iterator[Path]:
        source, inside = self._of(place)
        with source.on_disk(inside, beside) as path:
            yield path

    def _of(self, place: str) -> tuple[Source, str]:
        number, _, inside = place.partition("/")
        return self._sources[number], inside


def open_together(paths: Sequence[Path]) -> Source:
    """Several files of one model. Raises BundleError as open_source."""
    sources = [open_source(path) for path in paths]
    return sources[0] if len(sources) == 1 else JointSource(sources)


def open_source(path: str | os.PathLike) -> Source:
    """What the user named: a folder, a zip, or another file. A JSON file stands for the folder that it lies in.

    Raises:
        BundleError: there is nothing, or it cannot be read.
    """
    path = Path(path)
    if path.is_file() and path.suffix == ".json":
        path = path.parent
    try:
        if path.is_dir():
            return FolderSource(path)
        if not path.is_file():
            why = ": it is neither a folder nor a file" if path.exists() else ""
            raise BundleError(f"There is no model at {path}{why}.", "Check the path.")
        if path.suffix.lower() == ".zip":
            return ZipSource(path)
        return FolderSource(path, path.name, _BESIDE.get(path.suffix.lower(), ()))
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}.", _GET_AGAIN) from error


def _walk(root: Path) -> Iterator[tuple[str, int]]:
    count = 0
    for folder, folders, files in os.walk(root):
        place = Path(folder).relative_to(root)
        folders[:] = (
            sorted(name for name in folders if not name.startswith(".")) if len(place.parts) < _MAX_DEPTH else []
        )
        for name in sorted(files):
            count += 1
            if count > _MAX_FILES:
                raise InputError(f"{root} holds more than {_MAX_FILES} files.", "Name the model's own folder.")
            file = Path(folder) / name
            if file.is_file():  # a link may lead nowhere
                yield str(PurePosixPath(*place.parts, name)), file.stat().st_size
