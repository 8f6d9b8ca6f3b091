"""Recipes: what happens to a volume before a network sees it, and the way back. One file a kind.

A model's ``preprocessing.kind`` names its recipe. Whatever the kind, a recipe gives arrays that the sliding window
takes, and a collector that turns the window's logits into labels on the grid that the volume came from; nothing else
of the engine knows how.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from ..errors import BundleError
from ..volumes.geometry import Geometry
from ..volumes.margins import Margins
from .auto3dseg_recipe import Auto3DSegRecipe
from .conform_recipe import ConformRecipe
from .image_recipe import ImageRecipe
from .nnunet_recipe import NnUNetRecipe
from .outputs import Outputs
from .tiling import Tiling


class Collector(Protocol):
    """Takes the logits of one volume slab by slab; see ``logits_to_labels.LogitsToLabels``."""

    highest: float  # the largest probability of any label so far
    margins: Margins | None  # after ``finish``, on the grid of the labels, if they are to be kept

    def add(self, start: int, logits: torch.Tensor) -> None:
        """Take the slab (outputs, d, b, c) that begins at slice ``start`` of the network's first axis.

        Where the recipe says ``takes_strips``, there is a third argument: the row at which the slab's strip begins.
        """

    def finish(self) -> tuple[np.ndarray, np.ndarray | None]:
        """The labels (z, y, x), and the probabilities (labels + 1, z, y, x) float16 if they are to be kept."""


class Prepared(Protocol):
    """A volume as the network wants it.

    Attributes:
        data: (channels, a, b, c) float32, C-ordered; the last channel is the labels of the previous part if given and
            no mask.
        notes: what was done that the user should know, in sentences.
        places: for each axis of ``data``, the axis of the array (0 is z) that it runs along, and the float indices of
            its voxels there. Recipes of images and of conformed heads have none: nothing is learned there.
    """

    data: np.ndarray
    notes: list[str]
    places: tuple[tuple[int, np.ndarray], ...]

    def collector(self, outputs: Outputs, keep_probabilities: bool, keep_margins: bool = False) -> Collector:
        """What leads back to the grid of the array that was prepared."""


class Recipe(Protocol):
    """One kind of preprocessing with a model's values.

    Attributes:
        channels: volumes that it takes.
        patch_size: two or three numbers, the size of the network's tile.
        tiling: where the tiles lie over the data, and what their voxels count.
        previous_is_mask: the labels of a previous part only say where to look; else they are a further channel.
        takes_strips: its collectors take slabs that are a strip of a plane: ``add(start, logits, row)``.
    """

    channels: int
    patch_size: Sequence[int]
    tiling: type[Tiling]
    previous_is_mask: bool
    takes_strips: bool

    def shape(self, array: np.ndarray, geometry: Geometry) -> tuple[int, int, int]:
        """The shape that ``prepare`` will give the data: tells how many tiles there will be."""

    def resolution(self, geometry: Geometry) -> tuple[float, float, float]:
        """The spacing in mm along z, y, x at which the network will see a volume on ``geometry``."""

    def prepare(self, array: np.ndarray, geometry: Geometry, previous: np.ndarray | None = None) -> Prepared:
        """Prepare a case.

        Args:
            array: (channels, z, y, x), any number type; not changed.
            geometry: its grid.
            previous: (z, y, x) labels of the previous part of a cascade.

        Raises:
            InputError: it cannot be prepared.
        """


RECIPES = {"nnunet": NnUNetRecipe, "image": ImageRecipe, "conform": ConformRecipe, "auto3dseg": Auto3DSegRecipe}


def recipe_of(preprocessing: dict[str, Any]) -> Recipe:
    """The recipe that a model's ``preprocessing`` describes.

    Raises:
        BundleError: an unknown kind, or values that do not fit it.
    """
    values = dict(preprocessing)
    kind = values.pop("kind", "nnunet")
    if kind not in RECIPES:
        raise BundleError(
            f"The model's kind of preprocessing, '{kind}', is not one of {', '.join(RECIPES)}.", "Update USEMA."
        )
    return RECIPES[kind](values)
