"""Shapes, what they measure by definition, and how 3D Slicer writes them: for the tests of evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk


def by_definition(
    prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, ...], tolerance: float
) -> tuple[float, float, float]:
    """Dice, surface Dice and 95 % Hausdorff distance, from every pair of surface voxels."""

    def surface(mask):
        padded = np.pad(mask, 1)
        inside = padded.copy()
        for axis in range(3):
            inside &= np.roll(padded, 1, axis) & np.roll(padded, -1, axis)
        return (np.argwhere(padded & ~inside) - 1) * np.array(spacing)

    one, other = surface(prediction), surface(reference)
    distances = np.linalg.norm(one[:, None] - other[None], axis=2)
    there, back = distances.min(axis=1), distances.min(axis=0)
    dice = 2 * (prediction & reference).sum() / (prediction.sum() + reference.sum())
    surface_dice = ((there <= tolerance).sum() + (back <= tolerance).sum()) / (len(there) + len(back))
    return dice, surface_dice, max(np.percentile(there, 95), np.percentile(back, 95))


def box(*slices: tuple[int, int], shape: tuple[int, ...] = (12, 14, 16)) -> np.ndarray:
    """A mask that is filled between the limits along each axis."""
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*limits) for limits in slices)] = True
    return mask


def write_segmentation(path: Path, image: sitk.Image, segments: dict[str, tuple[int, int]]) -> None:
    """As 3D Slicer writes it: tags for each segment, layers as components."""
    if path.name.endswith(".seg.nrrd"):
        for number, (name, (layer, value)) in enumerate(segments.items()):
            for key, text in {"ID": f"S{number}", "Name": name, "Layer": layer, "LabelValue": value}.items():
                image.SetMetaData(f"Segment{number}_{key}", str(text))
    sitk.WriteImage(image, str(path), useCompression=True)
