"""Slices that are right as they stand, because the user corrected or accepted them: what the model can learn from.

Which ones hold corrections is read from the edit mask; what the user says of them is kept with the case. Those that the
user accepted stay as they are, whatever is done beside them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from numbers import Integral

import numpy as np
from scipy import ndimage
from usema.errors import InputError
from usema.volumes.masks import Box, box_around

from .Port import Port

# Voxels in a slice from which on it counts as corrected without being asked; strokes for a refinement do not count.
LEAST = 20
FLAT = 0.5  # a piece is of slices if it is at most so thick, of its other sides
_KEY = "slices"  # in the state of the case
_EVERY_NEIGHBOUR = np.ones((3, 3, 3), bool)


@dataclass(frozen=True, order=True)
class Slice:
    """Attributes:
    axis: of the array (0 is z), across which it lies.
    index: of its voxels along that axis.
    edited: how many of its voxels the user changed.
    accepted: the user said that it is right.
    ticked: it counts.
    """

    axis: int
    index: int
    edited: int = 0
    accepted: bool = False
    ticked: bool = False


def slicesOf(port: Port) -> list[Slice]:
    """All that hold corrections or were accepted, along each axis in their order."""
    found = {}
    for (axis, index), (count, isFlat) in _edited(port).items():
        found[axis, index] = Slice(axis, index, count, ticked=isFlat and count >= LEAST)
    for (axis, index), said in _said(port).items():
        one = found.get((axis, index), Slice(axis, index))
        one = replace(one, accepted=said.get("accepted", False), ticked=said.get("ticked", one.ticked))
        if one.edited or one.accepted:
            found[axis, index] = one
    return sorted(found.values())


def accept(port: Port, axis: int, index: int) -> None:
    """This slice is right as it stands.

    Args:
        axis: of the array, 0 (z) to 2 (x); ``index`` counts from 0 along it.

    Raises:
        InputError: the volume has no such slice.
    """
    _check(port, axis, index)
    _say(port, axis, index, accepted=True, ticked=True)


def tick(port: Port, axis: int, index: int, ticked: bool) -> None:
    """It counts, or it does not. Raises InputError as ``accept``."""
    _check(port, axis, index)
    _say(port, axis, index, ticked=ticked)


def told(slices: Iterable[Slice]) -> str:
    """Slices in words, by the axis of the array: "axis 0: 40, 52; axis 2: 7"."""
    indices: dict[int, list[str]] = {}
    for one in sorted(slices):
        indices.setdefault(one.axis, []).append(str(one.index))
    return "; ".join(f"axis {axis}: {', '.join(several)}" for axis, several in indices.items())


def acceptedIn(port: Port, box: Box) -> np.ndarray:
    """bool, in a box: the voxels of slices that the user accepted and did not untick."""
    return cut(acceptedPlaces(port), box)


def acceptedPlaces(port: Port) -> list[tuple[int, int]]:
    """(axis, index) of the slices that the user accepted and did not untick."""
    return [place for place, one in _said(port).items() if one.get("accepted") and one.get("ticked", True)]


def cut(places: Iterable[tuple[int, int]], box: Box) -> np.ndarray:
    """bool, in a box: the voxels of slices (axis, index)."""
    mask = np.zeros([part.stop - part.start for part in box], bool)
    for axis, index in places:
        if box[axis].start <= index < box[axis].stop:
            mask[(*[slice(None)] * axis, index - box[axis].start)] = True
    return mask


def _edited(port: Port) -> dict[tuple[int, int], tuple[int, bool]]:
    """(axis, index) -> how many voxels were changed, and whether slices seem to have been drawn there."""
    changed = [one.changed.trimmed() for one in port.edits().values()]
    box = box_around(*(one.box for one in changed))
    mask = np.zeros([part.stop - part.start for part in box], bool)
    for one in changed:
        mask |= one.on(box)
    if not mask.any():
        return {}
    followed = np.zeros(mask.shape, bool)
    for one in port.refined().values():
        followed |= one.on(box)
    # Without the planes in between: corrections may lie far apart in a large volume.
    planes = [_planes(mask, axis, part.start) for axis, part in enumerate(box)]
    inner = np.ix_(*(np.maximum(one, part.start) - part.start for one, part in zip(planes, box, strict=True)))
    mask, followed = mask[inner], followed[inner]
    for axis, one in enumerate(planes):
        np.moveaxis(mask, axis, 0)[one < 0] = False
    usual = int(np.argmin([np.count_nonzero(_profile(mask, axis)) for axis in range(3)]))
    components, count = ndimage.label(mask, _EVERY_NEIGHBOUR)
    sizes = np.bincount(components.ravel(), minlength=count + 1)
    counts, flat = Counter(), Counter()
    # pieces that are too small to tell how they were drawn
    small = sizes[components] < LEAST
    for pieces, amount in ((counts, mask & small), (flat, mask & small & ~followed)):
        for index, voxels in enumerate(_profile(amount, usual)):
            pieces[usual, index] += int(voxels)
    for number, place in enumerate(ndimage.find_objects(components), 1):
        if sizes[number] < LEAST:
            continue
        sides = [part.stop - part.start for part in place]
        axis = usual if sides[usual] == min(sides) else int(np.argmin(sides))
        isFlat = sides[axis] == 1 or sides[axis] <= FLAT * sorted(sides)[1]
        own = components[place] == number
        for pieces, amount in ((counts, own), (flat, own & ~followed[place] & isFlat)):
            for index, voxels in enumerate(_profile(amount, axis), place[axis].start):
                pieces[axis, index] += int(voxels)
    return {
        (axis, int(planes[axis][index])): (voxels, flat[axis, index] >= LEAST)
        for (axis, index), voxels in counts.items()
        if voxels
    }


def _planes(mask: np.ndarray, axis: int, start: int) -> np.ndarray:
    """Indices of the planes across an axis that hold something; -1 where there are others in between."""
    filled = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
    gaps = np.flatnonzero(np.diff(filled) > 1) + 1
    return np.insert(filled + start, gaps, -1)


def _profile(mask: np.ndarray, axis: int) -> np.ndarray:
    return mask.sum(axis=tuple({0, 1, 2} - {axis}))


def _said(port: Port) -> dict[tuple[int, int], dict]:
    """What the user has said of slices, as far as it can be read and lies in the volume."""
    found, state = {}, port.state.get(_KEY, {})
    for name, said in state.items() if isinstance(state, dict) else ():
        parts = name.split(" ")
        if len(parts) == 2 and all(part.isdigit() for part in parts) and isinstance(said, dict):
            axis, index = map(int, parts)
            if axis < 3 and index < port.margins.shape[axis]:
                found[axis, index] = {key: bool(value) for key, value in said.items()}
    return found


def _check(port: Port, axis: int, index: int) -> None:
    shape = port.margins.shape
    if not isinstance(axis, Integral) or not 0 <= axis < len(shape):
        raise InputError(f"There is no axis {axis!r:.40}.", "Axes are 0 (z), 1 (y) and 2 (x), as in the array.")
    if not isinstance(index, Integral) or not 0 <= index < shape[axis]:
        raise InputError(
            f"There is no slice {index!r:.40} along axis {axis}.", f"Slices along it are 0 to {shape[axis] - 1}."
        )


def _say(port: Port, axis: int, index: int, **what: bool) -> None:
    state = port.state
    before = {f"{axis} {index}": said for (axis, index), said in _said(port).items()}
    name = f"{axis} {index}"
    port.state = {**state, _KEY: {**before, name: {**before.get(name, {}), **what}}}
