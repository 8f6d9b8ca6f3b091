"""What hospitals send: a labelled volume changed as other scanners, protocols and exports would change it.

Each change makes a copy of an image and says how a label map of that image gets onto the copy's grid. A model is asked
to segment the copy, and its result is compared with the reference on that grid, so nothing that the copy cannot hold is
asked of it.

Coarser voxels. A scanner's voxel is an average over its volume, so an image is smoothed before it is sampled at a
larger spacing; points taken without that show aliasing that no scanner makes. The filter is the Gaussian that widens
the point spread of the old voxel to that of the new one, their full widths at half maximum being the spacings:
sigma = sqrt(new^2 - old^2) / (2 sqrt(2 ln 2)) (Cardoso et al., Scale Factor Point Spread Function Matching, MICCAI
2015). The reference's one-hot masks go through the same filter and the same linear sampling, and the largest wins: the
best label map that the grid can hold. Nearest-neighbour labels would be off by up to half a voxel.

Finer voxels are interpolated linearly, image and masks alike: no detail is added.

The first new voxel begins where the first old one does. At twice the spacing its centre would lie on the face between
two old voxels, where a mask that ends there is exactly one half: background won each tie, and the sample's reference at
1 x 1 x 2 mm was 15 % too small. There it lies on the first old voxel's centre instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage
from usema.volumes.bounding_box import bounding_box
from usema.volumes.geometry import Geometry
from usema.volumes.volume import Volume, reorient

ALLOWED_DROP = 0.03  # of the Dice, to that of the unchanged volume
FWHM_PER_SIGMA = 2 * math.sqrt(2 * math.log(2))
MARGIN_MM = 2  # between a structure and where a smaller field of view ends


@dataclass(frozen=True, eq=False)
class Changed:
    """A changed copy of a volume.

    Attributes:
        image: the copy.
        follow: takes a label map (z, y, x) from the unchanged grid to the copy's.
        region: where on the copy's grid (z, y, x) results are compared.
    """

    image: Volume
    follow: Callable[[np.ndarray], np.ndarray]
    region: tuple[slice, ...] = (slice(None),) * 3

    def dice(self, labels: np.ndarray, reference: np.ndarray, values: tuple[int, ...]) -> np.ndarray:
        """Dice of each of ``values`` between two label maps on the copy's grid, within ``region``."""
        return dice(labels[self.region], reference[self.region], values)


Change = Callable[[Volume, np.ndarray, np.random.Generator], Changed]  # image, its reference (z, y, x), randomness


def dice(labels: np.ndarray, reference: np.ndarray, values: tuple[int, ...]) -> np.ndarray:
    """Twice the shared voxels over the sum of both, for each of ``values``; NaN where a value is in neither."""
    pairs = [(labels == value, reference == value) for value in values]
    shared = np.array([(mine & true).sum() for mine, true in pairs], float)
    both = np.array([mine.sum() + true.sum() for mine, true in pairs], float)
    return np.divide(2 * shared, both, out=np.full(len(values), np.nan), where=both > 0)


# Orientations: nothing is interpolated.


def turned(orientation: str) -> Change:
    """The same voxels in another order of axes, as in "SAL"."""

    def change(image: Volume, reference: np.ndarray, rng: np.random.Generator) -> Changed:
        def follow(labels: np.ndarray) -> np.ndarray:
            return reorient(Volume(labels, image.geometry), orientation).array

        return Changed(reorient(image, orientation), follow)

    return change


def oblique(image: Volume, reference: np.ndarray, rng: np.random.Generator) -> Changed:
    """The same voxels in a frame turned by 15 degrees about two axes, as a tilted acquisition has it."""
    cosine, sine = math.cos(math.radians(15)), math.sin(math.radians(15))
    about_x = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    about_z = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    old = image.geometry
    direction = about_z @ about_x @ old.axes
    return Changed(Volume(image.array, Geometry(old.size, old.spacing, old.origin, direction.flat)), unmoved)


# The other side of the body.


