"""Resampling by matrix products on a device, against the way of the CPU, on real volumes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nnunet_cases import load
from usema.inference import device_resampling, resampling
from usema.inference.loading import load_parts
from usema.inference.nnunet_recipe import preprocess
from usema.inference.plan import Plan
from usema.models.bundle import read_bundle
from usema.resources import bundled_models

# Up and down; all axes together, slices apart along the first and along another axis; transposed; masked.
NAMES = [
    "hippocampus, other spacing",
    "hippocampus, coarse second axis",
    "sarcoma, coarser",
    "sarcoma, coarse along another axis",
    "sarcoma, half in plane",
    "body CT, coarse, transposed",
]
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")),
]


def prepared(name, data, device):
    case = load(name, data)
    plan = Plan.from_nnunet(case.plans, case.configuration)
    return preprocess(case.array, case.spacing, plan, device=device and torch.device(device))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", NAMES)
def test_a_device_gives_what_the_cpu_gives(name, device, data, monkeypatch):
    expected = prepared(name, data, None).data
    done = []
    on_device = device_resampling.resampled_on
    monkeypatch.setattr(resampling, "resampled_on", lambda *given: done.append(on_device(*given)) or done[-1])
    found = prepared(name, data, device).data
    assert done == [True]
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    # Both add up the same float32 products; only in another order.
    assert abs(found - expected).max() < 1e-6 * np.ptp(expected)


@pytest.mark.parametrize("name", ["hippocampus, other spacing", "sarcoma, coarser"])
def test_where_the_device_has_no_memory_the_cpu_resamples(name, data, monkeypatch):
    expected = prepared(name, data, None).data

    def full(*given):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(device_resampling, "_resampled", full)
    assert np.array_equal(prepared(name, data, "cpu").data, expected)


def test_the_device_is_not_tried_where_it_is_known_to_be_full(data, monkeypatch):
    expected = prepared("hippocampus, other spacing", data, None).data
    volume = expected[0]
    matrices = [resampling._spline(length, 2 * length) for length in volume.shape]
    out = np.empty([2 * length for length in volume.shape], np.float32)
    asked = []

    def free(bytes_free):
        return lambda device: asked.append(device) or bytes_free

    needed = 4 * 2 * out.size  # the result, and its copy that is clipped
    on_cpu = torch.device("cpu")
    assert not device_resampling.resampled_on(on_cpu, volume, matrices, None, out, free(needed))
    assert device_resampling.resampled_on(on_cpu, volume, matrices, None, out, free(2 * needed))
    assert device_resampling.resampled_on(on_cpu, volume, matrices, None, out, free(None))
    assert asked == ["cpu"] * 3


def test_other_failures_of_the_device_are_not_hidden(data, monkeypatch):
    def broken(*given):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(device_resampling, "_resampled", broken)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        prepared("hippocampus, other spacing", data, "cpu")


def test_a_model_on_a_gpu_has_it_resample_and_one_on_a_cpu_does_not():
    bundle = read_bundle(bundled_models()["hippocampus-mr"])
    for name, wanted in (("cuda:0", torch.device("cuda:0")), ("cpu", None)):  # nothing moves there before it runs
        (part,) = load_parts(bundle, torch.device(name))
        assert part.recipe.device == wanted
