"""Images as a recipe (see ``preprocessing.Recipe``): fitted to a size, then prepared as nnU-Net does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from ..errors import BundleError
from ..volumes.geometry import Geometry
from .nnunet_recipe import Preprocessed, nonzero_bounds, preprocess, refuse_too_large
from .outputs import Outputs
from .plan import Plan
from .resampling import resampled_shape, taps_at
from .slab_resampling import chunk_of
from .tiling import Tiling


class ImageRecipe:
    """nnU-Net's preprocessing of an image, at the size that the model wants.

    Args:
        values: a Plan of two dimensions as a dictionary, and perhaps "fit": see ``bundle.schema.json``.
    """

    tiling = Tiling
    takes_strips = False
    previous_is_mask = False

    def __init__(self, values: dict):
        fit = values.pop("fit", {})
        self.plan = Plan.from_dict(values)
        if self.plan.dimensions != 2 or self.plan.transpose_forward[0] != 0:
            raise BundleError(
                f"The model is for images, and its plan is of {self.plan.dimensions} dimensions with the axes "
                f"{self.plan.transpose_forward}.",
                "Train it with the configuration 2d.",
            )
        self._longest, self._to_spacing = fit.get("longest_side"), bool(fit.get("to_spacing"))
        self.channels = len(self.plan.normalization)
        self.patch_size = self.plan.patch_size

    def shape(self, array: np.ndarray, geometry: Geometry) -> tuple[int, int, int]:
        bounds = nonzero_bounds(array)
        if self._longest:
            fitted = fitted_shape(array.shape[2:], self._longest)
            scale = (1.0, *(new / old for new, old in zip(fitted, array.shape[2:], strict=True)))
            lengths = [max(1, round((b.stop - b.start) * s)) for b, s in zip(bounds, scale, strict=True)]
        else:
            lengths = [part.stop - part.start for part in bounds]
        lengths = [lengths[axis] for axis in self.plan.transpose_forward]
        spacing = self._spacing(geometry)
        return resampled_shape(lengths, [spacing[axis] for axis in self.plan.transpose_forward], self._planned)

    def resolution(self, geometry: Geometry) -> tuple[float, float, float]:
        if self._longest:
            factor = max(geometry.size[:2]) / self._longest
            return (geometry.spacing[2], *(mm * factor for mm in geometry.spacing_zyx[1:]))
        return geometry.spacing_zyx

    def prepare(self, array: np.ndarray, geometry: Geometry, previous: np.ndarray | None = None):
        """See ``preprocessing.Recipe``."""
        if not self._longest:
            return preprocess(array, self._spacing(geometry), self.plan, previous)
        fitted = fit_image(array, self._longest)
        return FittedImage(preprocess(fitted, self._spacing(geometry), self.plan), array.shape[1:])

    @property
    def _planned(self) -> tuple[float, float, float]:
        return (1.0, *self.plan.spacing)

    def _spacing(self, geometry: Geometry) -> tuple[float, float, float]:
        """What preprocessing is to believe, z, y, x: where sizes do not count, that of the plan."""
        if self._to_spacing:
            return (1.0, *geometry.spacing_zyx[1:])
        spacing = dict(zip(self.plan.transpose_forward, self._planned, strict=True))
        return tuple(spacing[axis] for axis in range(3))


@dataclass(frozen=True, eq=False)
class FittedImage:
    """An image that was resampled before nnU-Net's preprocessing, and the way back.

    Attributes:
        fitted: what nnU-Net's preprocessing made of the resampled image.
        input_shape: (1, y, x) of the image as it was given.
    """

    fitted: Preprocessed
    input_shape: tuple[int, int, int]

    @property
    def data(self) -> np.ndarray:
        """(C, 1, b, c) float32."""
        return self.fitted.data

    @property
    def notes(self) -> list[str]:
        return self.fitted.notes

    def collector(self, outputs: Outputs, keep_probabilities: bool, keep_margins: bool = False) -> FittedCollector:
        """What leads the logits back to the grid of the array that was prepared; it keeps no margins."""
        return FittedCollector(self, outputs, keep_probabilities)


class FittedCollector:
    """Takes the logits of a fitted image and turns them into labels on its own grid, rows at a time."""

    margins = None

    def __init__(self, image: FittedImage, outputs: Outputs, keep_probabilities: bool):
        self.highest = 0.0
        self._outputs, self._image = outputs, image
        self._labels = np.zeros(image.input_shape, np.uint8 if outputs.labels <= 255 else np.uint16)
        self._probabilities = None
        if keep_probabilities:
            self._probabilities = np.zeros((outputs.labels + 1, *image.input_shape), np.float16)
            self._probabilities[0] = 1

    @torch.inference_mode()
    def add(self, start: int, logits: torch.Tensor) -> None:
        """The slab (outputs, 1, b, c): there is no other."""
        fitted = self._image.fitted
        self.highest = self._outputs.highest(logits, self.highest)
        forward = fitted.transpose_forward
        plane = logits[:, 0].float()
        if forward[1] > forward[2]:
            plane = plane.transpose(1, 2)
        # The crop to what is not zero lies in the fitted image; beyond it all is background.
        _, in_y, in_x = (fitted.crop[forward.index(axis)] for axis in range(3))
        taps = []
        for old, new, crop in zip(fitted.input_shape[1:], self._image.input_shape[1:], (in_y, in_x), strict=True):
            position = (np.arange(new) + 0.5) * old / new - 0.5 - crop.start
            inside = np.flatnonzero((position >= -0.5) & (position <= crop.stop - crop.start - 0.5))
            taps.append((inside, *taps_at(position[inside], crop.stop - crop.start)))
        (rows, *of_rows), (columns, *of_columns) = taps
        if not len(rows) or not len(columns):
            return
        across = slice(int(columns[0]), int(columns[-1]) + 1)
        step = max(1, chunk_of(logits.device) // (self._outputs.count * len(columns)))
        for begin in range(0, len(rows), step):
            part = _between(plane, 1, [tap[begin : begin + step] for tap in of_rows])
            part = _between(part, 2, of_columns)[:, None]
            down = slice(int(rows[begin]), int(rows[begin]) + part.shape[2])
            self._labels[:, down, across] = self._outputs.to_labels(part).cpu().numpy()
            if self._probabilities is not None:
                by_label = self._outputs.by_label(self._outputs.probabilities(part))
                self._probabilities[:, :, down, across] = by_label.half().cpu().numpy()

    def finish(self) -> tuple[np.ndarray, np.ndarray | None]:
        """The labels (1, y, x), and the probabilities (labels + 1, 1, y, x) float16 or None."""
        return self._labels, self._probabilities


def fitted_shape(shape: tuple[int, int], longest: int) -> tuple[int, int]:
    """The lengths along y, x of an image whose longest side is to have ``longest`` pixels."""
    return tuple(max(1, round(length * longest / max(shape))) for length in shape)


def fit_image(array: np.ndarray, longest: int) -> np.ndarray:
    """An image (C, 1, y, x) as float32 with so many pixels along its longest side: linearly, with a triangle as wide as
    a new pixel where it shrinks (antialiased, as Pillow's ``BILINEAR``)."""
    shape = fitted_shape(array.shape[2:], longest)
    if shape == array.shape[2:]:
        return array
    refuse_too_large(len(array), array.shape[1:], (1, 1, 1))
    fitted = np.empty((len(array), 1, *shape), np.float32)
    for source, target in zip(array, fitted, strict=True):
        image = torch.from_numpy(np.ascontiguousarray(source, dtype=np.float32))[None]
        target[:] = functional.interpolate(image, size=shape, mode="bilinear", antialias=True, align_corners=False)[0]
    return fitted


def _between(plane: torch.Tensor, dim: int, taps: list[np.ndarray]) -> torch.Tensor:
    """Values between two neighbours along an axis, as ``taps_at`` gives them."""
    lower, upper, weight = (torch.from_numpy(np.ascontiguousarray(tap)).to(plane.device) for tap in taps)
    shape = [1, 1, 1]
    shape[dim] = -1
    return torch.lerp(
        plane.index_select(dim, lower), plane.index_select(dim, upper), weight.to(plane.dtype).reshape(shape)
    )
