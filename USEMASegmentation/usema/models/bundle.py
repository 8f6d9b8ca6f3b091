"""A model on disk: ``model.json`` and ``weights.safetensors`` in a folder, or in a zip of that folder.

``model.json`` says what the model is for and holds the size and SHA-256 of the weights; its rules stand in
``bundle.schema.json`` beside this file. Reading it needs the standard library alone, so that the panel of 3D Slicer
can show a model before torch is installed. Weights are only ever read as safetensors, never unpickled, and a zip is
read in place, never extracted.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING

from .. import strict_json
from ..errors import BundleError, MissingDependencyError
from ..files import sha256_of
from . import weights_header
from .archive_safety import only_member
from .metadata import ModelMetadata

if TYPE_CHECKING:
    import torch

METADATA_FILE = "model.json"
WEIGHTS_FILE = "weights.safetensors"
_MAX_METADATA_BYTES = 4 * 2**20  # a model.json is a few KB; a larger file is something else
_GET_AGAIN = "Download or copy the model again."


@dataclass(frozen=True)
class Bundle:
    """A bundle whose metadata was read and whose weights have the right size; ``read_bundle`` makes it.

    Attributes:
        path: the folder or zip.
        metadata: what ``model.json`` says.
        metadata_sha256: of the bytes of ``model.json``, in lower-case hex. As they hold the hash of the weights, it
            tells whether a bundle is the same as another in all that matters for a result.
    """

    path: Path
    metadata: ModelMetadata
    metadata_sha256: str

    def verify(self) -> None:
        """Reads the weights, a piece at a time, and compares their SHA-256 with ``model.json``.

        Raises:
            BundleError: they were altered, truncated, cannot be read, or are no tensors side by side.
        """
        with self._open_weights() as (stream, _):
            self._check_hash(sha256_of(stream))

    def check_header(self) -> None:
        """Refuses weights that are no tensors side by side. What is in them is not read.

        Raises:
            BundleError: says what is wrong.
        """
        with self._open_weights():
            pass

    def load_weights(self) -> dict[str, torch.Tensor]:
        """The network's parameters and buffers by name, on the CPU; floating-point ones in float32.

        Raises:
            BundleError: the weights are not those that ``model.json`` describes.
            MissingDependencyError: torch or safetensors is not installed.
        """
        try:
            import safetensors.torch
        except ImportError as error:
            raise MissingDependencyError(f"Loading a model needs {error.name}.", "Install it first.") from error
        with self._open_weights() as (stream, size):
            data = stream.read(size)
        self._check_hash(hashlib.sha256(data).hexdigest())
        # The very bytes that were hashed are parsed, so nothing can change in between.
        try:
            tensors = safetensors.torch.load(data)
        except (safetensors.SafetensorError, ValueError, LookupError) as error:
            raise BundleError(f"{self.path}: {WEIGHTS_FILE} cannot be read: {error}.", _GET_AGAIN) from error
        return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}

    @contextmanager
    def _open_weights(self) -> Iterator[tuple[IO[bytes], int]]:
        with _member(self.path, WEIGHTS_FILE) as (stream, size):
            _check_size(self.path, size, self.metadata)
            _check_header(self.path, stream, size)
            stream.seek(0)
            yield stream, size

    def _check_hash(self, found: str) -> None:
        expected = self.metadata.weights["sha256"]
        if found != expected:
            raise BundleError(
                f"{self.path}: {WEIGHTS_FILE} was altered: its SHA-256 is {found}, model.json says {expected}.",
                _GET_AGAIN,
            )


def read_bundle(path: str | os.PathLike) -> Bundle:
    """Reads a bundle's metadata and checks the size and format of its weights, without reading them.

    Args:
        path: a folder, or a zip of it (the two files at its top or in one folder).

    Raises:
        BundleError: says what is missing, wrong, truncated, or too new.
    """
    path = Path(path)
    source = f"{path}: {METADATA_FILE}"
    with _member(path, METADATA_FILE) as (stream, size):
        if size > _MAX_METADATA_BYTES:
            raise BundleError(f"{source} has {size} bytes, more than {_MAX_METADATA_BYTES}.", _GET_AGAIN)
        data = stream.read(size)  # not read(): a zip would be decompressed without a limit
    metadata = _metadata(data, source)
    with _member(path, WEIGHTS_FILE) as (stream, size):
        _check_size(path, size, metadata)
        start = stream.read(weights_header.LENGTH_BYTES + 1)
        if start[-1:] != b"{" or _header_bytes(start) > size - weights_header.LENGTH_BYTES:
            raise BundleError(
                f"{path}: {WEIGHTS_FILE} is not a safetensors file; it begins with {start!r}.",
                "USEMA never opens pickled weights, because they can run code. Export the model again as a bundle.",
            )
    return Bundle(path, metadata, hashlib.sha256(data).hexdigest())


@lru_cache(maxsize=64)  # the panel asks for the same few models again and again: 5 ms each to parse
def _metadata(data: bytes, source: str) -> ModelMetadata:
    try:
        document = strict_json.loads(data)
    except ValueError as error:
        raise BundleError(f"{source} is not valid JSON: {error}.", _GET_AGAIN) from error
    return ModelMetadata.from_dict(document, source)


def _check_size(path: Path, size: int, metadata: ModelMetadata) -> None:
    expected = metadata.weights["bytes"]
    if size != expected:
        what = "truncated" if size < expected else "altered"
        raise BundleError(f"{path}: {WEIGHTS_FILE} is {what}: {size} bytes of {expected}.", _GET_AGAIN)


def _header_bytes(start: bytes) -> int:
    return int.from_bytes(start[: weights_header.LENGTH_BYTES], "little")


def _check_header(path: Path, stream: IO[bytes], size: int) -> None:
    """Of weights that are at their beginning."""
    length = _header_bytes(stream.read(weights_header.LENGTH_BYTES))
    try:
        if length > weights_header.MAX_BYTES:
            raise ValueError(f"its header has {length} bytes, more than {weights_header.MAX_BYTES}")
        weights_header.check(stream.read(length), size - weights_header.LENGTH_BYTES - length)
    except ValueError as error:
        raise BundleError(f"{path}: {WEIGHTS_FILE} cannot be read: {error}.", _GET_AGAIN) from error


@contextmanager
def _member(path: Path, name: str) -> Iterator[tuple[IO[bytes], int]]:
    """Opens one file of a bundle for reading and gives its size in bytes."""
    if not path.exists():
        raise BundleError(f"There is no model at {path}.")
    try:
        if path.is_dir():
            if not (path / name).is_file():
                raise BundleError(f"{path} has no {name}.", _GET_AGAIN)
            with (path / name).open("rb") as stream:
                yield stream, (path / name).stat().st_size
        elif not path.is_file():  # to read from a pipe or a device could wait for ever
            raise BundleError(f"{path} is neither a folder nor a file.")
        else:
            with zipfile.ZipFile(path) as archive:
                entry = only_member(path, archive, name)
                with archive.open(entry) as stream:
                    yield stream, entry.file_size
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:  # RuntimeError: a password
        raise BundleError(f"{path} cannot be read: {error}.", _GET_AGAIN) from error
