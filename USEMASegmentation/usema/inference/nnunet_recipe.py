"""What nnU-Net does to a volume before its network sees it, without nnU-Net.

The order is that of nnU-Net's ``DefaultPreprocessor``: transpose, crop to non-zero, normalise, resample. Its inverse
is in `logits_to_labels`. Where nnU-Net would lose the image (a single absurd value, values that single precision does
not tell apart), this does not; see `intensities`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import scipy
import torch

from ..errors import InputError
from ..volumes.geometry import Geometry
from .intensities import values_of
from .logits_to_labels import LogitsToLabels
from .memory import free_memory
from .normalization import SCHEMES, SHIFT_INVARIANT
from .outputs import Outputs
from .plan import LINEAR_TOGETHER, SPLINE, Plan
from .resampling import resample_image, resample_image_linear, resample_labels, resampled_shape, separate_axis
from .tiling import Tiling


class NnUNetRecipe:
    """nnU-Net's preprocessing as a recipe (see ``preprocessing.Recipe``).

    Args:
        values: a Plan as a dictionary.

    Attributes:
        device: a GPU that may resample; None: the CPU does.
    """

    tiling = Tiling
    takes_strips = False
    previous_is_mask = False

    def __init__(self, values: dict):
        self.plan = Plan.from_dict(values)
        self.channels = len(self.plan.normalization)
        self.patch_size = self.plan.patch_size
        self.device: torch.device | None = None

    def shape(self, array: np.ndarray, geometry: Geometry) -> tuple[int, int, int]:
        bounds, forward = nonzero_bounds(array), self.plan.transpose_forward
        cropped = [bounds[axis].stop - bounds[axis].start for axis in forward]
        return resampled_shape(cropped, *_spacings(geometry.spacing_zyx, self.plan))

    def resolution(self, geometry: Geometry) -> tuple[float, float, float]:
        _, spacing = _spacings(geometry.spacing_zyx, self.plan)
        return tuple(spacing[self.plan.transpose_forward.index(axis)] for axis in range(3))

    def prepare(self, array: np.ndarray, geometry: Geometry, previous: np.ndarray | None = None) -> Preprocessed:
        return preprocess(array, geometry.spacing_zyx, self.plan, previous, self.device)


@dataclass(frozen=True, eq=False)
class Preprocessed:
    """A volume as the network wants it, and what leads back to the grid it came from.

    Args:
        data: (C, a, b, c) float32, C-ordered; axes transposed, cropped, resampled, normalised; then, in a cascade, the
            labels of the previous part.
        input_shape: (z, y, x) of the array before preprocessing.
        transpose_forward: as in `Plan`.
        crop: where the cropped volume lies in the transposed array; three slices.
        spacing: of ``data``, mm.
        input_spacing: of the transposed array, mm.
        separate: the axis of ``data`` along which logits come back by the nearest slice; None: all go linearly.
        exact: which of two equally near slices that is, see ``resampling.nearest_indices``.
        notes: what was done that the user should know, in sentences.
        along: which of the network's axes is the first of ``data``, see ``turned``.
    """

    data: np.ndarray
    input_shape: tuple[int, int, int]
    transpose_forward: tuple[int, int, int]
    crop: tuple[slice, slice, slice]
    spacing: tuple[float, float, float]
    input_spacing: tuple[float, float, float]
    separate: int | None
    exact: bool = False
    notes: list[str] = field(default_factory=list)
    along: int = 0

    def turned(self, along: int) -> Preprocessed:
        """The same with another axis first, along which slabs of logits are then given; a view, nothing is copied."""
        order = [along, *(axis for axis in range(3) if axis != along)]

        def moved(values: Sequence) -> tuple:
            return tuple(values[axis] for axis in order)

        return replace(
            self,
            data=np.moveaxis(self.data, 1 + along, 1),
            transpose_forward=moved(self.transpose_forward),
            crop=moved(self.crop),
            spacing=moved(self.spacing),
            input_spacing=moved(self.input_spacing),
            separate=None if self.separate is None else order.index(self.separate),
            along=along,
        )

    def collector(self, outputs: Outputs, keep_probabilities: bool, keep_margins: bool = False) -> LogitsToLabels:
        """What leads the logits back to the grid of the array that was prepared."""
        return LogitsToLabels(self, outputs, keep_probabilities, keep_margins)

    @property
    def cropped_shape(self) -> tuple[int, int, int]:
        """The three lengths after cropping, before resampling."""
        return tuple(part.stop - part.start for part in self.crop)

    @property
    def places(self) -> tuple[tuple[int, np.ndarray], ...]:
        """See ``preprocessing.Prepared``."""
        lengths = zip(self.crop, self.data.shape[1:], strict=True)
        within = [part.start + (part.stop - part.start) / n * (np.arange(n) + 0.5) - 0.5 for part, n in lengths]
        return tuple(zip(self.transpose_forward, within, strict=True))


def preprocess(
    array: np.ndarray,
    spacing_zyx: Sequence[float],
    plan: Plan,
    previous: np.ndarray | None = None,
    device: torch.device | None = None,
) -> Preprocessed:
    """Prepare a volume for the network that ``plan`` belongs to.

    Beside ``array`` this needs one float32 copy of its non-zero part; where the spacing changes, also the resampled
    copy and one channel that is resampled along two axes only.

    Args:
        array: (C, z, y, x), any number type and memory order; not changed.
        spacing_zyx: mm.
        previous: (z, y, x) labels of the previous stage of a cascade; they become one more channel, as they are:
            one channel a label is made tile by tile.
        device: a GPU that may resample by splines; None: the CPU does.

    Raises:
        InputError: the number of channels is not the model's, every voxel is zero, or an axis is too thin.
    """
    if array.ndim != 4 or len(array) != len(plan.normalization):
        raise InputError(
            f"The model expects {len(plan.normalization)} channel(s) of a 3D volume, not the shape {array.shape}.",
            "Choose as many volumes as the model has channels.",
        )
    forward = plan.transpose_forward
    input_spacing, spacing = _spacings(spacing_zyx, plan)
    bounds = nonzero_bounds(array)
    crop = tuple(bounds[axis] for axis in forward)
    cropped = array.transpose(0, *(1 + axis for axis in forward))[(slice(None), *crop)]
    new_shape = resampled_shape(cropped.shape[1:], input_spacing, spacing)
    refuse_too_large(len(cropped) + (previous is not None), new_shape, input_spacing)

    data, notes = _normalized(cropped, plan)
    together = plan.resampling == LINEAR_TOGETHER
    separate, exact = None if together else separate_axis(input_spacing, spacing), plan.resampling != SPLINE
    if exact:
        data = resample_image_linear(data, new_shape, separate)
    else:
        data = resample_image(data, new_shape, separate, device)
    if previous is not None:
        labels = resample_labels(previous.transpose(forward)[crop], new_shape, separate, exact)
        data = np.concatenate([data, labels[None].astype(np.float32)])
    back = None if together else separate_axis(spacing, input_spacing)
    return Preprocessed(data, array.shape[1:], forward, crop, spacing, input_spacing, back, exact, notes)


def _spacings(spacing_zyx: Sequence[float], plan: Plan) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Spacing of the transposed array, before and after resampling."""
    before = tuple(float(spacing_zyx[axis]) for axis in plan.transpose_forward)
    # A 2D configuration does not touch the distance between slices.
    return before, plan.spacing if plan.dimensions == 3 else (before[0], *plan.spacing)


