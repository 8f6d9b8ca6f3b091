"""What MONAI Auto3DSeg's SegResNets want to see, as a recipe (see ``preprocessing.Recipe``), and the way back.

One volume, or several that were normalised apart: normalise -> crop to what is above zero -> resample. The four of
BraTS: crop -> resample -> normalise. Source: the inference script of SlicerMONAIAuto3DSeg. One thing differs: the box
is looked for in the volume as it lies for the network, not as it lay in the file before its axes were turned.

Data have the axes (x, y, z), MONAI's order.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from ..errors import BundleError, InputError
from ..models.consistency import MOST_PATCH_SIDE, MOST_PATCH_VOXELS
from ..volumes.geometry import Geometry
from .auto3dseg_normalization import MODES, Values, needs_bounds, normalisation
from .grid_collector import GridCollector
from .monai_tiling import MonaiTiling
from .nnunet_recipe import refuse_too_large
from .outputs import Outputs
from .resampling import linear_matrix, resample_by

BRATS = "brats"
_KNOWN = {"normalization", "intensity_bounds", "crop_foreground", "spacing", "roi_size", "order"}
_MARGIN = 10  # voxels around what is above zero
# Spacings within these shares of the wanted one stay; MONAI compares with its tolerance for affines.
_NEAR, _TOLERANCE_MM = (0.75, 1.25), 1e-3
_AGAIN = "Update USEMA, or import the model again."


class Auto3DSegRecipe:
    """Auto3DSeg's preprocessing with a model's values.

    Args:
        values: "normalization": a mode (see ``auto3dseg_normalization.MODES``) for each channel; "intensity_bounds":
            two intensities, for some modes; "crop_foreground" (bool); "spacing": mm along x, y, z, or None: each
            volume's own; "roi_size": the tile; "order": absent, or "brats".
    """

    tiling = MonaiTiling
    takes_strips = True
    previous_is_mask = False

    def __init__(self, values: dict[str, Any]):
        _check(values)
        self._modes = tuple(values["normalization"])
        self._bounds = tuple(values.get("intensity_bounds") or ()) or None
        self._crops = values.get("crop_foreground", True)
        self._spacing = values.get("spacing")
        self._brats = values.get("order") == BRATS
        self.channels = len(self._modes)
        self.patch_size = tuple(values["roi_size"])

    def shape(self, array: np.ndarray, geometry: Geometry) -> tuple[int, int, int]:
        box = self._box(array, [])
        return tuple(axis.new for axis in self._axes(box, geometry))

    def resolution(self, geometry: Geometry) -> tuple[float, float, float]:
        return tuple(self._spacings(geometry)[::-1])

    def prepare(self, array: np.ndarray, geometry: Geometry, previous: np.ndarray | None = None) -> Auto3DSegCase:
        """See ``preprocessing.Recipe``."""
        if array.ndim != 4 or len(array) != self.channels:
            raise InputError(
                f"The model expects {self.channels} channel(s) of a 3D volume, not the shape {array.shape}.",
                "Choose as many volumes as the model has channels.",
            )
        if previous is not None:
            raise BundleError("The model's preprocessing cannot follow another network.", _AGAIN)
        notes: list[str] = []
        box = self._box(array, notes)
        axes = self._axes(box, geometry)
        shape = tuple(axis.new for axis in axes)
        refuse_too_large(self.channels, shape, geometry.spacing)
        data = np.empty((self.channels, *shape), np.float32)
        matrices = [axis.matrix for axis in axes]
        for mode, channel, out in zip(self._modes, array, data, strict=True):
            cropped = np.empty([part.stop - part.start for part in box], np.float32)
            if self._brats:
                cropped[:] = channel[box]
                resample_by(matrices, cropped.T, out)
                _apply(normalisation(mode, out, self._bounds, notes), out, out)
            else:
                _apply(normalisation(mode, channel, self._bounds, notes), channel[box], cropped)
                resample_by(matrices, cropped.T, out)
        return Auto3DSegCase(data, array.shape[1:], box, tuple(axes), list(dict.fromkeys(notes)))

    def _box(self, array: np.ndarray, notes: list[str]) -> tuple[slice, slice, slice]:
        """What is above zero, with a margin, in the array (C, z, y, x): in any channel of BraTS, else in the first."""
        whole = tuple(slice(0, length) for length in array.shape[1:])
        if not self._crops:
            return whole
        look: Values | None = None
        if self.channels > 1 and not self._brats:  # several inputs: what is above zero once it is normalised
            look = normalisation(self._modes[0], array[0], self._bounds, [])
        seen = [np.zeros(length, bool) for length in array.shape[1:]]
        for index in range(array.shape[1]):
            if self._brats:
                above = (array[:, index] > 0).any(axis=0)
            else:
                above = (array[0, index] if look is None else look(array[0, index])) > 0
            seen[0][index] = above.any()
            seen[1] |= above.any(axis=1)
            seen[2] |= above.any(axis=0)
        if not seen[0].any():
            notes.append("No voxel is above zero, as the model expects it where there is something: nothing was cut.")
            return whole
        box = []
        for axis in seen:
            (inside,) = np.nonzero(axis)
            box.append(slice(max(0, int(inside[0]) - _MARGIN), min(len(axis), int(inside[-1]) + 1 + _MARGIN)))
        return tuple(box)

    def _spacings(self, geometry: Geometry) -> list[float]:
        """Along x, y, z, as the network will see the volume."""
        if self._spacing is None:
            return list(geometry.spacing)
        low, high = _NEAR
        return [
            own if low * wanted - _TOLERANCE_MM <= own <= high * wanted + _TOLERANCE_MM else wanted
            for own, wanted in zip(geometry.spacing, self._spacing, strict=True)
        ]

    def _axes(self, box: Sequence[slice], geometry: Geometry) -> list[Axis]:
        start = [part.start for part in reversed(box)]
        lengths = [part.stop - part.start for part in reversed(box)]
        spacings = self._spacings(geometry)
        after = _lengths(geometry, start, lengths, spacings)
        every = zip(lengths, after, geometry.spacing, spacings, strict=True)
        return [Axis(old, new, after_mm / before_mm) for old, new, before_mm, after_mm in every]


def _lengths(geometry: Geometry, start: Sequence[int], lengths: Sequence[int], spacings: Sequence[float]) -> list[int]:
    """Voxels along x, y, z that a box has at other spacings: round((length - 1) * before / after + 1).

    Where this lies in the middle between two numbers, as half of all lengths do at twice the spacing, MONAI's rounding
    errors decide, which the box's place in the room brings. So that is computed as MONAI does (``compute_shape_offset``
    of its ``data.utils``): from the corners of the box, in RAS.
    """
    turned = np.diag([-1.0, -1.0, 1.0])
    before, after = np.eye(4), np.eye(4)
    before[:3, :3] = turned @ geometry.axes @ np.diag(geometry.spacing)
    before[:3, 3] = turned @ geometry.origin
    after[:3, :3] = turned @ geometry.axes @ np.diag(spacings)
    first = np.eye(4)
    first[:3, 3] = start
    corners = np.array([[*corner, 1.0] for corner in itertools.product(*((0.0, length - 1.0) for length in lengths))])
    placed = (np.linalg.solve(after, before @ first) @ corners.T)[:3]
    return np.maximum(1, np.round(np.ptp(placed, axis=1) + 1)).astype(int).tolist()


@dataclass(frozen=True)
class Axis:
    """One axis before and after resampling: the centres of the first voxels coincide (MONAI's ``Spacing``).

    Attributes:
        old, new: voxels before and after.
        step: of the voxels after, in voxels before.
    """

    old: int
    new: int
    step: float

    @property
    def matrix(self):
        """See ``resampling.linear_matrix``; None where nothing changes."""
        return None if self.step == 1 else linear_matrix(np.arange(self.new) * self.step, self.old)

    @property
    def nearest(self) -> np.ndarray:
        """For each voxel before the nearest one after.

        Where two are equally near, as for every second voxel at twice the spacing, torch's rounding errors in single
        precision decide, so torch is asked in MONAI's way (``AffineTransform``).
        """
        if self.step == 1:
            return np.arange(self.old)
        ones = [np.array([[2 / n, 1 / n - 1], [0, 1]], np.float32) for n in (self.new, self.old)]
        step = np.array([[1 / self.step, 0], [0, 1]], np.float32)
        (scale, shift), _ = ones[0] @ step @ np.linalg.inv(ones[1])
        affine = torch.tensor([[[scale, 0, 0, shift], [0, 1, 0, 0], [0, 0, 1, 0]]], dtype=torch.float32)
        points = functional.affine_grid(affine, [1, 1, 1, 1, self.old], align_corners=False)
        indices = torch.arange(self.new, dtype=torch.float32).reshape(1, 1, 1, 1, -1)
        found = functional.grid_sample(indices, points, "nearest", "border", align_corners=False)
        return found.reshape(-1).long().numpy()


@dataclass(frozen=True, eq=False)
class Auto3DSegCase:
    """A volume as the network wants it, and the way back.

    Attributes:
        data: (C, x, y, z) float32, C-ordered.
        input_shape: (z, y, x) of the array that was prepared.
        box: where the crop lies in it, along z, y, x.
        axes: how the crop was resampled along x, y, z.
        notes: for the user, in sentences.
    """

    data: np.ndarray
    input_shape: tuple[int, int, int]
    box: tuple[slice, slice, slice]
    axes: tuple[Axis, Axis, Axis]
    notes: list[str] = field(default_factory=list)

    @property
    def places(self) -> tuple[tuple[int, np.ndarray], ...]:
        """See ``preprocessing.Prepared``."""
        return tuple(
            (array_axis, self.box[array_axis].start + np.arange(axis.new) * axis.step)
            for array_axis, axis in zip((2, 1, 0), self.axes, strict=True)
        )

    def collector(self, outputs: Outputs, keep_probabilities: bool, keep_margins: bool = False) -> GridCollector:
        """What leads the logits back to the grid of the array that was prepared."""
        values_back = self._values_on_input if keep_margins else None
        return GridCollector(self.data.shape[1:], outputs, keep_probabilities, self._on_input, values_back)

    def _on_input(self, labels: np.ndarray, kept: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
        result = self._values_on_input(labels)
        if kept is None:
            return result, None
        probabilities = np.zeros((len(kept), *self.input_shape), kept.dtype)
        probabilities[0] = 1  # what was cut off is background
        for one, out in zip(kept, probabilities, strict=True):
            out[self.box] = self._values_on_input(one)[self.box]
        return result, probabilities

    def _values_on_input(self, values: np.ndarray) -> np.ndarray:
        x, y, z = np.ix_(*(axis.nearest for axis in self.axes))
        result = np.zeros(self.input_shape, values.dtype)
        result[self.box] = values[x, y, z].T
        return result


def _apply(normalise: Values, values: np.ndarray, out: np.ndarray) -> None:
    for plane, target in zip(values, out, strict=True):
        target[:] = normalise(plane)


def _check(values: dict[str, Any]) -> None:
    modes, roi, spacing = (values.get(key) for key in ("normalization", "roi_size", "spacing"))
    unknown = sorted(set(values) - _KNOWN)
    if unknown:
        problem = f"has {unknown[0]!r}, which is none of {', '.join(sorted(_KNOWN))}"
    elif not isinstance(modes, (list, tuple)) or not modes or not all(mode in MODES for mode in modes):
        problem = f"normalises by {modes!r}, which should be a list of {', '.join(MODES)}"
    elif any(map(needs_bounds, modes)) and not _is_range(values.get("intensity_bounds")):
        problem = f"has the intensity_bounds {values.get('intensity_bounds')!r}, which should be two growing numbers"
    elif not _are(roi, int) or max(roi) > MOST_PATCH_SIDE or math.prod(roi) > MOST_PATCH_VOXELS:
        problem = f"has the roi_size {roi!r}, which should be three whole numbers of voxels that fit into memory"
    elif spacing is not None and not _are(spacing, (int, float)):
        problem = f"has the spacing {spacing!r}, which should be three numbers above zero"
    elif not isinstance(values.get("crop_foreground", True), bool):
        problem = f"has crop_foreground {values['crop_foreground']!r}, which should be true or false"
    elif values.get("order", BRATS) != BRATS:
        problem = f"has the order {values['order']!r}; {BRATS} is the only one that is named"
    else:
        return
    raise BundleError(f"The model's preprocessing {problem}.", _AGAIN)


def _are(values: Any, kind: type | tuple[type, ...]) -> bool:
    return (
        isinstance(values, (list, tuple))
        and len(values) == 3
        and all(isinstance(value, kind) and not isinstance(value, bool) for value in values)
        and all(0 < value < math.inf for value in values)
    )


def _is_range(values: Any) -> bool:
    return (
        isinstance(values, (list, tuple))
        and len(values) == 2
        and all(isinstance(value, (int, float)) and math.isfinite(value) for value in values)
        and values[0] < values[1]
    )
