"""The metrics of two masks, against their definitions."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from masks import box, by_definition
from usema.errors import MissingDependencyError
from usema.quality.metrics import compare_masks

RANDOM = np.random.default_rng(3)
SHAPES = {
    "a shifted box": (box((2, 8), (3, 9), (4, 10)), box((3, 9), (3, 9), (6, 12))),
    "a box at the border": (box((0, 5), (0, 14), (0, 6)), box((0, 6), (2, 14), (0, 7))),
    "one voxel": (box((6, 7), (6, 7), (6, 7)), box((2, 8), (3, 9), (4, 10))),
    "far apart": (box((0, 3), (0, 3), (0, 3)), box((9, 12), (10, 14), (12, 16))),
    "noise": (RANDOM.random((12, 14, 16)) < 0.3, RANDOM.random((12, 14, 16)) < 0.2),
}


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.3, 0.7, 0.98)], ids=str)
@pytest.mark.parametrize("tolerance", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("shapes", SHAPES)
def test_the_metrics_are_their_definitions(shapes, tolerance, spacing):
    prediction, reference = SHAPES[shapes]
    measured = compare_masks(prediction, reference, spacing, tolerance)
    assert measured == pytest.approx(by_definition(prediction, reference, spacing, tolerance), rel=1e-5)


def test_empty_masks_are_not_measured_or_missed():
    mask, empty = box((2, 8), (3, 9), (4, 10)), box((0, 0))
    assert compare_masks(mask, mask, (1, 1, 1), 1.0) == (1.0, 1.0, 0.0)
    assert compare_masks(empty, mask, (1, 1, 1), 1.0) == (0.0, 0.0, math.inf)
    assert compare_masks(mask, empty, (1, 1, 1), 1.0) == (0.0, 0.0, math.inf)
    assert all(math.isnan(value) for value in compare_masks(empty, empty, (1, 1, 1), 1.0))


def test_without_monai_the_reason_and_the_command_are_given(monkeypatch):
    monkeypatch.setitem(sys.modules, "monai.metrics", None)
    mask = box((2, 8), (3, 9), (4, 10))
    with pytest.raises(MissingDependencyError, match=r"monai.*pip install \"usema\[evaluate\]\""):
        compare_masks(mask, mask, (1, 1, 1), 1.0)
