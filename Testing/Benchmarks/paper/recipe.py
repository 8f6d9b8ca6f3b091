"""What a recipe is: a public data set, how nnU-Net sees it, and what others published on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PUBLISHED = json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))
# The networks that the published tables are shown for, in the order of their columns.
METHODS = tuple(PUBLISHED["methods"])


@dataclass(frozen=True)
class Plan2D:
    """nnU-Net's 2D plan, and the median image (height, width) from which its default planner derives it."""

    median_shape: tuple[int, int]
    patch_size: tuple[int, int]
    batch_size: int
    stages: int


@dataclass(frozen=True)
class Results:
    """A published table: metric -> one value per entry of METHODS, as printed there; "" where the source has none."""

    title: str
    source: str
    rows: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Recipe:
    """Everything about one data set.

    Args:
        name: what the command line calls it.
        pages: where to download it; people have to accept its terms there.
        licence: what is known of its terms.
        layout: the folders that the conversion expects, as a person reads them.
        dataset: nnU-Net's name; numbers and names are those of U-Mamba's packaging.
        cases: training cases of the published runs.
        channels: one name per channel; nnU-Net chooses the normalization by it.
        labels: names in the order of their values, background first.
        plan: what nnU-Net plans on the whole data set with its default planner.
        convert: writes imagesTr, labelsTr and, where the download has them, imagesTs and labelsTs into a folder.
        scoring: commands and rules that turn predictions into the published metrics.
        notes: what makes our numbers comparable with the published ones, or keeps them from it.
    """

    name: str
    title: str
    pages: tuple[str, ...]
    licence: str
    layout: str
    dataset: str
    cases: int
    channels: tuple[str, ...]
    labels: tuple[str, ...]
    file_ending: str
    plan: Plan2D
    convert: Callable[[Path, Path], None]
    scoring: tuple[str, ...]
    notes: tuple[str, ...] = ()
    configuration: str = "2d"
    trainer: str = "nnUNetTrainerUSEMA"
    fold: str = "all"

    @property
    def results(self) -> tuple[Results, ...]:
        """The published tables, in ``published.json``."""
        found = PUBLISHED["results"][self.name]
        return tuple(
            Results(table["title"], table["source"], {row: tuple(values) for row, values in table["rows"].items()})
            for table in found
        )

    @property
    def tolerances_mm(self) -> dict[str, float]:
        """Label -> tolerance of the published surface Dice, in mm; empty where it is not in mm."""
        return PUBLISHED["surface_dice_tolerances_mm"].get(self.name, {})
