"""F1 of cells, as the NeurIPS 2022 challenge and U-Mamba count it.

Predicted cells are the connected parts of the class "interior". A predicted and a true cell match when their
intersection over union is at least 0.5, one to one (Hungarian matching). Cells that reach into the image's outermost
two pixels are left out on both sides. An image of 25 million pixels or more is scored in tiles of 2000 x 2000, the last
ones padded with background, each like an image of its own, and their counts are added. The result is the mean over
images; without a match it is 0.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from usema.errors import InputError

from .neurips_cells import INTERIOR
from .raw_dataset import pictures, refuse_missing

IOU = 0.5
MARGIN = 2
LARGE, TILE = 25_000_000, 2000


def score_folders(predictions: Path, references: Path) -> dict[str, float]:
    """Case -> F1.

    Args:
        predictions: three-class label maps that nnU-Net wrote, NAME.png.
        references: the true cells, one number each, NAME_label.tiff.

    Raises:
        InputError: a folder is empty, or a prediction is missing or of another size.
    """
    labels = {path.name.removesuffix("_label.tiff"): path for path in sorted(references.glob("*_label.tiff"))}
    if not labels:
        raise InputError(f"{references} holds no *_label.tiff.", "Name the folder labelsTs that prepare wrote.")
    refuse_missing((predictions / f"{case}.png" for case in labels), "predictions are")
    scores = {}
    for case, path in labels.items():
        classes, cells = pictures().imread(predictions / f"{case}.png"), pictures().imread(path)
        if classes.shape != cells.shape:
            raise InputError(f"{case}: the prediction is {classes.shape}, the reference {cells.shape} (y, x).")
        scores[case] = cell_f1(classes, cells)
    return scores


def cell_f1(classes: np.ndarray, cells: np.ndarray) -> float:
    """F1 of one image from predicted classes and true cells, both (y, x)."""
    predicted, _ = ndimage.label(classes == INTERIOR, np.ones((3, 3)))
    tiles = [(slice(None), slice(None))]
    if cells.size >= LARGE:
        rows, columns = (range(0, length, TILE) for length in cells.shape)
        tiles = [(slice(row, row + TILE), slice(column, column + TILE)) for row in rows for column in columns]
        padding = [(0, -length % TILE) for length in cells.shape]
        predicted, cells = np.pad(predicted, padding), np.pad(cells, padding)
    matched, total = np.sum([_count(predicted[tile], cells[tile]) for tile in tiles], axis=0)
    return 2 * matched / total if total else 0.0


def _count(predicted: np.ndarray, cells: np.ndarray) -> tuple[int, int]:
    """Matched cells; predicted and true cells together."""
    predicted, true = _without_cells_at_the_edge(predicted), _without_cells_at_the_edge(cells)
    rows, columns = true.max() + 1, predicted.max() + 1
    pairs = true.astype(np.int64) * columns + predicted
    overlap = np.bincount(pairs.ravel(), minlength=rows * columns).reshape(rows, columns)
    union = overlap.sum(axis=1, keepdims=True) + overlap.sum(axis=0, keepdims=True) - overlap
    iou = overlap[1:, 1:] / union[1:, 1:]
    matches = linear_sum_assignment(iou >= IOU, maximize=True)
    return int((iou[matches] >= IOU).sum()), rows + columns - 2


def _without_cells_at_the_edge(cells: np.ndarray) -> np.ndarray:
    """The other cells, numbered 1, 2, 3, ..."""
    edge = np.ones(cells.shape, bool)
    edge[MARGIN:-MARGIN, MARGIN:-MARGIN] = False
    inside = np.where(np.isin(cells, np.unique(cells[edge])), 0, cells)
    values, numbered = np.unique(inside, return_inverse=True)
    return numbered.reshape(cells.shape) + (values[0] != 0)
