"""What nnU-Net does to a volume before its network sees it, without nnU-Net.

The order is that of nnU-Net's ``DefaultPreprocessor``: transpose, crop to non-zero, normalise, resample. Its inverse
is in `logits_to_labels`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..errors import InputError
from .memory import free_memory
from .normalization import SCHEMES
from .plan import Plan
from .resampling import resample_image, resampled_shape, separate_axis


@dataclass(frozen=True, eq=False)
class Preprocessed:
    """A volume as the network wants it, and what leads back to the grid it came from.

    Args:
        data: (C, a, b, c) float32, C-ordered; axes transposed, cropped, resampled, normalised.
        input_shape: (z, y, x) of the array before preprocessing.
        transpose_forward: as in `Plan`.
        crop: where the cropped volume lies in the transposed array; three slices.
        spacing: of ``data``, mm.
        input_spacing: of the transposed array, mm.
    """

    data: np.ndarray
    input_shape: tuple[int, int, int]
    transpose_forward: tuple[int, int, int]
    crop: tuple[slice, slice, slice]
    spacing: tuple[float, float, float]
    input_spacing: tuple[float, float, float]

    @property
    def cropped_shape(self) -> tuple[int, int, int]:
        """The three lengths after cropping, before resampling."""
        return tuple(part.stop - part.start for part in self.crop)


def preprocess(array: np.ndarray, spacing_zyx: Sequence[float], plan: Plan) -> Preprocessed:
    """Prepare a volume for the network that ``plan`` belongs to.

    Beside ``array`` this needs one float32 copy of its non-zero part; where the spacing changes, also the resampled
    copy and one channel that is resampled along two axes only.

    Args:
        array: (C, z, y, x), any number type and memory order; not changed.
        spacing_zyx: mm.

    Raises:
        InputError: the number of channels is not the model's, every voxel is zero, or an axis is too thin.
    """
    if array.ndim != 4 or len(array) != len(plan.normalization):
        raise InputError(
            f"The model expects {len(plan.normalization)} channel(s) of a 3D volume, not the shape {array.shape}.",
            "Choose as many volumes as the model has channels.",
        )
    forward = plan.transpose_forward
    input_spacing = tuple(float(spacing_zyx[axis]) for axis in forward)
    # A 2D configuration does not touch the distance between slices.
    spacing = plan.spacing if plan.dimensions == 3 else (input_spacing[0], *plan.spacing)

    bounds = _nonzero_bounds(array)
    crop = tuple(bounds[axis] for axis in forward)
    data = np.array(array.transpose(0, *(1 + axis for axis in forward))[(slice(None), *crop)], np.float32, order="C")
    _normalize(data, plan)
    new_shape = resampled_shape(data.shape[1:], input_spacing, spacing)
    _refuse_too_large(len(data), new_shape, input_spacing)
    data = resample_image(data, new_shape, separate_axis(input_spacing, spacing))
    return Preprocessed(data, array.shape[1:], forward, crop, spacing, input_spacing)


def _refuse_too_large(channels: int, shape: Sequence[int], input_spacing: Sequence[float]) -> None:
    """A wrong spacing in a header, metres for millimetres say, would ask for more memory than any computer has."""
    needed, free = 4 * channels * math.prod(int(length) for length in shape), free_memory("cpu")
    if free is not None and needed > free:
        raise InputError(
            f"At the model's spacing it has {' x '.join(map(str, shape))} voxels, {needed / 2**30:.0f} GiB, and "
            f"{free / 2**30:.1f} GiB are free. Its own spacing is {' x '.join(f'{mm:g}' for mm in input_spacing)} mm.",
            "Check the spacing; if it is right, segment a smaller part of the volume.",
        )


def _nonzero_bounds(array: np.ndarray) -> list[slice]:
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


def _normalize(data: np.ndarray, plan: Plan) -> None:
    # Holes never touch the border of the crop, so filling them there is filling them in the whole volume.
    mask = ndimage.binary_fill_holes((data != 0).any(axis=0)) if any(plan.use_mask_for_norm) else None
    channels = zip(data, plan.normalization, plan.use_mask_for_norm, plan.intensity_properties, strict=True)
    for channel, scheme, masked, properties in channels:
        SCHEMES[scheme](channel, mask if masked else None, properties)