def mirrored(image: Volume, reference: np.ndarray, rng: np.random.Generator) -> Changed:
    """The anatomy mirrored left to right, in the unchanged frame: a right hippocampus looks like a left one."""
    right_to_left = 2 - int(np.abs(image.geometry.axes[0]).argmax())  # columns of axes are x, y, z; arrays z, y, x

    def follow(labels: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(np.flip(labels, right_to_left))

    return Changed(Volume(follow(image.array), image.geometry), follow)


# Intensities: voxels stay where they are.


def unmoved(labels: np.ndarray) -> np.ndarray:
    return labels


def revalued(rule: Callable[[np.ndarray, np.random.Generator], np.ndarray]) -> Change:
    """Other intensities; ``rule`` makes them of the old ones in float64."""

    def change(image: Volume, reference: np.ndarray, rng: np.random.Generator) -> Changed:
        return Changed(Volume(rule(image.array.astype(np.float64), rng), image.geometry), unmoved)

    return change


def scaled_to(largest: float, kind: type = np.float32, offset: float = 0) -> Change:
    """The largest value becomes ``largest``, then ``offset`` is added; stored as ``kind``."""
    return revalued(lambda x, rng: (x / x.max() * largest + offset).astype(kind))


def bent(power: float) -> Change:
    """Gamma: the values between smallest and largest, as 0 to 1, raised to ``power``."""
    return revalued(lambda x, rng: ((x - x.min()) / np.ptp(x)) ** power * np.ptp(x) + x.min())


def stretched(factor: float) -> Change:
    """Contrast: distances from the mean times ``factor``, cut off at the old smallest and largest value."""
    return revalued(lambda x, rng: np.clip((x - x.mean()) * factor + x.mean(), x.min(), x.max()))


def noisy(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise, 5 % of the range between the 0.5 and 99.5 % percentiles; a vessel would set the maximum."""
    low, high = np.percentile(x, (0.5, 99.5))
    return x + rng.normal(scale=0.05 * (high - low), size=x.shape)


def biased(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A receive coil's smooth field, which lowers and raises the signal by up to 30 %."""
    field = smooth(rng, x.shape, [side / 3 for side in x.shape])
    return x * (1 + 0.3 * field / np.abs(field).max())


def smooth(rng: np.random.Generator, shape: tuple[int, ...], sigma: list[float]) -> np.ndarray:
    """Random structure of this many voxels, mean 0 and standard deviation 1."""
    texture = ndimage.gaussian_filter(rng.normal(size=shape), sigma)
    return (texture - texture.mean()) / texture.std()


# Spacings.


def respaced(*spacing: float) -> Change:
    """The same field of view at another spacing (x, y, z, mm); how, is said at the top."""

    def change(image: Volume, reference: np.ndarray, rng: np.random.Generator) -> Changed:
        old = image.geometry
        size = [round(n * s / t) for n, s, t in zip(old.size, old.spacing, spacing, strict=True)]
        first = (np.array(spacing) / old.spacing - 1) / 2  # from the first old centre, in old voxels
        first[first == 1 / 2] = 0
        origin = old.origin + old.axes @ (first * old.spacing)
        new = Geometry(size, spacing, origin, old.direction)

        def follow(labels: np.ndarray) -> np.ndarray:
            values = np.unique(labels)
            masks = [sampled(labels == value, old, new) for value in values]
            return values[np.argmax(masks, axis=0)]

        return Changed(Volume(sampled(image.array, old, new), new), follow)

    return change


def sampled(array: np.ndarray, old: Geometry, new: Geometry) -> np.ndarray:
    """An array (z, y, x) on ``old`` at the voxels of ``new``, float32: smoothed where those are larger, then linear."""
    wider = np.square(new.spacing_zyx) - np.square(old.spacing_zyx)
    sigma = np.sqrt(np.maximum(wider, 0)) / FWHM_PER_SIGMA / old.spacing_zyx
    source = Volume(ndimage.gaussian_filter(array.astype(np.float32), sigma, mode="nearest"), old)
    resampler = sitk.ResampleImageFilter()
    resampler.SetInterpolator(sitk.sitkLinear)
    resampler.SetUseNearestNeighborExtrapolator(True)  # the last voxel may end a little outside
    resampler.SetSize(new.size)
    resampler.SetOutputSpacing(new.spacing)
    resampler.SetOutputOrigin(new.origin)
    resampler.SetOutputDirection(new.direction)
    return sitk.GetArrayFromImage(resampler.Execute(source.to_image()))


# Fields of view.


def widened(mm: float, surroundings: str) -> Change:
    """The image with ``mm`` more on every side.

    Args:
        surroundings: "zeros"; "air", noise as outside a head (Rayleigh, 2 % of the 99.5 % percentile); "texture",
            smooth random structure with the image's own mean and standard deviation; or "mirror", the image itself.
            That shows the anatomy again, so only what the image showed before is compared.
    """

    def change(image: Volume, reference: np.ndarray, rng: np.random.Generator) -> Changed:
        old, inner = image.geometry, image.array.astype(np.float32)
        voxels = [round(mm / side) for side in old.spacing]
        pad = [(count, count) for count in reversed(voxels)]
        own = tuple(slice(count, count + side) for (count, _), side in zip(pad, inner.shape, strict=True))
        array = np.pad(inner, pad, mode="reflect" if surroundings == "mirror" else "constant")
        if surroundings == "air":
            array = rng.rayleigh(0.02 * np.percentile(inner, 99.5), array.shape)
        elif surroundings == "texture":
            blobs = smooth(rng, array.shape, [3 / side for side in old.spacing_zyx])
            array = blobs * inner.std() + inner.mean()
        array[own] = inner
        origin = old.origin - old.axes @ (np.array(voxels) * old.spacing)
        geometry = Geometry(array.shape[::-1], old.spacing, origin, old.direction)
        compared = own if surroundings == "mirror" else (slice(None),) * 3
        return Changed(Volume(array.astype(np.float32), geometry), lambda labels: np.pad(labels, pad), compared)

    return change


def narrowed(image: Volume, reference: np.ndarray, rng: np.random.Generator) -> Changed:
    """5 mm less on every side, or as much as leaves MARGIN_MM around the structures."""
    old = image.geometry
    kept = bounding_box(reference > 0, [math.ceil(MARGIN_MM / mm) for mm in old.spacing_zyx])
    most = [round(5 / mm) for mm in old.spacing_zyx]
    box = tuple(
        slice(min(cut, part.start), max(side - cut, part.stop))
        for part, cut, side in zip(kept, most, reference.shape, strict=True)
    )
    first = np.array([part.start for part in reversed(box)])
    array = np.ascontiguousarray(image.array[box])
    origin = old.origin + old.axes @ (first * old.spacing)
    geometry = Geometry(array.shape[::-1], old.spacing, origin, old.direction)
    return Changed(Volume(array, geometry), lambda labels: labels[box])


ORIENTATIONS: dict[str, Change] = {
    "axes flipped (LPS)": turned("LPS"),
    "axes flipped (LAI)": turned("LAI"),
    "axes permuted (SRA)": turned("SRA"),
    "axes permuted and flipped (PIR)": turned("PIR"),
    "axes permuted and flipped (IRP)": turned("IRP"),
    "oblique frame": oblique,
}
OTHER_SIDE: dict[str, Change] = {"left and right mirrored": mirrored}
INTENSITY_SCALES: dict[str, Change] = {
    "0 to 112": scaled_to(112),
    "0 to 1.7 million": scaled_to(1.7e6),
    "8 bit": scaled_to(255, np.uint8),
    "signed 16 bit with offset": scaled_to(2000, np.int16, -1000),
    "float, 0 to 1": scaled_to(1),
}
SPACINGS: dict[str, Change] = {
    f"{x:g} x {y:g} x {z:g} mm": respaced(x, y, z)
    for x, y, z in [
        (0.5, 0.5, 0.5),
        (0.7, 0.7, 0.7),
        (1.5, 1.5, 1.5),
        (2, 2, 2),
        (1, 1, 2),
        (2, 1, 1),
        (0.5, 0.5, 2),
    ]
}
LARGER_FIELDS_OF_VIEW: dict[str, Change] = {
    f"{mm // 10} cm more, {surroundings}": widened(mm, surroundings)
    for mm in (10, 20)
    for surroundings in ("zeros", "air", "texture", "mirror")
}
# What a model that a hospital uses has to stand without a word.
REQUIRED: dict[str, Change] = {**ORIENTATIONS, **OTHER_SIDE, **INTENSITY_SCALES, **SPACINGS, **LARGER_FIELDS_OF_VIEW}
# What is worth knowing beyond that.
FURTHER: dict[str, Change] = {
    "gamma 0.7": bent(0.7),
    "gamma 1.5": bent(1.5),
    "contrast x 1.5": stretched(1.5),
    "noise, 5 %": revalued(noisy),
    "bias field, 30 %": revalued(biased),
    "up to 5 mm less": narrowed,
}
