"""Damage in files, found before their voxels are used: what ITK reads or writes past in silence.

Measured with SimpleITK 2.5: one changed byte in a compressed MetaImage reads as noise; a NIfTI or small NRRD file is
"written" although the disk is full. What it does with NIfTI is told in ``nifti``.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from .content import starts_with
from .file_grid import COPY_AGAIN
from .metaimage import check_metaimage
from .nrrd import check_nrrd
from .paths import VOLUME_SUFFIXES, picture_suffix, volume_suffix

NIFTI, NRRD, METAIMAGE = "NIfTI", "NRRD", "MetaImage"


def file_format(path: Path) -> str:
    """The format of a file by its content, for its name may be wrong.

    Raises:
        InputError: its name is that of another kind of file, or its content of none of the formats.
    """
    suffix = volume_suffix(path)
    if not suffix:
        if picture_suffix(path):
            raise InputError(
                f"{path} is a two-dimensional image, and the model is for volumes.",
                "Name a model for images with --model (`usema models list`), or give a volume.",
            )
        raise InputError(
            f"{path} is no kind of file that USEMA reads.",
            f"Give a file that ends in {', '.join(VOLUME_SUFFIXES)}, or a folder with one DICOM series.",
        )
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{path} is empty: it has no bytes.", COPY_AGAIN)
        start = starts_with(path, 2048)
        with path.open("rb") as file:
            plain = file.read(2048)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    if _is_nifti(start) or suffix.startswith(".img"):
        return NIFTI
    if plain.startswith(b"NRRD"):
        return NRRD
    if b"DimSize" in plain or b"ObjectType" in plain or b"ElementDataFile" in plain:
        return METAIMAGE
    if start != plain and (start.startswith(b"NRRD") or b"DimSize" in start):
        raise InputError(f"{path} is compressed as a whole, which only NIfTI may be.", "Unpack it (gunzip) first.")
    raise InputError(
        f"{path} cannot be read: its content is no NIfTI, NRRD or MetaImage.",
        "It is incomplete, damaged, or not what its name says: copy or export it again.",
    )


def check_file(path: Path) -> None:
    """Refuse a NIfTI, NRRD or MetaImage file whose voxels are not all there and whole.

    Raises:
        InputError: voxels are missing or do not decompress, or the header contradicts itself.
    """
    kind = file_format(path)
    if kind == NIFTI:
        from .nifti import check_nifti

        check_nifti(path)
    else:
        (check_nrrd if kind == NRRD else check_metaimage)(path)


def _is_nifti(start: bytes) -> bool:
    """Header sizes of NIfTI-1 (and Analyze) and NIfTI-2, in either byte order."""
    return start[:4] in [size.to_bytes(4, order) for size in (348, 540) for order in ("little", "big")]
