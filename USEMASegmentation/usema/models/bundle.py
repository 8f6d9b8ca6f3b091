"""A model on disk: ``model.json`` and ``weights.safetensors`` in a folder, or in a zip of that folder.

``model.json`` says what the model is for and holds the size and SHA-256 of the weights; its rules stand in
``bundle.schema.json`` beside this file. Reading it needs the standard library alone, so that the panel of 3D Slicer
can show a model before torch is installed. Weights are only ever read as safetensors, never unpickled, and a zip is
read in place, never extracted.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import uuid
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from ..errors import BundleError, MissingDependencyError, OutputError
from ..files import replace_file
from .metadata import ModelMetadata, least_schema_version

if TYPE_CHECKING:
    import torch

METADATA_FILE = "model.json"
WEIGHTS_FILE = "weights.safetensors"
_MAX_METADATA_BYTES = 4 * 2**20  # a model.json is a few KB; a larger file is something else
_CHUNK = 2**20  # bytes that are hashed at a time
_GET_AGAIN = "Download or copy the model again."


@dataclass(frozen=True)
class Bundle:
    """A bundle whose metadata was read and whose weights have the right size; ``read_bundle`` makes it."""

    path: Path
    metadata: ModelMetadata

    def verify(self) -> None:
        """Reads the weights, a piece at a time, and compares their SHA-256 with ``model.json``.

        Raises:
            BundleError: they were altered, truncated, or cannot be read.
        """
        with self._open_weights() as (stream, _):
            self._check_hash(sha256_of(stream))

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
        except safetensors.SafetensorError as error:
            raise BundleError(f"{self.path}: {WEIGHTS_FILE} cannot be read: {error}.", _GET_AGAIN) from error
        return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}

    @contextmanager
    def _open_weights(self) -> Iterator[tuple[IO[bytes], int]]:
        with _member(self.path, WEIGHTS_FILE) as (stream, size):
            _check_size(self.path, size, self.metadata)
            yield stream, size

    def _check_hash(self, found: str) -> None:
        expected = self.metadata.weights["sha256"]
        if found != expected:
            raise BundleError(
                f"{self.path}: {WEIGHTS_FILE} was altered: its SHA-256 is {found}, model.json says {expected}.",
                _GET_AGAIN,
            )


def sha256_of(stream: IO[bytes]) -> str:
    """The SHA-256 of what is still to be read of a stream, in lower-case hex; in a megabyte of memory."""
    digest = hashlib.sha256()
    while chunk := stream.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


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
    try:
        document = json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{source} is not valid JSON: {error}.", _GET_AGAIN) from error
    metadata = ModelMetadata.from_dict(document, source)
    with _member(path, WEIGHTS_FILE) as (stream, size):
        _check_size(path, size, metadata)
        start = stream.read(9)
    # The format: eight bytes with the length of a JSON header, then the header, which must begin with a brace.
    if start[8:] != b"{" or int.from_bytes(start[:8], "little") > size - 8:
        raise BundleError(
            f"{path}: {WEIGHTS_FILE} is not a safetensors file; it begins with {start!r}.",
            "USEMA never opens pickled weights, because they can run code. Export the model again as a bundle.",
        )
    return Bundle(path, metadata)


def write_bundle(
    folder: str | os.PathLike,
    metadata: Mapping[str, Any],
    state_dict: Mapping[str, torch.Tensor],
    *,
    half: bool = True,
    overwrite: bool = False,
) -> Bundle:
    """Writes a bundle; the folder appears whole or not at all.

    Args:
        folder: where to; its parent must exist.
        metadata: the keys of ``model.json`` but ``schema_version`` and ``weights``, which are filled in.
        state_dict: the network's parameters and buffers.
        half: store floating-point tensors as float16, half the size of float32.
        overwrite: replace a bundle that is there already.

    Raises:
        BundleError: the metadata are not valid, or a weight is not finite (in float16, the limit is 65504).
        OutputError: the folder exists, or cannot be written.
    """
    folder = Path(folder)
    if folder.exists() and not (overwrite and (folder / METADATA_FILE).is_file()):
        raise OutputError(f"{folder} exists already.", "Name another folder, or ask to overwrite the bundle in it.")

    dtype = "float16" if half else "float32"
    data = _to_safetensors(state_dict, dtype)
    document = {
        **metadata,
        "schema_version": least_schema_version(metadata),
        "weights": {
            "file": WEIGHTS_FILE,
            "sha256": hashlib.sha256(data).hexdigest(),
            "bytes": len(data),
            "dtype": dtype,
        },
    }
    text = _checked_text(document)
    temporary = folder.with_name(f".usema-{uuid.uuid4().hex[:12]}")
    try:
        temporary.mkdir()
        (temporary / METADATA_FILE).write_text(text, encoding="utf-8")
        (temporary / WEIGHTS_FILE).write_bytes(data)
        move_into_place(temporary, folder)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return read_bundle(folder)


def change_metadata(bundle: Bundle, **changes: Any) -> Bundle:
    """Replaces keys of a bundle's ``model.json``, whole or not at all; the weights and all other keys stay.

    Args:
        bundle: in a folder, not in a zip.
        changes: new values of keys of ``model.json``.

    Returns:
        the bundle as it is now; its ``schema_version`` is the least that knows its keys.

    Raises:
        BundleError: the bundle is a zip, or the changed metadata are not valid.
        OutputError: ``model.json`` cannot be written.
    """
    if not bundle.path.is_dir():
        raise BundleError(f"{bundle.path} is no folder, and only a bundle in a folder can be changed.", "Unpack it.")
    path = bundle.path / METADATA_FILE
    # The file's own text, not bundle.metadata: keys keep their order, and who compares sees only the changes.
    document = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    text = _checked_text({**document, "schema_version": least_schema_version(document)})
    try:
        replace_file(path, text.encode("utf-8"))
    except OSError as error:  # which names the temporary file
        raise OutputError(
            f"{path} cannot be written: {error.strerror}.", "Copy the model to a folder of your own."
        ) from error
    return read_bundle(bundle.path)


def _checked_text(document: Mapping[str, Any]) -> str:
    """A ``model.json`` with this document. Raises BundleError where no reader would accept it."""
    try:
        # Through JSON and back, so that what is checked is what a reader will see.
        text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise BundleError(f"The metadata do not fit into JSON: {error}.") from error
    ModelMetadata.from_dict(json.loads(text), "The metadata")
    return text + "\n"


def _to_safetensors(state_dict: Mapping[str, torch.Tensor], dtype: str) -> bytes:
    import safetensors.torch
    import torch

    tensors = {}
    for name, tensor in state_dict.items():
        stored = getattr(torch, dtype) if tensor.is_floating_point() else tensor.dtype
        # copy: safetensors refuses tensors that share memory, as a network's tied layers do
        tensors[name] = tensor.detach().to("cpu", stored, copy=True).contiguous()
        if not tensors[name].isfinite().all():
            raise BundleError(f"The weight {name!r} has values that are not finite in {dtype}.", "Use half=False.")
    return safetensors.torch.save(tensors)


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


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _check_size(path: Path, size: int, metadata: ModelMetadata) -> None:
    expected = metadata.weights["bytes"]
    if size != expected:
        what = "truncated" if size < expected else "altered"
        raise BundleError(f"{path}: {WEIGHTS_FILE} is {what}: {size} bytes of {expected}.", _GET_AGAIN)


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
        else:
            with zipfile.ZipFile(path) as archive:
                entry = _zip_entry(path, archive, name)
                with archive.open(entry) as stream:
                    yield stream, entry.file_size
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:  # RuntimeError: a password
        raise BundleError(f"{path} cannot be read: {error}.", _GET_AGAIN) from error


def check_zip_member(path: Path, member: zipfile.ZipInfo) -> None:
    """Refuses what no bundle's zip has: ways out of its folder, links, and what takes memory without a limit.

    What is only read in place is checked as well: other programs will extract the same file.

    Args:
        path: the zip, for the message.
        member: any of its members.

    Raises:
        BundleError: says what is wrong.
    """
    name, unsafe = member.filename, "Do not use it, and tell whoever gave it to you."
    if name.startswith("/") or ".." in name.split("/") or "\\" in name or ":" in name:
        raise BundleError(f"{path} holds {name!r}, which leads out of its folder.", unsafe)
    if stat.S_ISLNK(member.external_attr >> 16):
        raise BundleError(f"{path} holds {name!r}, which is a link.", unsafe)
    # bzip2 and lzma in Python's zipfile decompress without a limit.
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BundleError(f"{path} holds {name!r} in a compression that is not used for models.", _GET_AGAIN)


def _zip_entry(path: Path, archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    entries = []
    for entry in archive.infolist():
        check_zip_member(path, entry)
        place = PurePosixPath(entry.filename)
        if place.name == name and len(place.parts) <= 2:
            entries.append(entry)
    if len(entries) != 1:
        raise BundleError(f"{path} holds {len(entries)} files {name}, and should hold one.", _GET_AGAIN)
    return entries[0]
