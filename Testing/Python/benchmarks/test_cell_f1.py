"""F1 of cells: known cells, known matches."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner
from paper.cell_f1 import cell_f1
from paper.neurips_cells import three_classes
from paper_data import main
from recipe_downloads import some_cells, write_cells, write_picture


def squares(*boxes: tuple[int, int, int, int], shape=(60, 60)) -> np.ndarray:
    """Numbered cells from (top, left, height, width)."""
    cells = np.zeros(shape, int)
    for number, (top, left, height, width) in enumerate(boxes, start=1):
        cells[top : top + height, left : left + width] = number
    return cells


@pytest.mark.parametrize(
    ("predicted", "f1"),
    [
        ([(5, 5, 10, 10), (30, 30, 10, 10)], 1.0),
        ([(5, 5, 10, 10)], 2 / 3),
        ([(5, 5, 10, 10), (30, 30, 10, 5)], 1.0),  # half of a cell: an overlap of exactly 0.5 counts
        ([(5, 5, 10, 10), (30, 30, 10, 4)], 0.5),
        ([(5, 5, 10, 10), (30, 30, 10, 10), (50, 5, 5, 5)], 0.8),
        ([(5, 5, 10, 10), (30, 30, 10, 10), (1, 30, 8, 8)], 1.0),  # reaches into the margin: not counted
        ([], 0.0),
    ],
)
def test_f1_counts_cells_that_overlap_by_half(predicted, f1):
    true = squares((5, 5, 10, 10), (30, 30, 10, 10), (20, 58, 8, 2))  # the last one lies at the edge
    assert cell_f1((squares(*predicted) > 0).astype(np.uint8), true) == pytest.approx(f1)


def test_boundaries_do_not_count_as_cells():
    true = squares((5, 5, 20, 20))
    classes = np.where(true > 0, 2, 0)
    classes[6:24, 6:24] = 1
    assert cell_f1(classes, true) == 1.0
    assert cell_f1(np.where(true > 0, 2, 0), true) == 0.0


def test_large_images_are_scored_in_tiles(monkeypatch):
    true = squares((5, 5, 10, 10), (25, 25, 10, 10), (45, 45, 10, 10))  # the second is cut by the tiles' edges
    classes = (squares((5, 5, 10, 10), (25, 25, 10, 10)) > 0).astype(np.uint8)
    assert cell_f1(classes, true) == pytest.approx(0.8)
    monkeypatch.setattr("paper.cell_f1.LARGE", 3600)
    monkeypatch.setattr("paper.cell_f1.TILE", 32)
    assert cell_f1(classes, true) == pytest.approx(2 / 3)


def test_folders_of_cells_are_scored_by_the_command(tmp_path):
    def command():
        folders = [str(tmp_path / "predictions"), str(tmp_path / "labelsTs")]
        return CliRunner().invoke(main, ["cell-f1", *folders])

    cells = some_cells()
    write_cells(tmp_path / "labelsTs/cell_00001_label.tiff", cells)
    write_cells(tmp_path / "labelsTs/cell_00002_label.tiff", cells)
    write_picture(tmp_path / "predictions/cell_00001.png", (cells == 300).astype(np.uint8))
    missing = command()
    assert missing.exit_code == 1
    assert f"1 predictions are missing: {tmp_path / 'predictions/cell_00002.png'}" in missing.output
    write_picture(tmp_path / "predictions/cell_00002.png", three_classes(np.zeros_like(cells)))
    assert "Mean of 2 images: 0.2500" in command().output  # one of three cells: F1 0.5; none: 0
    write_picture(tmp_path / "predictions/cell_00002.png", np.zeros((9, 9), np.uint8))
    assert "the prediction is (9, 9), the reference (40, 48)" in command().output
