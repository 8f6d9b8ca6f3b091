"""What the corrected slices tell of a voxel by how it looks, not by where it lies: three hints for the network.

Each says how far a voxel is like those that the label has on the corrected slices, and unlike those around it there: by
the patch around it, compared with patches near the same place; by its intensity; by intensities and the model's score
together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional

LOOKED, STEP = 4, 2  # pixels: how far on a corrected slice a like patch is looked for, and between those looked at
PATCH = 5  # pixels, the side of a patch
UNLIKE = 0.3  # of the image's standard deviation: patches that differ by more count little
BAND = 8.0  # pixels around the edge of a label, that its intensities are compared in
BINS = 24
HELD = 5.0  # how strongly what is fitted is held at nothing
_STEPS = 8  # of Newton's method
_SUREST = 8.0  # log odds
_FEWEST = 5  # pixels on each side
_AT_ONCE = 4  # planes, whose patches are compared at once


def by_patches(image: np.ndarray, slice_image: np.ndarray, label: np.ndarray) -> np.ndarray:
    """float32 (a, b, c) from -1 to 1: what like patches of a slice have, near the same place.

    Args:
        image: (a, b, c) of standard deviation 1.
        slice_image: (b, c), a plane of the same image.
        label: bool (b, c), what the user says of that plane.
    """
    plane = torch.from_numpy(slice_image.copy())
    signs = torch.from_numpy(np.where(label, 1, -1).astype(np.float32))
    parts = [image[start : start + _AT_ONCE] for start in range(0, len(image), _AT_ONCE)]
    return np.concatenate([_by_patches(torch.from_numpy(one)[:, None], plane, signs)[:, 0].numpy() for one in parts])


@torch.no_grad()
def _by_patches(seen: torch.Tensor, plane: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
    total, weights = torch.zeros_like(seen), torch.full_like(seen, 1e-6)
    rows, columns = (torch.arange(length) for length in plane.shape)
    for down in range(-LOOKED, LOOKED + 1, STEP):
        for right in range(-LOOKED, LOOKED + 1, STEP):
            there = (rows + down).clamp(0, len(rows) - 1)[:, None], (columns + right).clamp(0, len(columns) - 1)
            differ = functional.avg_pool2d((seen - plane[there]) ** 2, PATCH, 1, PATCH // 2, count_include_pad=False)
            nearer = (down**2 + right**2) * 1.125 / LOOKED**2
            weight = (differ.mul_(-1 / (2 * UNLIKE**2)) - nearer).exp_()
            total += weight * signs[there]
            weights += weight
    return total / weights


def by_intensity(smooth: np.ndarray, planes: Sequence[np.ndarray], away: Sequence[np.ndarray]) -> np.ndarray:
    """float32, shaped as ``smooth``: log of how much more often an intensity lies within the label than around it.

    Args:
        smooth: (a, b, c) an image.
        planes: (b, c) corrected ones of it.
        away: for each, pixels to the edge of the label, negative outside.
    """
    inside = np.concatenate([plane[(its > 0) & (its < BAND)] for plane, its in zip(planes, away, strict=True)])
    around = np.concatenate([plane[(its <= 0) & (its > -BAND)] for plane, its in zip(planes, away, strict=True)])
    if min(len(inside), len(around)) < _FEWEST:
        return np.zeros(smooth.shape, np.float32)
    low, high = np.percentile(np.concatenate([inside, around]), (1, 99))
    edges = np.linspace(low, max(high, low + 1e-6), BINS + 1)
    shares = []
    for values in (inside, around):
        counts = ndimage.gaussian_filter1d(np.histogram(values.clip(low, edges[-1]), edges)[0] + 0.5, 1.0)
        shares.append(np.log(counts / counts.sum()))
    found = (shares[0] - shares[1]).astype(np.float32)
    return found[((smooth - low) * (BINS / (edges[-1] - low))).astype(int).clip(0, BINS - 1)]


def maps(image: np.ndarray, score: np.ndarray, own: np.ndarray) -> Iterator[np.ndarray]:
    """Arrays (a, b, c), of planes each for itself, one after the other, that ``fitted`` weighs.

    Args:
        own: pixels to the edge of the model's label, negative outside.
    """
    smooth, wide = (ndimage.gaussian_filter(image, (0, sigma, sigma)) for sigma in (1.0, 3.0))
    sure = score.clip(-_SUREST, _SUREST) / 4
    yield np.ones_like(image)
    yield sure
    yield ndimage.gaussian_filter(sure, (0, 2.0, 2.0))
    yield own.clip(-8, 8) / 4
    yield image
    yield smooth
    yield wide
    yield smooth**2
    yield sure * smooth


def fitted(its: np.ndarray, score: np.ndarray, label: np.ndarray, near: np.ndarray) -> np.ndarray:
    """float32 (maps,) weights of maps whose sum is to be added to the score: logistic regression, held at nothing.

    Args:
        its: (maps, planes, b, c) of the corrected planes.
        score: (planes, b, c).
        label: bool of the same shape, what is right.
        near: bool of the same shape, the pixels that count.
    """
    chosen = its[:, near].T.astype(np.float64)
    if len(chosen) < _FEWEST:
        return np.zeros(len(its), np.float32)
    said, right = score[near].clip(-_SUREST, _SUREST), label[near]
    middles, scales = chosen.mean(axis=0), chosen.std(axis=0) + 1e-6
    middles[0], scales[0] = 0, 1
    chosen = (chosen - middles) / scales
    held = np.full(len(scales), HELD)
    held[0] = 1
    weights = np.zeros(len(scales))
    for _ in range(_STEPS):
        found = 1 / (1 + np.exp(-(said + chosen @ weights).clip(-30, 30)))
        curved = (chosen * (found * (1 - found) + 1e-4)[:, None]).T @ chosen + np.diag(held)
        weights -= np.linalg.solve(curved, chosen.T @ (found - right) + held * weights)
    result = weights / scales
    result[0] -= (result * middles).sum()
    return result.astype(np.float32)
