"""Tiles and their importance are MONAI's, and so are the logits of its sliding window."""

from __future__ import annotations

import itertools

import pytest
import torch
from tiny_networks import CLASSES, make_data, make_network
from usema.inference.monai_tiling import MonaiTiling, monai_importance, monai_starts
from usema.inference.sliding_window import predict_logits

pytest.importorskip("monai")
from monai.data.utils import compute_importance_map, dense_patch_slices
from monai.inferers import sliding_window_inference

SHAPES = {
    "larger": (1, 25, 45, 17),
    "equal": (1, 16, 24, 12),
    "smaller": (1, 9, 11, 7),
    "smaller and larger, two channels": (2, 11, 50, 12),
}
TILE = (16, 24, 12)


def test_tiles_start_where_those_of_monai_start():
    for tile, overlap in itertools.product([1, 2, 10, 33, 96], [0, 0.25, 0.5, 0.625, 0.9]):
        step = max(1, int(tile * (1 - overlap)))
        for size in (*range(tile, tile + 5), 2 * tile, 3 * tile + 1):
            interval = tile if size == tile else step
            expected = [first.start for (first,) in dense_patch_slices((size,), (tile,), (interval,))]
            assert monai_starts(size, tile, overlap) == expected, (size, tile, overlap)


@pytest.mark.parametrize("tile", [(16, 24, 12), (7, 20, 9), (1, 2, 3)])
def test_the_importance_is_that_of_monai(tile):
    torch.testing.assert_close(monai_importance(tile), compute_importance_map(tile, mode="gaussian"))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("overlap", [0.25, 0.625])
def test_the_logits_are_those_of_monai(shape, overlap):
    network, data = make_network(3, shape[0]), make_data(*shape)
    with torch.no_grad():
        expected = sliding_window_inference(
            torch.from_numpy(data)[None], TILE, 1, network, overlap=overlap, mode="gaussian"
        )[0]
    slabs = predict_logits(
        network, data, patch_size=TILE, num_classes=CLASSES, overlap=overlap, tiling_type=MonaiTiling
    )
    found = torch.cat([slab for _, slab in slabs], dim=1)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


def test_no_more_planes_are_held_than_unfinished_tiles_touch():
    tiling = MonaiTiling.of((60, 24, 12), TILE, 0.625)
    assert tiling.open_voxels == (16 + 6) * 24 * 12
