"""Pixels that a DICOM header names as padding (PS3.3 C.7.5.1.1.2): they lie outside the field of view."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from pydicom.dataset import Dataset

Range = tuple[float, float]


def padding_of(header: Dataset, scale: Dataset) -> Range | None:
    """The least and greatest value, rescaled, that stands for padding; None where the header names none.

    Args:
        scale: what has RescaleSlope and RescaleIntercept.
    """
    try:
        bits, signed = int(header.BitsAllocated), header.get("PixelRepresentation") == 1
        slope, intercept = float(scale.get("RescaleSlope") or 1), float(scale.get("RescaleIntercept") or 0)
        named = [header.get(keyword) for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
        stored = [_number(value, bits, signed) for value in named if value is not None]
    except (AttributeError, TypeError, ValueError):  # badly written
        return None
    if named[0] is None:
        return None
    ends = sorted(value * slope + intercept for value in stored)
    half = abs(slope) / 2  # whole numbers and fractions differ by rounding
    return ends[0] - half, ends[-1] + half


def fill_padding(voxels: np.ndarray, paddings: Sequence[Range | None]) -> str:
    """Give padding the value of background, where it would drown the image: 0, or the least value if that is below 0.

    That is where it lies further from what was measured than the range of this. Nearer to it, as -2000 in CT, it does
    no harm; and some headers name a value that was measured, too.

    Args:
        voxels: (n, y, x), rescaled; changed in place.
        paddings: of each slice, as :func:`padding_of` has it.

    Returns:
        a sentence with the count; "" where nothing was changed.
    """
    if all(padding is None for padding in paddings):
        return ""
    masks = [_inside(pixels, padding) for pixels, padding in zip(voxels, paddings, strict=True)]
    padded = _extremes(voxels, masks)
    measured = _extremes(voxels, (~mask for mask in masks))
    if padded is None or measured is None:
        return ""
    least, most = measured
    reach = most - least
    if padded[1] >= least - reach and padded[0] <= most + reach:
        return ""
    fill = min(0.0, least)
    for pixels, mask in zip(voxels, masks, strict=True):
        pixels[mask] = fill
    count = sum(int(mask.sum()) for mask in masks)
    return (
        f"{count} voxels ({count / voxels.size:.1%}) hold {padded[0]:g}, which its header names as padding "
        f"(PixelPaddingValue): they were taken as outside the field of view, with the value {fill:g}."
    )


def _number(value: int | bytes, bits: int, signed: bool) -> int:
    """As the pixels are stored: some headers name it with the other sign, and implicit ones do not tell its kind."""
    number = int.from_bytes(value, "little") if isinstance(value, bytes) else int(value)
    number %= 1 << bits
    return number - (1 << bits) if signed and number >> (bits - 1) else number


def _inside(pixels: np.ndarray, padding: Range | None) -> np.ndarray:
    return np.zeros(pixels.shape, bool) if padding is None else (pixels > padding[0]) & (pixels < padding[1])


def _extremes(voxels: np.ndarray, masks: Iterable[np.ndarray]) -> Range | None:
    """The least and the greatest voxel within the masks, if there is any."""
    parts = (pixels[mask] for pixels, mask in zip(voxels, masks, strict=True))
    ends = [(float(part.min()), float(part.max())) for part in parts if part.size]
    return (min(low for low, _ in ends), max(high for _, high in ends)) if ends else None
