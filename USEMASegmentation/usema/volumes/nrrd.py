"""What NRRD's header says that ITK does not look at: units, orientation, and whether the voxels are all there."""

from __future__ import annotations

import math
import os
import re
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..errors import InputError
from .content import Content
from .file_grid import COPY_AGAIN, millimetres, quoted, warn_of_orientation, warn_of_spacing
from .paths import link_to

_BYTES = {"char": 1, "short": 2, "int": 4, "long long": 8, "longlong": 8, "float": 4, "double": 8}
_NO_LENGTH = ("vector", "list", "rgb-color", "rgba-color", "2-vector", "3-vector", "4-vector", "3-color", "4-color")
_FRAMES = ("list", "time")  # kinds of an axis along which whole volumes lie
_OF_SPACE = (["none"], ["???"], ["domain"], ["space"])  # kinds, as ITK takes them
_ANATOMICAL = re.compile(r"(right|left)-(anterior|posterior)-superior(-time)?|[rl][ap]st?")
_REPLACED = re.compile(rb"(kinds|line ?skip|data ?file): ", re.IGNORECASE)  # in a header of our own


class NrrdHeader:
    """The fields of a header; names in lower case.

    Raises:
        InputError: there is no header.
    """

    def __init__(self, path: Path):
        self.path, self.fields = path, {}
        with path.open("rb") as file:
            if not file.readline(16).startswith(b"NRRD"):
                raise InputError(f"{path} is incomplete: it has no NRRD header.", COPY_AGAIN)
            while (line := file.readline(1 << 20)).strip(b"\r\n"):
                key, separator, value = line.decode("utf-8", "replace").partition(": ")
                field = key.strip().lower().replace(" ", "")
                if field == "datafile":
                    value = os.fsdecode(line).partition(": ")[2]  # the name of a file need not be UTF-8
                if separator and not key.startswith("#"):
                    self.fields[field] = value.strip()
                if field == "datafile" and value.strip().startswith("LIST"):
                    self.listed = [os.fsdecode(name).strip() for name in file]
                    break
            self.start = file.tell()

    @property
    def kinds(self) -> list[str]:
        """Of its axes, in lower case; empty where they are not told."""
        return self.fields.get("kinds", "").lower().split()

    @property
    def frame_axis(self) -> int | None:
        """Along which of its axes whole volumes lie, if it is one."""
        found = [axis for axis, kind in enumerate(self.kinds) if kind in _FRAMES]
        return found[0] if len(found) == 1 else None

    @contextmanager
    def readable_by_itk(self) -> Iterator[Path]:
        """The file; for one with an axis of time beside those of its space, a header that calls this axis a list.

        ITK counts time among the axes of space, where it lacks a direction or gives its place to another.

        Raises:
            InputError: it has such an axis, and its voxels are in several files; or what an axis is cannot be told.
        """
        axis, files = self._time_to_hide(), list(self._data_files())
        if axis is None or not all(file.is_file() for file in files):
            yield self.path
            return
        if len(files) > 1:
            raise InputError(
                f"{self.path} has an axis of time, and its voxels are in {len(files)} files, which is not read here.",
                "Write 'list' in place of 'time' among the kinds in its header.",
            )
        kinds = [*self.kinds[:axis], "list", *self.kinds[axis + 1 :]]
        with self.path.open("rb") as file:
            head = file.read(self.start).rstrip(b"\r\n").split(b"\n")
        lines = [line.rstrip(b"\r") for line in head if not _REPLACED.match(line)]
        skipped = self.fields.get("lineskip", "")
        skipped = (int(skipped) if skipped.isdecimal() else 0) + (0 if files else len(head) + 1)
        lines += [f"kinds: {' '.join(kinds)}\nline skip: {skipped}\ndata file: voxels\n".encode()]
        with tempfile.TemporaryDirectory(prefix="usema-") as folder:
            link_to(files[0] if files else self.path, Path(folder) / "voxels")
            header = Path(folder) / "volume.nhdr"
            header.write_bytes(b"\n".join(lines))
            yield header

    def check(self) -> None:
        """Refuse axes without a length, missing and damaged voxels.

        Raises:
            InputError, OSError, EOFError, ValueError, zlib.error: something is wrong.
        """
        self._check_axes()
        size, encoding = self._voxel_bytes(), self.fields.get("encoding", "").lower()
        files = list(self._data_files())
        for file in files:
            if not file.is_file():
                raise InputError(
                    f"The voxels of {self.path} are in a file that is not there: {file.name}.",
                    f"Copy it into {self.path.parent}, or export the volume again as one file (.nrrd).",
                )
        if encoding in ("bzip2", "bz2"):
            raise InputError(
                f"{self.path} is compressed with bzip2, which is not read here.", "Save it with gzip or uncompressed."
            )
        if size is None or encoding not in ("raw", "gzip", "gz") or len(files) > 1:
            return
        skip = max(0, int(self.fields.get("byteskip", 0)))
        with (files[0] if files else self.path).open("rb") as file:
            file.seek(0 if files else self.start)
            if encoding == "raw":
                found = file.seek(0, 2) - (0 if files else self.start) - skip
            else:
                found = Content(file).finish() - skip
        if found < size:
            raise InputError(f"{self.path} is incomplete: it holds {found} of {size} bytes of voxels.", COPY_AGAIN)

    def warn(self) -> None:
        """Say what the header leaves open."""
        space = self.fields.get("space", "")
        if "spacedirections" not in self.fields:
            warn_of_orientation(self.path, "it has no space directions")
            if "spacings" not in self.fields:
                warn_of_spacing(self.path, "spacings")
        elif not _ANATOMICAL.fullmatch(space.lower()):
            warn_of_orientation(self.path, f"its space is {space!r}" if space else "it does not name its space")

    def to_millimetres(self) -> tuple[np.ndarray, np.ndarray, str]:
        """Factors of the three axes of space, factors of the three voxel axes, and the units other than mm in words.

        Raises:
            InputError: a unit is not known.
        """
        ones = np.ones(3)
        units = quoted(self.fields.get("spaceunits", ""))[:3]
        if len(units) == 3:
            return np.array([millimetres(self.path, unit) for unit in units]), ones, _named(units)
        units, kinds = quoted(self.fields.get("units", "")), self.kinds
        if len(kinds) == len(units):  # an axis of components or time has no unit of length
            units = [
                unit for unit, kind in zip(units, kinds, strict=True) if kind in ("domain", "space", "???", "none")
            ]
        if len(units) != 3:
            return ones, ones, ""
        factors = np.array([millimetres(self.path, unit) for unit in units])
        same = len(set(factors)) == 1
        return (factors, ones, _named(units)) if same else (ones, factors, _named(units))

    def _time_to_hide(self) -> int | None:
        """The axis of time, unless ITK reads it as the last one of a file of four dimensions."""
        axis, kinds, directions = self.frame_axis, self.kinds, self._directions()
        undirected = [number for number, one in enumerate(directions) if one == "none"]
        unknown = [number for number in undirected if not kinds or kinds[number : number + 1] in _OF_SPACE]
        if unknown and len(directions) - len(undirected) == 3:
            example = " ".join("list" if number in undirected else "domain" for number in range(len(directions)))
            raise InputError(
                f"{self.path} does not say what its axis {unknown[0] + 1} is, which has no direction in space.",
                f"Correct the kinds in its header; where whole volumes lie along this axis: 'kinds: {example}'.",
            )
        if axis is None or kinds[axis] != "time" or len(kinds) != 4:
            return None
        if axis in undirected or not directions:
            return axis
        if axis < 3:
            raise InputError(
                f"{self.path} has time as axis {axis + 1} of 4, with a direction.",
                "Save it with the axis of time last.",
            )
        return None

    def _directions(self) -> list[str]:
        return re.findall(r"none|\([^)]*\)", self.fields.get("spacedirections", ""))

    def _check_axes(self) -> None:
        """ITK takes 1 mm, and a direction of its own choice, where an axis of space has none."""
        if "spacedirections" in self.fields:
            name, told = "space directions", self._directions()
            known = [one for one in told if one != "none"]
        elif "spacings" in self.fields:
            name, told = "spacings", self.fields["spacings"].split()
            known = [one for one in told if math.isfinite(float(one))]
        else:
            return
        if len(known) < min(3, self._axes_of_space()):
            raise InputError(
                f"{self.path} has a damaged header: {name} are {' '.join(told)}, of {len(known)} axes only.",
                "Correct it, or export the volume again.",
            )

    def _axes_of_space(self) -> int:
        """How many of its axes lie in space: of a picture in colour, one counts the colours."""
        if "spacedimension" in self.fields:
            return int(self.fields["spacedimension"])
        axes = int(self.fields.get("dimension", 3))
        if "space" in self.fields:
            return axes
        return axes - sum(kind in _NO_LENGTH for kind in self.kinds)

    def _voxel_bytes(self) -> int | None:
        kind = re.sub(r"^(un)?signed |(?<=.) int$|_t$|^u(?=[a-z])", "", self.fields.get("type", "").lower())
        bits = re.fullmatch(r"int(8|16|32|64)", kind)
        size = int(bits[1]) // 8 if bits else _BYTES.get(kind)
        try:
            return size and size * math.prod(int(length) for length in self.fields["sizes"].split())
        except (KeyError, ValueError):
            return None

    def _data_files(self) -> Iterator[Path]:
        name = self.fields.get("datafile")
        if name is None:
            return
        folder = self.path.parent
        if name.startswith("LIST"):
            yield from (folder / each for each in self.listed if each)
        elif pattern := re.fullmatch(r"(\S*%\S*d\S*) (-?\d+) (-?\d+) (-?\d+)( \d+)?", name):
            first, last, step = (int(pattern[i]) for i in (2, 3, 4))
            yield from (folder / (pattern[1] % i) for i in range(first, last + (1 if step > 0 else -1), step or 1))
        else:
            yield folder / name


def check_nrrd(path: Path) -> None:
    """Raises InputError where voxels are missing or damaged."""
    try:
        NrrdHeader(path).check()
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise InputError(f"{path} is damaged or incomplete: not all of its voxels can be read.", COPY_AGAIN) from error


def _named(units: list[str]) -> str:
    return ", ".join(dict.fromkeys(unit for unit in units if unit and millimetres(Path(), unit) != 1))
