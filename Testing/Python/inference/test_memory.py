"""The memory ladder of sliding-window inference, and how much memory is free."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_networks import CLASSES, make_data, make_network, predict
from torch import nn
from usema.errors import DeviceError
from usema.inference.memory import MemoryLadder, free_from_meminfo, free_from_vm_stat, free_memory, is_out_of_memory
from usema.inference.rolling_logits import RollingLogits
from usema.inference.sliding_window import TileNetwork, predict_logits, run_tiles
from usema.inference.tiling import Tiling


class Limited(nn.Module):
    """A network that runs out of memory above a number of tiles at a time, as a GPU does."""

    def __init__(self, network: nn.Module, most: int):
        super().__init__()
        self.network = network
        self.most = most
        self.seen: list[int] = []

    def forward(self, x):
        self.seen.append(len(x))
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return self.network(x)


@pytest.mark.parametrize("batch_size", [1, 2, 4, 7, 100])
@pytest.mark.parametrize("patch_size", [(16, 16, 12), (16, 12)])
def test_the_result_does_not_depend_on_the_batch(patch_size, batch_size):
    network, data = make_network(len(patch_size)), make_data(1, 21, 30, 25)
    expected = predict(network, data, patch_size=patch_size, batch_size=1)
    found = predict(network, data, patch_size=patch_size, batch_size=batch_size)
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-6)


def test_when_memory_is_short_fewer_tiles_run_at_a_time_and_that_is_reported():
    data, reports, done = make_data(1, 30, 30, 20), [], []
    limited = Limited(make_network(3), most=2)
    expected = predict(make_network(3), data, patch_size=(16, 16, 16))
    found = predict(
        limited,
        data,
        patch_size=(16, 16, 16),
        batch_size=8,
        report=reports.append,
        progress=lambda tiles, total, seconds_left: done.append(tiles),
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-6)
    assert limited.seen[:4] == [8, 4, 2, 2]
    assert reports == [
        "Main memory is short: tiles are processed 4 at a time. Slower, with the same result.",
        "Main memory is short: tiles are processed 2 at a time. Slower, with the same result.",
    ]
    assert done == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]  # no tile is lost, none runs twice


def test_memory_that_runs_short_half_way_loses_no_tile():
    class ShortOnce(Limited):
        def forward(self, x):
            if len(self.seen) == 3 and self.most > 1:
                self.most = 1
            return super().forward(x)

    data, reports = make_data(1, 30, 30, 20), []
    expected = predict(make_network(3), data, patch_size=(16, 16, 16))
    short = ShortOnce(make_network(3), most=4)
    found = predict(short, data, patch_size=(16, 16, 16), batch_size=4, report=reports.append)
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-6)
    assert short.seen[:6] == [4, 4, 4, 4, 2, 1]
    assert len(reports) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process")
def test_real_allocations_that_fail_end_in_the_same_result():
    import resource

    network = nn.Sequential(nn.Conv3d(1, 32, 3, padding=1), nn.LeakyReLU(), nn.Conv3d(32, CLASSES, 1))
    data, reports = make_data(1, 64, 64, 64), []
    expected = predict(network, data, patch_size=(32, 32, 32))
    used = int(re.search(r"VmSize:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
    limits = resource.getrlimit(resource.RLIMIT_AS)
    # All 27 tiles at a time take 27 x 4 MiB twice.
    resource.setrlimit(resource.RLIMIT_AS, (used + 80 * 2**20, limits[1]))
    try:
        found = predict(network, data, patch_size=(32, 32, 32), batch_size=27, report=reports.append)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-6)
    assert reports[0] == "Main memory is short: tiles are processed 13 at a time. Slower, with the same result."


def test_below_the_last_step_there_is_an_error_with_a_hint():
    with pytest.raises(DeviceError, match="Main memory is too small: not even one tile") as caught:
        predict(Limited(make_network(3), most=0), make_data(1, 16, 16, 16), patch_size=(16, 16, 16))
    assert "Close other programs" in caught.value.hint


def test_other_errors_of_the_network_are_not_taken_for_short_memory():
    with pytest.raises(RuntimeError, match=r"expected input.* to have 1 channels"):
        predict(make_network(3), make_data(2, 16, 16, 16), patch_size=(16, 16, 16), batch_size=4)


# The CPU under another name stands for a GPU: results move between the two as they do between real devices.
GPU = "cpu:0"


def make_ladder(reports: list, free_gpu: int = 8 * 2**30, free_host: int = 64 * 2**30, **options) -> MemoryLadder:
    options = {"accumulator_bytes": 2**30, "batch_size": None, "most": 4} | options
    free = {GPU: free_gpu, "cpu": free_host}
    return MemoryLadder(GPU, report=reports.append, free=free.__getitem__, **options)


@pytest.mark.parametrize("fitting_blocks", [0, 1, 3])
def test_results_that_do_not_fit_on_the_gpu_continue_in_main_memory(fitting_blocks):
    given, reports, data = [], [], make_data(1, 40, 30, 20)

    def allocate(shape, device):
        given.append(device)
        if device == GPU and given.count(GPU) > fitting_blocks:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return torch.zeros(shape)

    collected = RollingLogits(Tiling.of(data.shape[1:], (16, 16, 16), 0.5), CLASSES, allocate)
    network = TileNetwork(make_network(3), CLASSES, (), planar=False, device=torch.device("cpu"), report=reports.append)
    slabs = run_tiles(network, data, collected, make_ladder(reports, batch_size=2), None, None)
    found = torch.cat([slab for _, slab in slabs], dim=1)
    torch.testing.assert_close(found, predict(make_network(3), data, patch_size=(16, 16, 16)), rtol=0, atol=5e-6)
    assert reports == [
        "GPU memory is short: tiles are processed 1 at a time. Slower, with the same result.",
        "GPU memory is short: results are collected in main memory. Slower, with the same result.",
    ]
    assert given[-1] == "cpu"


def test_the_ladder_of_a_gpu_goes_down_to_an_error():
    reports = []
    ladder = make_ladder(reports, batch_size=2)
    assert (ladder.batch_size, ladder.accumulate_on) == (2, GPU)
    ladder.step_down()
    assert (ladder.batch_size, ladder.accumulate_on) == (1, GPU)
    ladder.step_down()
    assert (ladder.batch_size, ladder.accumulate_on) == (1, "cpu")
    with pytest.raises(DeviceError, match=r"GPU memory is too small: not even one tile .* 8\.0 GiB"):
        ladder.step_down()
    assert len(reports) == 2


@pytest.mark.parametrize(
    ("tile_gib", "batch_size", "reported"), [(0.5, 4, 0), (2, 2, 1), (5, 1, 1), (9, 1, 1)], ids=str
)
def test_the_batch_is_chosen_from_what_one_tile_takes(tile_gib, batch_size, reported):
    reports = []
    ladder = make_ladder(reports)
    ladder.choose_batch(int(tile_gib * 2**30))
    assert ladder.batch_size == batch_size
    assert len(reports) == reported


def test_results_larger_than_half_of_the_gpu_start_in_main_memory():
    reports = []
    assert make_ladder(reports, accumulator_bytes=5 * 2**30).accumulate_on == "cpu"
    assert reports == ["GPU memory is short: results are collected in main memory. Slower, with the same result."]


def test_results_larger_than_main_memory_are_refused_before_anything_runs():
    with pytest.raises(DeviceError, match=r"the results need 70\.0 GiB, 64\.0 GiB are free"):
        make_ladder([], accumulator_bytes=70 * 2**30)
    huge = np.broadcast_to(np.float32(0), (1, 500, 10**6, 10**6))
    with pytest.raises(DeviceError, match="Main memory is too small"):
        predict_logits(make_network(3), huge, patch_size=(128, 128, 128), num_classes=CLASSES)


def test_failed_allocations_are_recognised():
    for allocate in (lambda: torch.empty(2**55), lambda: np.empty(2**55), lambda: bytearray(2**60)):
        with pytest.raises((RuntimeError, MemoryError)) as caught:
            allocate()
        assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("any text"))
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 4.02 GB)"))
    assert is_out_of_memory(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"))
    assert is_out_of_memory(RuntimeError("could not create a primitive"))
    assert not is_out_of_memory(RuntimeError("could not create a primitive descriptor for a convolution"))
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_free_memory_is_less_than_this_computer_has():
    has = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 2**20 < free_memory() < has


def test_free_memory_is_read_from_what_linux_and_macos_say():
    assert free_from_meminfo("MemTotal: 16384 kB\nMemFree:  10 kB\nMemAvailable:   12000 kB\n") == 12000 * 1024
    assert free_from_meminfo("MemTotal: 16384 kB\n") is None
    said = (
        "Mach Virtual Memory Statistics: (page size of 16384 bytes)\n"
        "Pages free:                               10000.\n"
        "Pages active:                            200000.\n"
        "Pages inactive:                           30000.\n"
        "Pages speculative:                         2000.\n"
    )
    assert free_from_vm_stat(said) == 42000 * 16384
    assert free_from_vm_stat("") is None
