"""What the header of any format must describe: one scalar volume of three dimensions, on a straight grid."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import InputError
from .geometry import SHEAR_TOLERANCE_DEGREES, Geometry, shear_degrees

log = logging.getLogger(__name__)

COPY_AGAIN = "Copy or export it again."
GIVE_ALL_SLICES = "The model is for volumes: give all slices, or choose a model for images."

# Units of length as files write them, in lower case, in millimetres; what says nothing is taken as millimetres.
_UNITS = {
    1.0: ("mm", "millimeter", "millimetre", "", "?", "???", "none", "unknown"),
    10.0: ("cm", "centimeter", "centimetre"),
    100.0: ("dm", "decimeter", "decimetre"),
    1000.0: ("m", "meter", "metre"),
    1e-3: ("um", "µm", "μm", "micron", "micrometer", "micrometre"),
    1e-6: ("nm", "nanometer", "nanometre"),
    25.4: ("in", "inch", "inche"),
}
_MILLIMETRES = {name: factor for factor, names in _UNITS.items() for name in names}


def check_dimensions(path: Path, size: Sequence[int], components: int, kind: str = "") -> tuple[int, int, int]:
    """The size along x, y, z of what is one scalar volume; a fourth dimension of length 1 is none.

    Raises:
        InputError: it is a slice, several volumes, or has several values in each voxel.
    """
    size = tuple(size)
    while len(size) > 3 and size[-1] == 1:
        size = size[:-1]
    if len(size) > 3:
        raise InputError(
            f"{path} is {len(size)}D, size {size}: it holds {size[3]} volumes (time points).",
            "`usema segment` takes them as frames, one after the other, for a model of one channel. Where one volume "
            "is needed, save one of them as a file of its own.",
        )
    refuse_single_slice(size, str(path))
    if components > 1:
        raise InputError(
            f"{path} has {components} values in each voxel{f' ({kind})' if kind else ''}: colours, vectors or complex "
            "numbers.",
            "Save each channel as a volume of its own.",
        )
    return size


def refuse_single_slice(size: Sequence[int], name: str) -> None:
    """Raises InputError where ``size`` is that of a 2D image."""
    if len(size) < 3 or 1 in size:
        raise InputError(f"{name} is a 2D image, size {tuple(size)}.", GIVE_ALL_SLICES)


def grid_of_file(path: Path, size: Sequence[int], spacing: Sequence[float], origin, direction: np.ndarray) -> Geometry:
    """The grid that a header describes. A small shear is taken out with a warning.

    Args:
        direction: (3, 3), column i is voxel axis i; lengths other than 1 are part of the spacing.
        size, spacing, origin: as :class:`Geometry` has them.

    Raises:
        InputError: it is no grid; the message starts with the path.
    """
    lengths = np.linalg.norm(direction, axis=0)
    scaled = np.isfinite(lengths).all() and lengths.min() > 0 and np.abs(lengths - 1).max() > 1e-3
    if scaled and shear_degrees(direction) <= SHEAR_TOLERANCE_DEGREES:
        spacing, direction = np.multiply(spacing, lengths), direction / lengths
    try:
        geometry = Geometry(size, spacing, origin, np.ravel(direction).tolist())
    except InputError as error:
        raise InputError(f"{path}: {error.message}", error.hint) from error
    if np.abs(geometry.axes - direction).max() > 1e-9:
        log.warning(
            "%s: its axes are off the perpendicular by %.2f degrees, as rounding leaves them; the nearest "
            "perpendicular axes were taken.",
            path,
            shear_degrees(direction),
        )
    return geometry


def warn_of_orientation(path: Path, why: str) -> None:
    """A file that does not say how the patient lies is only worth a warning: it may be meant so."""
    log.warning(
        "%s does not say how the patient lies (%s): the result may be wrong. Check left, right, front and back.",
        path.name,
        why,
    )


def warn_of_spacing(path: Path, field: str) -> None:
    log.warning(
        "%s does not say its spacing (it has no %s): 1 mm was taken, so volumes in ml may be wrong.", path, field
    )


def millimetres(path: Path, unit: str) -> float:
    """How many millimetres a unit of length has. Raises InputError for one that is not known."""
    name = unit.strip().lower()
    factor = _MILLIMETRES.get(name, _MILLIMETRES.get(name.rstrip("s")))
    if factor is None:
        raise InputError(
            f"{path} gives its lengths in {unit!r}, which is no unit of length that is known here.",
            "Save it with mm, cm, m, um or inch.",
        )
    return factor


def quoted(text: str) -> list[str]:
    """The words in double quotes."""
    return re.findall(r'"([^"]*)"', text)
