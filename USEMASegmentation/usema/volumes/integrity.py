"""Damage that ITK reads or writes past in silence, found before the voxels are used.

Measured with SimpleITK 2.5: a NIfTI file cut in half reads as a volume whose second half is zero; a NIfTI header with
a spacing of 0, NaN or infinity reads as 1 mm; NaN and infinite voxels of a NIfTI file read as 0; one changed byte in a
compressed MetaImage reads as noise; a NIfTI or small NRRD file is "written" although the disk is full. Uncompressed
MetaImage reports such damage itself.
"""

from __future__ import annotations

import gzip
import logging
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from ..errors import InputError

# NIfTI's codes of scalar types that are read here: bytes of a voxel. Others are refused by ITK or as not scalar.
_NIFTI_BYTES = {2: 1, 4: 2, 8: 4, 16: 4, 64: 8, 256: 1, 512: 2, 768: 4, 1024: 8, 1280: 8}
_NIFTI_FLOATS = {16: "f4", 64: "f8"}
_NRRD_BYTES = {"char": 1, "short": 2, "int": 4, "long long": 8, "float": 4, "double": 8} | {
    "uchar": 1,
    "ushort": 2,
    "uint": 4,
}

_CHUNK = 1 << 22  # bytes
_COPY_AGAIN = "Copy or export it again."


def check_file(path: Path) -> None:
    """Refuse a NIfTI, NRRD or MetaImage file whose damage ITK would hide; other files pass.

    A file that does not say how the patient lies is only worth a warning in the log: it may be meant so.

    Raises:
        InputError: voxels are missing, not finite or do not decompress, or the header contradicts itself.
    """
    name = path.name.lower()
    try:
        if name.endswith((".nii", ".nii.gz")):
            _check_nifti(path)
        elif name.endswith((".mha", ".mhd")):
            _check_metaimage(path)
        elif name.endswith(".nrrd"):
            _check_nrrd(path)
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
        (datatype,) = struct.unpack_from(order + "h", header, 70)
        vox_offset, slope, intercept = struct.unpack_from(order + "3f", header, 108)
        qform, sform = struct.unpack_from(order + "2h", header, 252)
        least = 352 if header[344:347] == b"n+1" else 0  # else the voxels lie in a file of their own
        if not (least <= vox_offset < 2**31 and math.isfinite(slope) and math.isfinite(intercept)):
            raise InputError(
                f"{path} has a damaged header: voxels start at byte {vox_offset:g}, scale {slope:g}, "
                f"intercept {intercept:g}.",
                _COPY_AGAIN,
            )
        if datatype in _NIFTI_BYTES and bitpix != 8 * _NIFTI_BYTES[datatype]:
            raise InputError(
                f"{path} has a damaged header: {bitpix} bits a voxel do not fit its datatype {datatype}.", _COPY_AGAIN
            )
        if not qform and not sform:
            _warn_of_orientation(path, "qform and sform are 0")
        for axis, spacing in zip("xyz", pixdim, strict=True):
            if not (math.isfinite(spacing) and spacing > 0):
                raise InputError(
                    f"{path} gives a spacing of {spacing:g} mm along {axis} (pixdim in its NIfTI header).",
                    "Correct the spacing, or export the volume again.",
                )
        # Reading on to the very end makes gzip compare its checksum.
        found = len(header) + len(file.read(max(0, int(vox_offset) - len(header))))
        expected = int(vox_offset) + math.prod(dim[:dimensions]) * bitpix // 8
        float_type = np.dtype(order + _NIFTI_FLOATS[datatype]) if least and datatype in _NIFTI_FLOATS else None
        while chunk := file.read(_CHUNK):
            if float_type:
                voxels = chunk[: max(0, expected - found)]  # what follows the voxels is none of them
                count = len(voxels) // float_type.itemsize
                bad = np.count_nonzero(~np.isfinite(np.frombuffer(voxels, float_type, count)))
                if bad:
                    raise InputError(
                        f"{path} has NaN or infinite voxels, {bad} of them in the first part that has any.",
                        "Replace them, for example by the value of the background.",
                    )
            found += len(chunk)
    if found < expected:
        raise InputError(f"{path} is incomplete: it ends after {found} of {expected} bytes.", _COPY_AGAIN)


def _check_nrrd(path: Path) -> None:
    """The voxels behind an attached header must be all there."""
    with path.open("rb") as file:
        if not file.readline(16).startswith(b"NRRD"):
            raise InputError(f"{path} is incomplete: it has no NRRD header.", _COPY_AGAIN)
        fields = {}
        while (line := file.readline(1 << 20)) not in (b"\n", b"\r\n", b""):
            key, separator, value = line.decode("utf-8", "replace").partition(": ")
            if separator:
                fields[key.lower()] = value.strip()
        if "data file" in fields or "datafile" in fields:
            return
        if "space directions" not in fields:
            _warn_of_orientation(path, "it has no space directions")
        kind = fields.get("type", "").removeprefix("signed ").removeprefix("unsigned ").removesuffix(" int")
        size = _NRRD_BYTES.get(kind)
        if size is None or fields.get("encoding") not in ("raw", "gzip", "gz"):
            return
        expected = size * math.prod(int(n) for n in fields["sizes"].split())
        found = 0
        with file if fields["encoding"] == "raw" else gzip.open(file) as voxels:
            while chunk := voxels.read(_CHUNK):
                found += len(chunk)
    if found < expected:
        raise InputError(f"{path} is incomplete: it holds {found} of {expected} bytes of voxels.", _COPY_AGAIN)


def _warn_of_orientation(path: Path, why: str) -> None:
    logging.getLogger(__name__).warning(
        "%s does not say how the patient lies (%s): the result may be wrong. Check left, right, front and back.",
        path.name,
        why,
    )


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
