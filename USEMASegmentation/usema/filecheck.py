"""Damage that ITK reads or writes past in silence, found before the voxels are used.

Measured with SimpleITK 2.5: a NIfTI file cut in half reads as a volume whose second half is zero; a NIfTI header with
a spacing of 0, NaN or infinity reads as 1 mm; one changed byte in a compressed MetaImage reads as noise; a NIfTI file
is "written" although the disk is full. NRRD and uncompressed MetaImage report such damage themselves.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

from .errors import InputError

_CHUNK = 1 << 22  # bytes
_COPY_AGAIN = "Copy or export it again."


def check_file(path: Path) -> None:
    """Refuse a NIfTI or MetaImage file whose damage ITK would hide; other files pass.

    Raises:
        InputError: voxels are missing or do not decompress, or the header's spacing is not positive.
    """
    name = path.name.lower()
    try:
        if name.endswith((".nii", ".nii.gz")):
            _check_nifti(path)
        elif name.endswith((".mha", ".mhd")):
            _check_metaimage(path)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise InputError(f"{path} is damaged or incomplete: not all of its voxels can be read.", _COPY_AGAIN) from error


def _check_nifti(path: Path) -> None:
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    with gzip.open(path) if compressed else path.open("rb") as file:
        header = file.read(348)
        order = "<" if header.startswith(struct.pack("<i", 348)) else ">"
        # Offsets of nifti1.h: dim[8], bitpix, pixdim[1..3], vox_offset.
        dimensions, *dim = struct.unpack_from(order + "8h", header, 40)
        (bitpix,) = struct.unpack_from(order + "h", header, 72)
        pixdim = struct.unpack_from(order + "3f", header, 80)
        (vox_offset,) = struct.unpack_from(order + "f", header, 108)
        for axis, spacing in zip("xyz", pixdim, strict=True):
            if not (math.isfinite(spacing) and spacing > 0):
                raise InputError(
                    f"{path} gives a spacing of {spacing:g} mm along {axis} (pixdim in its NIfTI header).",
                    "Correct the spacing, or export the volume again.",
                )
        # Reading on to the very end makes gzip compare its checksum.
        found = len(header)
        while chunk := file.read(_CHUNK):
            found += len(chunk)
    expected = int(vox_offset) + math.prod(dim[:dimensions]) * bitpix // 8
    if found < expected:
        raise InputError(f"{path} is incomplete: it ends after {found} of {expected} bytes.", _COPY_AGAIN)


def _check_metaimage(path: Path) -> None:
    with path.open("rb") as file:
        fields = {}
        # The header is text and ends with the field that says where the voxels are.
        while "ElementDataFile" not in fields and (line := file.readline(4096)):
            key, _, value = line.decode("utf-8", "replace").partition("=")
            fields[key.strip()] = value.strip()
        source = fields.get("ElementDataFile", "")
        if fields.get("CompressedData", "").lower() != "true":
            return
        if source == "LOCAL":
            _check_zlib(path, file)
        elif (path.parent / source).is_file():
            with (path.parent / source).open("rb") as voxels:
                _check_zlib(path, voxels)


def _check_zlib(path: Path, file) -> None:
    stream = zlib.decompressobj()
    while not stream.eof:
        if not (chunk := file.read(_CHUNK)):
            raise InputError(f"{path} is incomplete: its compressed voxels break off.", _COPY_AGAIN)
        stream.decompress(chunk)
