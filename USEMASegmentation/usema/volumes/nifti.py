"""NIfTI-1 and NIfTI-2, one file or a pair, and Analyze 7.5.

Not through ITK, for its reader hides damage and prints. Measured with SimpleITK 2.5: a file cut in half reads as a
volume whose second half is zero; a spacing of 0, NaN or infinity reads as 1 mm; NaN and infinite voxels read as 0;
axes that are off the perpendicular by 0.01 degrees are refused; sform and qform that disagree are chosen between in
silence; NIfTI-2, a NaN scale, and names such as ``a.Nii.Gz`` end in lines of the library. Headers are nibabel's.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError, MissingDependencyError
from .content import MOST_DEFLATED, Content
from .file_grid import COPY_AGAIN, check_dimensions
from .geometry import Geometry

try:
    from nibabel.analyze import AnalyzeHeader
    from nibabel.nifti1 import Nifti1Header, Nifti1PairHeader
    from nibabel.nifti2 import Nifti2Header, Nifti2PairHeader
except ImportError as error:  # 3D Slicer's own Python lacks it
    raise MissingDependencyError(
        "NIfTI files are read with nibabel, which is not installed.", "Install it: pip install nibabel."
    ) from error

from .nifti_grid import nifti_grid

# Codes of datatypes: number type, or (for what is refused) how many values a voxel has.
_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_COMPONENTS = {32: 2, 1792: 2, 2048: 2, 128: 3, 2304: 4}
_PER_SECOND = {8: 1, 16: 1000, 24: 1e6}  # NIfTI's codes of units of time
_BITS = {code: 8 * np.dtype(kind).itemsize for code, kind in _TYPES.items()} | {32: 64, 1792: 128, 128: 24, 2304: 32}


@dataclass(frozen=True, eq=False)
class _Layout:
    """Which bytes of ``file`` are voxels: ``count`` of ``code``, from ``start`` on."""

    header: AnalyzeHeader
    file: Path
    start: int
    lengths: tuple[int, ...]  # of all dimensions
    code: int
    slope: float
    intercept: float

    @property
    def voxel_bytes(self) -> int:
        return math.prod(self.lengths) * int(self.header["bitpix"]) // 8


def read_nifti(path: Path) -> tuple[np.ndarray, Geometry]:
    """Voxels (z, y, x) in the type of the file, or float where it has a scale, and their grid.

    Raises:
        InputError: the file is incomplete or damaged, or holds no scalar volume.
    """
    layout = _read_layout(path)
    size = _size(path, layout)
    (array,) = _arrays(path, layout, size)
    return array, nifti_grid(path, layout.header, size)


def read_nifti_grid(path: Path) -> Geometry:
    """The grid of :func:`read_nifti`, from the header alone. Raises InputError as it does, of the header."""
    layout = _read_layout(path)
    return nifti_grid(path, layout.header, _size(path, layout))


def read_nifti_slices(path: Path) -> Iterator[np.ndarray]:
    """The voxels of :func:`read_nifti`, slice by slice (y, x), read as they are asked for. Raises InputError as it."""
    layout = _read_layout(path)
    columns, rows, _ = _size(path, layout)
    for array in _arrays(path, layout, (columns, rows, 1)):
        yield array[0]


def _size(path: Path, layout: _Layout) -> tuple[int, int, int]:
    lengths, components = layout.lengths, _COMPONENTS.get(layout.code, 1)
    if len(lengths) > 4 and math.prod(lengths) == math.prod(lengths[:3]) * lengths[4]:
        lengths, components = lengths[:3], components * lengths[4]  # the fifth dimension is that of vectors
    return check_dimensions(path, lengths, components)


def frames_in_nifti(path: Path) -> tuple[int, float | None, bool]:
    """How many volumes the fourth dimension holds, how far one is from the next, and whether that is in seconds.

    Without a unit of time it is the number of the header; None where that is no distance.

    Raises:
        InputError: the header is damaged.
    """
    layout = _read_layout(path)
    if len(layout.lengths) < 4 or math.prod(layout.lengths) != math.prod(layout.lengths[:4]):
        return 1, None, False
    header = layout.header
    per_second = None if type(header) is AnalyzeHeader else _PER_SECOND.get(int(header["xyzt_units"]) & 0x38)
    step = float(header["pixdim"][4])
    if not (math.isfinite(step) and step > 0):
        return layout.lengths[3], None, False
    return layout.lengths[3], step / (per_second or 1), per_second is not None


def read_nifti_frames(path: Path) -> Iterator[tuple[np.ndarray, Geometry]]:
    """The volumes of the fourth dimension, one after the other, each as :func:`read_nifti` gives one.

    Raises:
        InputError: the file is incomplete or damaged, which may show only at the last one.
    """
    layout = _read_layout(path)
    size = check_dimensions(path, layout.lengths[:3], _COMPONENTS.get(layout.code, 1))
    geometry = nifti_grid(path, layout.header, size)
    for array in _arrays(path, layout, size):
        yield array, geometry


def _arrays(path: Path, layout: _Layout, size: tuple[int, int, int]) -> Iterator[np.ndarray]:
    """The voxels, volume by volume (z, y, x)."""
    if layout.code not in _TYPES:
        raise InputError(f"{path} holds voxels of NIfTI datatype {layout.code}.", "Save it as whole numbers or float.")
    dtype = np.dtype(layout.header.endianness + _TYPES[layout.code])
    length = math.prod(size) * dtype.itemsize
    raw, filled = np.empty(length, np.uint8), 0
    for part in _voxels(path, layout):
        rest = np.frombuffer(part, np.uint8)
        while len(rest):
            taken = rest[: length - filled]
            raw[filled : filled + len(taken)] = taken
            filled, rest = filled + len(taken), rest[len(taken) :]
            if filled == length:
                yield _scaled(raw.view(dtype).reshape(size[::-1]), layout)
                raw, filled = np.empty(length, np.uint8), 0  # pages of the last one are never touched


def _scaled(array: np.ndarray, layout: _Layout) -> np.ndarray:
    dtype = array.dtype
    if not dtype.isnative:
        array = array.byteswap(inplace=True).view(dtype.newbyteorder("="))
    if (layout.slope, layout.intercept) != (1, 0):
        # Single precision holds what a scale makes of 16 bits, not of more.
        exact = np.float32 if dtype.itemsize <= 2 or array.dtype == np.float32 else np.float64
        with np.errstate(over="ignore"):  # what is too large is infinite, and refused as that
            array = (array * np.float64(layout.slope) + layout.intercept).astype(exact)
    return array


def check_nifti(path: Path) -> None:
    """Read to the end without keeping the voxels. Raises InputError as :func:`read_nifti` does."""
    for _ in _voxels(path, _read_layout(path)):
        pass


def _voxels(path: Path, layout: _Layout) -> Iterator[bytes]:
    """The bytes of the voxels in parts. Raises InputError where some are missing or do not decompress."""
    try:
        with layout.file.open("rb") as file:
            content = Content(file)
            found = len(content.read(layout.start))
            for part in content.parts(layout.voxel_bytes):
                found += len(part)
                yield part
            content.finish()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} is damaged or incomplete: not all of its voxels can be read.", COPY_AGAIN) from error
    _refuse_incomplete(path, layout, found)


def _refuse_incomplete(path: Path, layout: _Layout, found: int) -> None:
    needed = layout.start + layout.voxel_bytes
    if found < needed:
        raise InputError(f"{path} is incomplete: it ends after {found} of {needed} bytes.", COPY_AGAIN)


def _read_layout(path: Path) -> _Layout:
    file, voxels_file = _files(path)
    try:
        with file.open("rb") as opened:
            block = Content(opened).read(540)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} is damaged or incomplete: its header cannot be read.", COPY_AGAIN) from error
    order = "<" if block[:4] in ((348).to_bytes(4, "little"), (540).to_bytes(4, "little")) else ">"
    second, pair = 540 in (int.from_bytes(block[:4], one) for one in ("little", "big")), file != voxels_file
    magic = block[4:8] if second else block[344:348]
    if len(block) < (540 if second else 348):
        raise InputError(f"{path} is damaged: it has no NIfTI header.", COPY_AGAIN)
    if not magic.startswith(b"n"):
        if not pair:  # Analyze, which has no such word, is always a pair
            raise InputError(f"{path} has a damaged header: it says {magic!r} where NIfTI says 'n+1'.", COPY_AGAIN)
        kind = AnalyzeHeader
    elif second:
        kind = Nifti2PairHeader if pair else Nifti2Header
    else:
        kind = Nifti1PairHeader if pair else Nifti1Header
    header = kind(block[: 540 if second else 348], endianness=order, check=False)
    # NIfTI-1 keeps the first byte of the voxels as a float; a file of its own may begin with them.
    start = float(header["vox_offset"])
    slope, intercept = (0.0, 0.0) if kind is AnalyzeHeader else map(float, (header["scl_slope"], header["scl_inter"]))
    least = 0 if pair else 544 if second else 352
    if not (least <= start < 2**31) or math.isinf(slope) or math.isinf(intercept):
        raise InputError(
            f"{path} has a damaged header: voxels start at byte {start:g}, scale {slope:g}, intercept {intercept:g}.",
            COPY_AGAIN,
        )
    if math.isnan(slope) or slope == 0:  # both mean that there is no scale
        slope, intercept = 1.0, 0.0
    datatype, bits = int(header["datatype"]), int(header["bitpix"])
    dimensions, *lengths = (int(length) for length in header["dim"])
    if not 1 <= dimensions <= 7 or min(lengths[:dimensions]) < 1:
        raise InputError(f"{path} has a damaged header: its dimensions are {[dimensions, *lengths]}.", COPY_AGAIN)
    if datatype in _BITS and bits != _BITS[datatype]:
        raise InputError(
            f"{path} has a damaged header: {bits} bits a voxel do not fit its datatype {datatype}.", COPY_AGAIN
        )
    intercept = 0.0 if math.isnan(intercept) else intercept
    layout = _Layout(header, voxels_file, int(start), tuple(lengths[:dimensions]), datatype, slope, intercept)
    most = voxels_file.stat().st_size * (MOST_DEFLATED if _is_compressed(voxels_file) else 1)
    _refuse_incomplete(path, layout, most)  # before memory of a size that a damaged header names
    return layout


def _is_compressed(file: Path) -> bool:
    with file.open("rb") as opened:
        return Content(opened).compressed


def _files(path: Path) -> tuple[Path, Path]:
    """The file of the header and that of the voxels."""
    partners = {".hdr": ".img", ".hdr.gz": ".img.gz", ".img": ".hdr", ".img.gz": ".hdr.gz"}
    suffix = next((one for one in partners if path.name.lower().endswith(one)), None)
    if suffix is None:
        return path, path
    stem = path.name[: -len(suffix)]
    wanted = [stem.lower() + partners[suffix], stem.lower() + partners[suffix].removesuffix(".gz")]
    wanted += [f"{name}.gz" for name in wanted]
    names = {other.name.lower(): other for other in path.parent.iterdir() if other.name.startswith(stem)}
    partner = next((names[name] for name in wanted if name in names), None)
    if partner is None:
        raise InputError(
            f"{path} is one of two files, and {stem + partners[suffix]} is not there.",
            "Copy both files into one folder.",
        )
    return (path, partner) if suffix.startswith(".hdr") else (partner, path)
