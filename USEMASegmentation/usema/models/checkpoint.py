"""Reads what PyTorch's ``torch.save`` wrote, without running anything that it says.

Such a file is a zip: ``data.pkl``, a pickle that tells what there is (see ``inert_pickle``), and one member for each
tensor's numbers, which are read when they are asked for. Standard library only at file scope; numbers need numpy.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from ..errors import BundleError, MissingDependencyError
from .archive_safety import check_zip_member, what_it_is
from .inert_pickle import TensorRecord, follow

if TYPE_CHECKING:
    import numpy as np

_MAX_PICKLE_BYTES = 64 * 2**20  # plans, a few thousand names and the course of a training need one or two
_GET_AGAIN = "Download or copy the checkpoint again."
_RESAVE = (
    "USEMA never loads a pickle, because it can run code. Download the checkpoint again; if it is older than PyTorch "
    "1.6, whoever trained it can save it again with a newer PyTorch."
)
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError)


class Checkpoint:
    """An open file; ``open_checkpoint`` makes it.

    Attributes:
        content: what was saved: dictionaries, lists, tuples, texts, numbers, and TensorRecords in the place of tensors.
    """

    def __init__(self, path: str, archive: zipfile.ZipFile):
        self.path = path
        self._archive = archive
        pickles = [name for name in archive.namelist() if PurePosixPath(name).name == "data.pkl"]
        if len(pickles) != 1:
            raise BundleError(f"{path} is a zip that holds {len(pickles)} files data.pkl: no checkpoint of PyTorch's.")
        self._folder = pickles[0][: -len("data.pkl")]
        for member in archive.infolist():
            check_zip_member(Path(path), member)
        size = archive.getinfo(pickles[0]).file_size
        if size > _MAX_PICKLE_BYTES:
            raise BundleError(f"{path}: its description has {size} bytes, more than {_MAX_PICKLE_BYTES}.", _GET_AGAIN)
        self.content = follow(self._read(pickles[0], size), path)

    def array(self, record: TensorRecord) -> np.ndarray:
        """A tensor's numbers, float32 where they are bfloat16; a copy, in C order.

        Raises:
            BundleError: they are not in the file, or fewer than announced.
        """
        try:
            import numpy as np
        except ImportError as error:
            raise MissingDependencyError(f"Reading a checkpoint needs {error.name}.", "Install it first.") from error
        dtype = np.dtype("u2" if record.dtype == "bfloat16" else record.dtype)
        byteorder = f"{self._folder}byteorder"
        if byteorder in self._archive.namelist() and self._read(byteorder, 16) == b"big":
            dtype = dtype.newbyteorder(">")
        size = record.numel * dtype.itemsize
        data = self._read(f"{self._folder}data/{record.storage}", size)
        if len(data) != size:
            raise BundleError(f"{self.path} is damaged: a tensor has {len(data)} bytes of {size}.", _GET_AGAIN)
        numbers = np.frombuffer(data, dtype)[record.offset :]
        steps = tuple(step * dtype.itemsize for step in record.stride)
        values = np.lib.stride_tricks.as_strided(numbers, record.shape, steps, writeable=False)
        values = np.array(values, dtype.newbyteorder("="), order="C")
        if record.dtype == "bfloat16":
            return (values.astype(np.uint32) << 16).view(np.float32)
        return values

    def _read(self, name: str, size: int) -> bytes:
        """A member of that size. PyTorch stores them as they are: nothing can grow beyond the file."""
        try:
            member = self._archive.getinfo(name)
            if member.compress_type != zipfile.ZIP_STORED:
                raise BundleError(f"{self.path} holds {name} compressed, as PyTorch never does.", _GET_AGAIN)
            with self._archive.open(member) as stream:
                return stream.read(size + 1)
        except KeyError:
            raise BundleError(f"{self.path} is incomplete: it has no {name}.", _GET_AGAIN) from None
        except _UNREADABLE as error:
            raise BundleError(f"{self.path} cannot be read: {error}.", _GET_AGAIN) from error


@contextmanager
def open_checkpoint(source: str | os.PathLike | IO[bytes], name: str = "") -> Iterator[Checkpoint]:
    """Opens a file that ``torch.save`` wrote.

    Args:
        source: its path, or the file itself, which can seek.
        name: what messages call it; its path if empty.

    Raises:
        BundleError: it is no such file, is damaged, or its pickle names something that no nnU-Net checkpoint holds.
    """
    name = name or str(source)
    try:
        whole = zipfile.is_zipfile(source)
        archive = zipfile.ZipFile(source) if whole else None
    except _UNREADABLE as error:
        raise BundleError(f"{name} cannot be read: {error}.", _GET_AGAIN) from error
    if archive is None:
        raise BundleError(f"{name} {_what_it_is(source)}.", _RESAVE)
    with archive:
        yield Checkpoint(name, archive)


def _what_it_is(source: str | os.PathLike | IO[bytes]) -> str:
    if hasattr(source, "read"):
        source.seek(0)
        start = source.read(512)
    else:
        with open(source, "rb") as stream:
            start = stream.read(512)
    if start[:1] == b"\x80":
        return "is a pickle, PyTorch's old format, not the zip that it writes since version 1.6"
    if start.startswith(b"PK"):
        return "is truncated"
    found = what_it_is(start)
    return f"is no checkpoint of PyTorch's, but {found}" if found else "is no checkpoint of PyTorch's"
