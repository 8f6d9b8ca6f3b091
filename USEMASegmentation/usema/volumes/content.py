"""The bytes of a file, whether it is compressed or not and whatever its name says."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_CHUNK = 1 << 20  # bytes; compressed, they may become a thousand times as many
_FIRST_CHUNK = 1 << 13  # often only the header is asked for
_GZIP = b"\x1f\x8b"
MOST_DEFLATED = 1100  # deflate makes a byte of at most 1032


class Content:
    """Reads on from where an open file stands, decompressing what starts as gzip does.

    Bytes behind the last gzip member are ignored, as gzip itself does: transfers in text mode leave some there.
    """

    def __init__(self, file: BinaryIO):
        start = file.tell()
        self.compressed = file.read(2) == _GZIP
        file.seek(start)
        self._chunks = _inflated(file) if self.compressed else _chunks(file)
        self._rest = b""

    def read(self, count: int) -> bytes:
        """Up to ``count`` bytes, fewer only at the end. Raises EOFError or zlib.error where the bytes are damaged."""
        return b"".join(self.parts(count))

    def parts(self, count: int) -> Iterator[bytes]:
        """The same in parts, none of them empty, without joining them."""
        while count > 0:
            if not self._rest:
                self._rest = next(self._chunks, b"")
                if not self._rest:
                    return
            part, self._rest = self._rest[:count], self._rest[count:]
            count -= len(part)
            yield part

    def finish(self) -> int:
        """Read on to the very end, where a checksum is compared. Returns how many bytes were left."""
        left = len(self._rest)
        for chunk in self._chunks:
            left += len(chunk)
        self._rest = b""
        return left


def starts_with(path: Path, count: int) -> bytes:
    """The first bytes of a file, decompressed; what there is of them, where it is damaged."""
    with path.open("rb") as file:
        try:
            return Content(file).read(count)
        except (EOFError, zlib.error):
            return b""


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    size = _FIRST_CHUNK
    while chunk := file.read(size):
        yield chunk
        size = min(2 * size, _CHUNK)


def _inflated(file: BinaryIO) -> Iterator[bytes]:
    stream = zlib.decompressobj(wbits=31)
    for chunk in _chunks(file):
        while chunk:
            if stream.eof:  # another member follows, or bytes that are none
                if not chunk.startswith(_GZIP):
                    return
                stream = zlib.decompressobj(wbits=31)
            if data := stream.decompress(chunk, _CHUNK):
                yield data
            chunk = stream.unused_data if stream.eof else stream.unconsumed_tail
    while not stream.eof:
        if not (data := stream.decompress(b"", _CHUNK)):
            raise EOFError("the compressed bytes break off")
        yield data
