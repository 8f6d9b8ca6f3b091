"""Which regions a rough result shows: its components that may be one, each one's side of the patient, and its box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy

from ..errors import InputError
from ..models.metadata import ModelMetadata
from ..volumes.geometry import Geometry
from ..volumes.segments import millilitres
from .region import Box, crop_around

EVERY_NEIGHBOUR = np.ones((3, 3, 3), bool)
BELIEVED = 2  # a volume beyond the expected ones by more than this factor is another structure
_LEAST_ROUGH = 0.2  # of the least expected volume: what a rough network leaves of a structure, at the least
_APART_MM = 20.0  # left from right, between the middles of what was found, at the least
_OPPOSITE_MM = 35.0  # ... and along the other axes, at the most
_SAME_MM = 25.0  # pieces of one region lie nearer to its largest one than this
_MEDIAL_MM = 4.0  # what lies in the middle lies nearer to it than a region on one side by this, at the least


@dataclass(frozen=True, eq=False)
class Region:
    """Where one region lies.

    Attributes:
        says: its entry in ``find_regions.regions``.
        box: (z, y, x), of a crop's size.
        rough: bool, in the box: what the finder took for it.
    """

    says: dict[str, Any]
    box: Box
    rough: np.ndarray


@dataclass(frozen=True, eq=False)
class _Piece:
    """A component: its voxels (n, 3) as indices z, y, x; its volume; its middle in LPS millimetres."""

    voxels: np.ndarray
    ml: float
    middle: np.ndarray


def find_regions(rough: np.ndarray, metadata: ModelMetadata, geometry: Geometry) -> list[Region]:
    """The regions that a rough result shows, in the order of ``find_regions.regions``.

    Args:
        rough: (z, y, x) on ``geometry``, the finder's labels.

    Raises:
        InputError: there is one that may be left or right.
    """
    how = metadata.find_regions

    def of(labels: Sequence[str]) -> np.ndarray:
        return np.isin(rough, [1 + how["finder"]["labels"].index(name) for name in labels])

    pieces = _pieces(of(how["labels"]), geometry)
    least, most = (how["regions"][0]["expected_ml"][end] for end in (0, 1))
    anchors = [piece for piece in pieces if _LEAST_ROUGH * least <= piece.ml <= BELIEVED * most]
    if not anchors:
        return []
    sides = [says.get("side") for says in how["regions"]]
    chosen = {None: anchors[0]} if sides == [None] else _sided(anchors, of(how.get("medial", ())), geometry)
    if not chosen:
        raise InputError(
            "One side alone was found, and what else the volume shows does not tell which one it is.",
            "Give a volume that shows more, or cut this one to the structure: of a crop, no side is said.",
        )
    found = []
    for says in how["regions"]:
        anchor = chosen.get(says.get("side"))
        if anchor is not None:
            near = [one for one in pieces if np.linalg.norm(one.middle - anchor.middle) <= _SAME_MM]
            voxels = np.concatenate([one.voxels for one in near])
            whole = millilitres(len(voxels), geometry.spacing) >= least
            box = crop_around(voxels, metadata, geometry, largest=not whole)
            inside = np.zeros([part.stop - part.start for part in box], bool)
            places = voxels - [part.start for part in box]
            places = places[((places >= 0) & (places < inside.shape)).all(axis=1)]
            inside[tuple(places.T)] = True
            found.append(Region(says, box, inside))
    return found


def finds_all(rough: np.ndarray, metadata: ModelMetadata, geometry: Geometry) -> bool:
    try:
        return len(find_regions(rough, metadata, geometry)) == len(metadata.find_regions["regions"])
    except InputError:
        return False


def _pieces(mask: np.ndarray, geometry: Geometry) -> list[_Piece]:
    """The components of a mask (26 neighbours), the largest first."""
    components, _ = scipy.ndimage.label(mask, EVERY_NEIGHBOUR)
    pieces = []
    for number, place in enumerate(scipy.ndimage.find_objects(components), 1):
        voxels = np.argwhere(components[place] == number) + [part.start for part in place]
        pieces.append(_Piece(voxels, millilitres(len(voxels), geometry.spacing), _middle(voxels, geometry)))
    return sorted(pieces, key=lambda piece: -piece.ml)


def _middle(voxels: np.ndarray, geometry: Geometry) -> np.ndarray:
    """(3,) in LPS millimetres, of indices (n, 3) z, y, x."""
    return geometry.affine[:3, :3] @ voxels.mean(axis=0)[::-1] + geometry.origin


def _sided(anchors: Sequence[_Piece], medial: np.ndarray, geometry: Geometry) -> dict[str, _Piece]:
    """The left and the right one, by the patient's axes; empty where a single one may be either.

    Two that lie opposite each other show the middle between them. One alone, as in half a head, lies farther from the
    middle than what is medial on the same side, or around the middle itself.

    Args:
        medial: bool (z, y, x), such structures.
    """
    first = anchors[0]
    for other in anchors[1:]:
        away = np.abs(other.middle - first.middle)
        if away[0] >= _APART_MM and away[1:].max() <= _OPPOSITE_MM:
            left, right = sorted((first, other), key=lambda piece: -piece.middle[0])
            return {"left": left, "right": right}
    if not medial.any():
        return {}
    beyond = first.middle[0] - _middle(np.argwhere(medial), geometry)[0]
    return {"left" if beyond > 0 else "right": first} if abs(beyond) >= _MEDIAL_MM else {}
