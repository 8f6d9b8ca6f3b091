"""What MetaImage's header says that ITK does not look at: units, orientation, and whether the voxels are all there.

ITK trusts the numbers of the header. Measured with SimpleITK 2.5: an NDims of 99 ends the process; a
CompressedDataSize that is wrong or missing gives voxels of noise.
"""

from __future__ import annotations

import logging
import math
import os
import re
import zlib
from pathlib import Path
from typing import NoReturn

import numpy as np

from ..errors import InputError
from .file_grid import COPY_AGAIN, millimetres, warn_of_orientation, warn_of_spacing

log = logging.getLogger(__name__)

_CHUNK = 1 << 22  # bytes
_BYTES = {"CHAR": 1, "SHORT": 2, "INT": 4, "LONG": 4, "LONG_LONG": 8, "FLOAT": 4, "DOUBLE": 8}
_ORIENTATION = ("TransformMatrix", "Rotation", "Orientation")
_SPACING = ("ElementSpacing", "ElementSize")
_SCALE = (("Slope", 1), ("Offset", 0))
_MOST_DIMENSIONS = 10  # that MetaIO has room for


class MetaImageHeader:
    """The fields of a header, which is text and ends with the field that says where the voxels are."""

    def __init__(self, path: Path):
        self.path, self.fields, self.listed = path, {}, []
        with path.open("rb") as file:
            while "ElementDataFile" not in self.fields and (line := file.readline(1 << 16)):
                key, _, value = line.decode("utf-8", "replace").partition("=")
                if key.strip() == "ElementDataFile":
                    value = os.fsdecode(line).partition("=")[2]  # the name of a file need not be UTF-8
                self.fields[key.strip()] = value.strip()
            if self.fields.get("ElementDataFile", "").startswith("LIST"):
                self.listed = [os.fsdecode(name).strip() for name in file]
            self.start = file.tell()
        if "ElementDataFile" not in self.fields:
            raise InputError(f"{path} is incomplete: its header does not say where its voxels are.", COPY_AGAIN)

    def check(self) -> None:
        """Refuse wrong numbers, missing and damaged voxels. Raises InputError, OSError, ValueError or zlib.error."""
        self._check_numbers()
        source = self.fields["ElementDataFile"]
        local = source.upper() == "LOCAL"
        files = [self.path] if local else [self.path.parent / name for name in self._names(source)]
        for file in files:
            if not file.is_file():
                raise InputError(
                    f"The voxels of {self.path} are in a file that is not there: {file.name}.",
                    f"Copy it into {self.path.parent} and name it so in the header (ElementDataFile), or export the "
                    "volume again as one file (.mha).",
                )
        needed = self._voxel_bytes()
        if needed is None or len(files) != 1 or self._says("BinaryData", "false"):
            return
        with files[0].open("rb") as file:
            file.seek(self.start if local else 0)
            if self._says("CompressedData", "true"):
                found = self._inflated(file, local)
            else:
                found = file.seek(0, 2) - (self.start if local else max(0, int(self.fields.get("HeaderSize", 0))))
        if found < needed:
            raise InputError(f"{self.path} is incomplete: it holds {found} of {needed} bytes of voxels.", COPY_AGAIN)

    def warn(self) -> None:
        """Say what the header leaves open, or holds in vain."""
        if not any(name in self.fields for name in _ORIENTATION):
            warn_of_orientation(self.path, "it has no TransformMatrix")
        if not any(name in self.fields for name in _SPACING):
            warn_of_spacing(self.path, "ElementSpacing")
        scale = [float(self.fields.get(f"ElementToIntensityFunction{name}", default)) for name, default in _SCALE]
        if scale != [1, 0]:
            log.warning(
                "%s asks for a scale of %g and an offset of %g (ElementToIntensityFunction), which programs do not "
                "agree on: its values were taken as they are stored.",
                self.path,
                *scale,
            )

    def to_millimetres(self) -> tuple[np.ndarray, np.ndarray, str]:
        """Factors of the three axes of space, factors of the three voxel axes, and the unit in words if it is not mm.

        Raises:
            InputError: the unit is not known.
        """
        unit = self.fields.get("DistanceUnits", "mm")
        factor = millimetres(self.path, unit)
        return np.full(3, factor), np.ones(3), "" if factor == 1 else unit

    def _check_numbers(self) -> None:
        dimensions = self._counts("NDims", 1)[0]
        if dimensions > _MOST_DIMENSIONS:
            self._refuse("NDims")
        self._counts("DimSize", dimensions)
        if "ElementNumberOfChannels" in self.fields:
            self._counts("ElementNumberOfChannels", 1)
        lengths = dict.fromkeys((*_SPACING, "Offset", "Position", "Origin", "CenterOfRotation"), dimensions)
        lengths |= dict.fromkeys(_ORIENTATION, dimensions**2) | {
            f"ElementToIntensityFunction{one}": 1 for one, _ in _SCALE
        }
        for field in lengths.keys() & self.fields.keys():
            try:
                values = [float(word) for word in self.fields[field].split()]
            except ValueError:
                values = []
            if len(values) != lengths[field] or not all(map(math.isfinite, values)):
                self._refuse(field)

    def _counts(self, field: str, count: int) -> list[int]:
        words = self.fields.get(field, "").split()
        if len(words) != count or not all(word.isascii() and word.isdigit() and int(word) > 0 for word in words):
            self._refuse(field)
        return [int(word) for word in words]

    def _refuse(self, field: str) -> NoReturn:
        told = f"{field} = {self.fields[field][:80]}" if field in self.fields else f"{field} is missing"
        raise InputError(f"{self.path} has a damaged header: {told}.", "Correct it, or export the volume again.")

    def _says(self, field: str, value: str) -> bool:
        return self.fields.get(field, "").lower() == value

    def _names(self, source: str) -> list[str]:
        if source.startswith("LIST"):
            return [name for name in self.listed if name]
        if pattern := re.fullmatch(r"(\S*%\S*d\S*) (-?\d+) (-?\d+) (-?\d+)", source):
            first, last, step = (int(pattern[i]) for i in (2, 3, 4))
            return [pattern[1] % i for i in range(first, last + 1, step or 1)]
        return [source]

    def _voxel_bytes(self) -> int | None:
        kind = self.fields.get("ElementType", "").removeprefix("MET_").removesuffix("_ARRAY")
        size = _BYTES.get(kind, _BYTES.get(kind.removeprefix("U")))
        try:
            lengths = [int(length) for length in self.fields["DimSize"].split()]
            return size and size * math.prod(lengths) * int(self.fields.get("ElementNumberOfChannels", 1))
        except (KeyError, ValueError):
            return None

    def _inflated(self, file, local: bool) -> int:
        stream, found, start = zlib.decompressobj(), 0, file.tell()
        while not stream.eof:
            chunk = stream.unconsumed_tail or file.read(_CHUNK)
            data = stream.decompress(chunk, _CHUNK)
            if not chunk and not data:
                raise InputError(f"{self.path} is incomplete: its compressed voxels break off.", COPY_AGAIN)
            found += len(data)
        used = file.tell() - start - len(stream.unused_data)
        told = self.fields.get("CompressedDataSize", "")
        # Of a file of voxels alone ITK takes all; of others it takes what it is told, and noise where that is wrong.
        if told != str(used) and (told or local):
            raise InputError(
                f"{self.path} has {used} bytes of compressed voxels, but its header says CompressedDataSize = "
                f"{told or 'nothing'}.",
                f"Write CompressedDataSize = {used} into the header, or export the volume again.",
            )
        return found


def check_metaimage(path: Path) -> None:
    """Raises InputError where voxels are missing or damaged."""
    try:
        MetaImageHeader(path).check()
    except (OSError, ValueError, zlib.error) as error:
        raise InputError(f"{path} is damaged or incomplete: not all of its voxels can be read.", COPY_AGAIN) from error
