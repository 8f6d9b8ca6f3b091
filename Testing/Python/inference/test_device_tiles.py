"""Tiles that are cut on a GPU, for which the CPU stands in under another name, and batches whose size is found."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_networks import CLASSES, make_data, make_network, predict
from torch import nn
from usema.errors import Cancelled
from usema.inference.batch_search import BatchSearch
from usema.inference.device_tiles import Pace, TileSource
from usema.inference.memory import MemoryLadder
from usema.inference.rolling_logits import RollingLogits
from usema.inference.sliding_window import TileNetwork, run_tiles
from usema.inference.tiling import Tiling

PATCH = (16, 16, 16)
SHAPE = (1, 40, 20, 12)  # the last axis is padded
META = torch.device("meta")  # a device with shapes but no values


def tiling(shape=SHAPE) -> Tiling:
    return Tiling.of(shape[1:], PATCH, 0.5)


def test_a_volume_that_fits_lies_on_the_device_until_room_is_needed_there():
    data = make_data(*SHAPE)
    room = 4 * tiling().pad(data).nbytes
    assert not TileSource(data, tiling(), META, lambda device: room - 1).on_device
    source = TileSource(data, tiling(), META, lambda device: room)
    assert source.on_device
    assert source.leave_device()
    assert not source.leave_device(), "there is nothing left to leave"
    assert not TileSource(data, tiling(), torch.device("cpu"), lambda device: room).on_device


def test_tiles_are_the_same_wherever_they_are_cut():
    data = make_data(*SHAPE)
    here, there = (TileSource(data, tiling(), torch.device("cpu")) for _ in range(2))
    there._move()  # as on a GPU, which is the CPU here
    assert there.on_device
    expected = here.batch(tiling().tiles)
    assert (tuple(expected.shape[1:]), expected.dtype) == ((1, *PATCH), torch.float32)
    assert torch.equal(expected, there.batch(tiling().tiles))


def test_a_volume_that_finds_no_memory_on_the_device_stays_in_main_memory(monkeypatch):
    def full(self, device):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    with monkeypatch.context() as patched:
        patched.setattr(torch.Tensor, "to", full)
        source = TileSource(make_data(*SHAPE), tiling(), META, lambda device: 2**40)
    assert not source.on_device


class Overflowing(nn.Module):
    """In half precision NaN, where tiles have a value above the limit."""

    def __init__(self, limit: float):
        super().__init__()
        self.network, self.limit, self.calls = make_network(3), limit, []

    def forward(self, x):
        half = torch.is_autocast_enabled("cpu")
        self.calls.append((len(x), half))
        logits = self.network(x).float()
        return torch.where((x.amax((1, 2, 3, 4), True) > self.limit) & half, torch.nan, logits)


def run(network, data, batch_size=2, search=None, should_stop=None):
    reports = []
    ladder = MemoryLadder("cpu", 0, batch_size=batch_size, most=8, report=reports.append)
    if search:
        ladder.search(search)
    tile_network = TileNetwork(
        network, CLASSES, (), planar=False, device=torch.device("cpu"), report=reports.append, half=not search
    )
    shape = tiling(data.shape)
    slabs = run_tiles(tile_network, data, RollingLogits(shape, CLASSES), ladder, None, should_stop)
    return torch.cat([slab for _, slab in slabs], dim=1), reports


@pytest.mark.parametrize("plane", [2, 20, 39], ids=["first tiles", "in the middle", "last tiles"])
def test_only_tiles_that_half_precision_does_not_suffice_for_are_repeated(plane):
    data = make_data(*SHAPE)
    data[0, plane, 3, 3] = 50
    network = Overflowing(limit=40)
    found, reports = run(network, data)
    expected = predict(make_network(3), data, patch_size=PATCH)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.02)
    assert reports == ["Half precision does not suffice for this volume: continuing in single precision, slower."]
    halves = [half for _, half in network.calls]
    assert halves == sorted(halves, reverse=True), "once left, half precision does not come back"
    assert sum(tiles for tiles, _ in network.calls) <= tiling().count + 4


def test_flags_are_read_once_a_row(monkeypatch):
    read = []
    tolist = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: read.append(len(self)) or tolist(self))
    run(Overflowing(limit=1e9), make_data(1, 40, 40, 40), batch_size=1)
    row = len(tiling((1, 40, 40, 40)).starts[1]) * len(tiling((1, 40, 40, 40)).starts[2])
    assert read == [row] * 4


@pytest.mark.parametrize(
    ("each", "most", "chosen"),
    [
        ({1: 1.0, 2: 0.7, 4: 0.6, 8: 0.6, 16: 0.1}, 16, 4),  # ends where it no longer pays
        ({1: 1.0, 2: 1.2}, 16, 1),
        ({1: 1.0, 2: 0.5, 3: 0.4}, 3, 3),
        ({1: 1.0}, 1, 1),
    ],
    ids=["four", "one", "all that fit", "one fits"],
)
def test_the_batch_grows_while_a_tile_takes_less_time(each, most, chosen):
    search, tried = BatchSearch(most), []
    while not search.ended:
        tried.append(search.batch_size)
        first = tried.count(tried[-1]) == 1  # slow, whatever the size
        search.took(tried[-1], 10.0 if first else each[tried[-1]] * tried[-1])
        search.took(1000, 0.0)  # the rest of a volume tells nothing
    assert search.batch_size == chosen
    assert all(tried.count(size) == 2 for size in tried)


def test_the_search_leaves_the_result_as_it_is():
    data = make_data(1, 40, 40, 40)
    network = Overflowing(limit=1e9)
    found, reports = run(network, data, search=4)
    torch.testing.assert_close(found, predict(make_network(3), data, patch_size=PATCH), rtol=0, atol=5e-6)
    sizes = [tiles for tiles, _ in network.calls]
    assert sizes[:4] == [1, 1, 2, 2]
    assert sum(sizes) == tiling(data.shape).count
    assert reports == []


def test_the_pace_waits_for_nothing_on_a_cpu():
    pace = Pace(torch.device("cpu"))
    for _ in range(5):
        pace.step()
    asked = iter([False, True])
    with pytest.raises(Cancelled):
        run(make_network(3), make_data(*SHAPE), should_stop=lambda: next(asked))


def test_a_memory_mapped_volume_of_whole_numbers_becomes_float_tile_by_tile():
    data = (100 * make_data(*SHAPE)).astype(np.int16)
    batch = TileSource(data, tiling(), torch.device("cpu")).batch(tiling().tiles[-1:])
    assert batch.dtype == torch.float32
    assert batch.max() > 100
