"""Grey with transparency, of 16 bits each, and grey of 16 bits whose zero is white: kinds that Pillow reads wrongly or
does not know.

A pixel of the first has four bytes, as one of red, green, blue and transparency has: it is read as such.
"""

from __future__ import annotations

import io
import struct
import sys
import zlib
from pathlib import Path

import numpy as np

_IHDR = slice(12, 29)  # of a PNG: its name and data, before its checksum
_BITS_AND_COLOURS = slice(24, 26)
_GREY_ALPHA, _RGB_ALPHA = bytes([16, 4]), bytes([8, 6])
_BITS, _UNCOMPRESSED, _RAW = 258, 1, 259  # TIFF's tags, and a value of the last

# As Pillow names kinds of TIFF: byte order, photometric, sample format, fill order, bits, extra samples.
_TIFF_KINDS = {
    **{(order, 1, (1,), 1, (16, 16), (extra,)): ("RGBA", "RGBA") for order in (b"II", b"MM") for extra in (1, 2)},
    (b"MM", 0, (1,), 1, (16,), ()): ("I;16B", "I;16B"),
}


def know_more_tiffs() -> None:
    """Lets Pillow open these kinds of TIFF."""
    from PIL.TiffImagePlugin import OPEN_INFO

    for kind, modes in _TIFF_KINDS.items():
        OPEN_INFO.setdefault(kind, modes)


def png_of_four_bytes(path: Path) -> io.BytesIO | None:
    """A PNG of grey and transparency of 16 bits each, with a header that says four values of 8; None: it is another."""
    with path.open("rb") as file:
        start = bytearray(file.read(33))
        if start[_BITS_AND_COLOURS] != _GREY_ALPHA:
            return None
        start[_BITS_AND_COLOURS] = _RGB_ALPHA
        start[29:33] = struct.pack(">I", zlib.crc32(start[_IHDR]))
        return io.BytesIO(bytes(start) + file.read())


def is_tiff_of_four_bytes(image) -> bool:
    """Whether the page that is open is grey with transparency of 16 bits each."""
    return image.format == "TIFF" and image.mode == "RGBA" and tuple(image.tag_v2.get(_BITS, ())) == (16, 16)


def values_of_four_bytes(image, pixels: np.ndarray) -> np.ndarray:
    """Grey and transparency (y, x, 2) uint16 out of the bytes (y, x, 4) of a page."""
    order = ">"
    if image.format == "TIFF":  # libtiff turns the bytes to this computer's order, Pillow does not
        native = {"little": "<", "big": ">"}[sys.byteorder]
        stored = {b"II": "<", b"MM": ">"}[image.tag_v2.prefix]
        order = stored if image.tag_v2.get(_RAW, _UNCOMPRESSED) == _UNCOMPRESSED else native
    return np.ascontiguousarray(pixels).view(f"{order}u2").astype(np.uint16)
