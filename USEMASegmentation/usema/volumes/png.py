"""PNG files, written whole: grey of 8 or 16 bits, indices with a palette, or red, green and blue.

SimpleITK writes no palettes and no words, and Pillow is not everywhere. Source: the PNG specification, W3C 2003.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB, _INDEXED = 0, 2, 3
_NO_FILTER = 0


def png_bytes(
    array: np.ndarray, palette: Sequence[tuple[int, int, int]] = (), words: Mapping[str, str] | None = None
) -> bytes:
    """An image as the bytes of a PNG file.

    Args:
        array: (y, x) uint8 or uint16, or (y, x, 3) uint8.
        palette: red, green, blue of the values 0, 1, ... of uint8 (y, x); empty: they are grey.
        words: keyword -> text, kept in the file.
    """
    height, width = array.shape[:2]
    bits = 8 * array.dtype.itemsize
    kind = _RGB if array.ndim == 3 else _INDEXED if palette else _GREY
    parts = [_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))]
    for keyword, text in (words or {}).items():
        # Keyword, not compressed, no language: text in UTF-8.
        parts.append(_chunk(b"iTXt", keyword.encode("latin-1", "replace")[:79] + b"\0\0\0\0\0" + text.encode("utf-8")))
    if palette:
        parts.append(_chunk(b"PLTE", np.array(palette, np.uint8).tobytes()))
    rows = np.ascontiguousarray(array, array.dtype.newbyteorder(">")).view(np.uint8).reshape(height, -1)
    lines = np.empty((height, rows.shape[1] + 1), np.uint8)
    lines[:, 0] = _NO_FILTER
    lines[:, 1:] = rows
    parts += [_chunk(b"IDAT", zlib.compress(lines.data, 6)), _chunk(b"IEND", b"")]
    return SIGNATURE + b"".join(parts)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
