"""Where a NIfTI volume lies: sform, qform or pixdim, and what to say where they contradict each other."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np
from nibabel.analyze import AnalyzeHeader
from nibabel.nifti1 import Nifti1Header
from nibabel.spatialimages import HeaderDataError

from ..errors import InputError
from .file_grid import grid_of_file, warn_of_orientation
from .geometry import SHEAR_TOLERANCE_DEGREES, Geometry, shear_degrees

log = logging.getLogger(__name__)

_MM = {1: 1000.0, 2: 1.0, 3: 0.001}  # codes of units: metres, millimetres, micrometres
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])
_DISAGREE = 0.5  # voxels between two places of one corner


def nifti_grid(path: Path, header: AnalyzeHeader, size: tuple[int, int, int]) -> Geometry:
    """The grid that 3D Slicer takes where it takes any; where the header contradicts itself, a warning says so.

    Raises:
        InputError: it gives no spacing, or a grid that is sheared.
    """
    pixdim = [float(value) for value in header["pixdim"][1:4]]
    sform, qform = (None, None) if type(header) is AnalyzeHeader else (_sform(header), _qform(header, pixdim))
    for axis, spacing in zip("xyz", pixdim, strict=True):
        whole = sform is not None and spacing < 0 and _same_length(sform, [abs(one) for one in pixdim], size)
        if not (math.isfinite(spacing) and spacing > 0) and not whole:
            raise InputError(
                f"{path} gives a spacing of {spacing:g} mm along {axis} (pixdim in its NIfTI header).",
                "Correct the spacing, or export the volume again.",
            )
    pixdim = [abs(one) for one in pixdim]
    if sform is None and qform is None:
        warn_of_orientation(path, "qform and sform are 0")
        chosen = np.diag([*pixdim, 1.0])
    else:
        chosen = _chosen(path, header, sform, qform, pixdim, size)
    units = 2 if type(header) is AnalyzeHeader else int(header["xyzt_units"]) & 7
    chosen = chosen * _MM.get(units, 1.0)
    lengths = np.linalg.norm(chosen[:3, :3], axis=0)
    return grid_of_file(path, size, lengths, _RAS_TO_LPS @ chosen[:3, 3], _RAS_TO_LPS @ chosen[:3, :3] / lengths)


def _sform(header: Nifti1Header) -> np.ndarray | None:
    sform = header.get_sform()
    usable = int(header["sform_code"]) > 0 and np.isfinite(sform).all() and abs(np.linalg.det(sform)) > 0
    return sform if usable else None


def _qform(header: Nifti1Header, pixdim: list[float]) -> np.ndarray | None:
    if int(header["qform_code"]) <= 0 or not all(math.isfinite(one) and one > 0 for one in pixdim):
        return None
    header = header.copy()
    header["pixdim"][0] = -1 if header["pixdim"][0] < 0 else 1  # often 0, which means 1
    try:
        qform = header.get_qform()
    except (ValueError, HeaderDataError):  # a quaternion that is no rotation
        return None
    return qform if np.isfinite(qform).all() else None


def _chosen(path: Path, header, sform, qform, pixdim, size) -> np.ndarray:
    sheared = 0.0 if sform is None else shear_degrees(sform[:3, :3])
    if qform is None:
        if not _same_length(sform, pixdim, size):
            lengths = " x ".join(f"{length:.4g}" for length in np.linalg.norm(sform[:3, :3], axis=0))
            log.warning(
                "%s contradicts itself: its sform has voxels of %s mm, its pixdim says %s mm. The sform was taken, for "
                "it also says where the volume lies; other programs may show it in another size.",
                path,
                lengths,
                " x ".join(f"{length:.4g}" for length in pixdim),
            )
        return sform
    if sform is None:
        return qform
    corners = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)]) * [*(length - 1 for length in size), 1]
    apart = np.linalg.norm((corners @ (sform - qform).T)[:, :3], axis=1).max()
    if sheared > SHEAR_TOLERANCE_DEGREES:
        log.warning(
            "%s has an sform that is sheared by %.1f degrees; its qform was taken, which is not. They place the volume "
            "up to %.1f mm apart.",
            path,
            sheared,
            apart,
        )
        return qform
    code = int(header["sform_code"])
    name, why = ("sform", "it is in scanner coordinates") if code == 1 else ("qform", f"the sform has code {code}")
    if apart > _DISAGREE * min(pixdim):
        log.warning(
            "%s contradicts itself: its sform and its qform place the volume up to %.1f mm apart. The %s was taken, as "
            "3D Slicer does (%s).",
            path,
            apart,
            name,
            why,
        )
    return sform if code == 1 else qform


def _same_length(sform: np.ndarray, pixdim: list[float], size: tuple[int, int, int]) -> bool:
    """Whether voxels of both lengths add up to the same volume, to half a voxel."""
    lengths = np.linalg.norm(sform[:3, :3], axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return bool((np.abs(lengths / pixdim - 1) * size <= _DISAGREE).all())