def refuse_too_large(channels: int, shape: Sequence[int], input_spacing: Sequence[float]) -> None:
    """Raises InputError for a wrong spacing in a header, metres for millimetres say, before memory is asked for."""
    needed, free = 4 * channels * math.prod(int(length) for length in shape), free_memory("cpu")
    if free is not None and needed > free:
        raise InputError(
            f"At the model's spacing it has {' x '.join(map(str, shape))} voxels, {needed / 2**30:.0f} GiB, and "
            f"{free / 2**30:.1f} GiB are free. Its own spacing is {' x '.join(f'{mm:g}' for mm in input_spacing)} mm.",
            "Check the spacing; if it is right, segment a smaller part of the volume.",
        )


def nonzero_bounds(array: np.ndarray) -> list[slice]:
    """The smallest box around what is not zero in any channel; one slice each for z, y and x."""
    in_z, in_y, in_x = (np.zeros(length, bool) for length in array.shape[1:])
    for index in range(array.shape[1]):  # slice by slice: a mask of the whole volume is never needed
        nonzero = (array[:, index] != 0).any(axis=0)
        in_y |= nonzero.any(axis=1)
        in_x |= nonzero.any(axis=0)
        in_z[index] = nonzero.any()
    if not in_z.any():
        raise InputError("The volume is zero everywhere.", "Choose a volume that shows something.")
    occupied = (np.flatnonzero(axis) for axis in (in_z, in_y, in_x))
    return [slice(int(indices[0]), int(indices[-1]) + 1) for indices in occupied]


def _normalized(cropped: np.ndarray, plan: Plan) -> tuple[np.ndarray, list[str]]:
    """A float32 copy (C, a, b, c), C-ordered, normalised; and what was done beyond nnU-Net's rules."""
    data, notes = np.empty(cropped.shape, np.float32), []
    mask = None
    if any(plan.use_mask_for_norm):
        # Holes never touch the border of the crop, so filling them there is filling them in the whole volume.
        mask = scipy.ndimage.binary_fill_holes((cropped != 0).any(axis=0))
    channels = zip(cropped, data, plan.normalization, plan.use_mask_for_norm, plan.intensity_properties, strict=True)
    for source, channel, scheme, masked, properties in channels:
        shift = _copy(source, channel, scheme, notes)
        SCHEMES[scheme](channel, mask if masked else None, properties)
        if shift and masked:
            channel[~mask] = 0  # where nnU-Net leaves the zero that was there
    return data, notes


def _copy(source: np.ndarray, channel: np.ndarray, scheme: str, notes: list[str]) -> float:
    """Into single precision, with what is absurd cut off and what is large shifted; returns the shift."""
    limits, shift = None, 0.0
    if scheme in SHIFT_INVARIANT:
        values = values_of(source)
        shift = values.offset
        if values.absurd:
            limits = (values.low, values.high)
            notes.append(values.note)
    elif source.dtype == np.float64:
        limits = (np.finfo(np.float32).min, np.finfo(np.float32).max)
    for plane, out in zip(source, channel, strict=True):
        if limits is not None:
            plane = plane.clip(*limits)
        out[:] = plane if not shift else plane.astype(np.float64) - shift
    return shift
