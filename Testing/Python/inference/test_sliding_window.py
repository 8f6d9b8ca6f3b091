"""Sliding-window inference: against nnU-Net's predictor, and as its receiver sees it."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from tiny_networks import CLASSES, make_data, make_network, predict
from torch import nn
from usema.errors import BundleError, Cancelled, InputError, UsemaError
from usema.inference.memory import MemoryLadder
from usema.inference.rolling_logits import RollingLogits
from usema.inference.sliding_window import TileNetwork, predict_logits, run_tiles
from usema.inference.tiling import Tiling, importance, tile_starts, tile_weights

# --- The same as nnU-Net ----------------------------------------------------------------------------------------------


def predict_as_nnunet(network, data, patch_size, overlap, mirror_axes) -> torch.Tensor:
    """The logits of nnU-Net's own predictor, on the CPU."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.label_handling.label_handling import LabelManager
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

    predictor = nnUNetPredictor(
        tile_step_size=round(1 - overlap, 9),
        use_gaussian=True,
        use_mirroring=bool(mirror_axes),
        perform_everything_on_device=False,
        device=torch.device("cpu"),
        allow_tqdm=False,
    )
    predictor.network = network
    predictor.configuration_manager = ConfigurationManager({"patch_size": list(patch_size), "architecture": {}})
    predictor.label_manager = LabelManager({"background": 0, "first": 1, "second": 2}, regions_class_order=None)
    predictor.allowed_mirroring_axes = mirror_axes or None
    return predictor.predict_sliding_window_return_logits(torch.from_numpy(data))


@pytest.fixture
def nnunet_in_single_precision(monkeypatch):
    """nnU-Net collects logits and importance in float16, written so in its code; here its code runs in float32."""
    from nnunetv2.inference import predict_from_raw_data

    monkeypatch.setattr(torch, "half", torch.float32)
    in_float32 = functools.partial(predict_from_raw_data.compute_gaussian, dtype=torch.float32)
    monkeypatch.setattr(predict_from_raw_data, "compute_gaussian", in_float32)


SHAPES_3D = {
    "larger": (1, 25, 45, 17),
    "equal": (1, 16, 24, 12),
    "smaller": (1, 9, 11, 7),
    "smaller and larger": (1, 11, 60, 12),
    "two channels, one plane": (2, 1, 31, 20),
}


@pytest.mark.usefixtures("nnunet_in_single_precision")
@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5, 0.7])
@pytest.mark.parametrize("shape", SHAPES_3D.values(), ids=SHAPES_3D)
def test_a_3d_network_gives_the_logits_of_nnunet(shape, overlap):
    network, data = make_network(3, shape[0]), make_data(*shape)
    for mirror_axes in [(), (0, 1, 2)]:
        expected = predict_as_nnunet(network, data, (16, 24, 12), overlap, mirror_axes)
        found = predict(network, data, patch_size=(16, 24, 12), overlap=overlap, mirror_axes=mirror_axes)
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


SHAPES_2D = {
    "larger": (1, 5, 45, 61),
    "equal": (1, 3, 24, 32),
    "smaller": (1, 4, 13, 9),
    "smaller and larger": (2, 2, 80, 17),
}


@pytest.mark.usefixtures("nnunet_in_single_precision")
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("shape", SHAPES_2D.values(), ids=SHAPES_2D)
def test_a_2d_network_gives_the_logits_of_nnunet_plane_by_plane(shape, overlap):
    network, data = make_network(2, shape[0]), make_data(*shape)
    for mirror_axes in [(), (1,), (0, 1)]:
        expected = predict_as_nnunet(network, data, (24, 32), overlap, mirror_axes)
        found = predict(network, data, patch_size=(24, 32), overlap=overlap, mirror_axes=mirror_axes, batch_size=5)
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


def test_a_real_hippocampus_gives_the_logits_of_nnunet_as_it_is_installed(data):
    """Untouched, nnU-Net multiplies and adds in float16, which has 11 bits and loses small numbers.

    Logits of about 1 then differ by some 2**-11 for each of up to eight tiles. At the border of the volume, where the
    importance (of which nnU-Net's is ten times ours) comes near the smallest float16 of 2**-24, its logits are coarse
    and at the corners zero; these voxels are left out.
    """
    image = sitk.ReadImage(str(data / "nnUNet_raw/Dataset004_Hippocampus/imagesTr/hippocampus_001_0000.nii.gz"))
    array = sitk.GetArrayFromImage(image).astype(np.float32)
    array = ((array - array.mean()) / array.std())[None]
    patch_size = (24, 32, 24)
    network = make_network(3)
    expected = predict_as_nnunet(network, array, patch_size, 0.5, (0, 1, 2)).float()
    found = predict(network, array, patch_size=patch_size, mirror_axes=(0, 1, 2))

    tiling = Tiling.of(array.shape[1:], patch_size, 0.5)
    totals = []
    for size, tile, starts in zip(tiling.padded, tiling.tile, tiling.starts, strict=True):
        totals.append(sum(np.pad(importance(tile), (start, size - tile - start)) for start in starts))
    inside = np.einsum("i,j,k->ijk", *totals) > 1e-4
    assert inside.mean() > 0.8
    torch.testing.assert_close(found[:, inside], expected[:, inside], rtol=0, atol=8 * 2**-11)


@pytest.mark.usefixtures("nnunet_in_single_precision")
def test_a_real_body_ct_gives_the_labels_of_nnunet(data):
    image = sitk.ReadImage(str(data / "volumes/body_ct/example_ct_sm.nii.gz"))
    array = np.clip(sitk.GetArrayFromImage(image).astype(np.float32), -1000, 1000)
    body = np.argwhere(array > -500)
    first, last = body.min(axis=0), body.max(axis=0) + 1
    array = array[tuple(map(slice, first, last))]
    array = ((array - array.mean()) / array.std())[None]
    network = make_network(3)
    expected = predict_as_nnunet(network, array, (64, 64, 48), 0.5, ())
    found = predict(network, array, patch_size=(64, 64, 48))
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
    assert (found.argmax(0) != expected.argmax(0)).float().mean() < 1e-5  # what is left are ties to rounding


def test_tiles_start_where_those_of_nnunet_start():
    from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window

    overlaps = [0, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    for tile, overlap in itertools.product([1, 2, 3, 10, 16, 33, 100], overlaps):
        for size in (*range(tile, tile + 12), 2 * tile, 3 * tile + 1, 7 * tile, 511):
            if size >= tile:
                expected = compute_steps_for_sliding_window((size,), (tile,), float(f"{1 - overlap:.2f}"))[0]
                assert tile_starts(size, tile, overlap) == expected, (size, tile, overlap)


@pytest.mark.parametrize("tile", [(16, 24, 12), (7, 20, 9), (1, 2, 3)])
def test_the_importance_map_is_that_of_nnunet(tile):
    from nnunetv2.inference.sliding_window_prediction import compute_gaussian

    expected = compute_gaussian(tile, dtype=torch.float64, device=torch.device("cpu")).numpy()
    a, b, c = map(importance, tile)
    np.testing.assert_allclose(a[:, None, None] * b[:, None] * c, expected, rtol=1e-9)


@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.9])
def test_the_shares_of_the_tiles_add_up_to_one_in_every_voxel(overlap):
    starts = tile_starts(301, 128, overlap)
    total = np.zeros(301)
    for start, weight in zip(starts, tile_weights(starts, 128, 301), strict=True):
        assert (weight > 0).all()
        total[start : start + 128] += weight.numpy()
    np.testing.assert_allclose(total, 1, atol=1e-6)


# --- Streaming --------------------------------------------------------------------------------------------------------


def test_finished_slabs_leave_before_the_last_tile_has_run():
    done = []
    slabs = predict_logits(
        make_network(3),
        make_data(1, 64, 16, 16),
        patch_size=(16, 16, 16),
        num_classes=CLASSES,
        progress=lambda tiles, total, seconds_left: done.append((tiles, total)),
    )
    assert next(slabs)[1].shape == (CLASSES, 8, 16, 16)
    assert done[-1] == (1, 7)


@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.65])
def test_no_more_planes_are_held_than_a_tile_is_high(overlap):
    tiling = Tiling.of((70, 20, 20), (16, 16, 16), overlap)
    collected = RollingLogits(tiling, CLASSES)
    most = 0
    for done, tile in enumerate(tiling.tiles, start=1):
        collected.open([tile], "cpu")
        collected.add([tile], torch.ones(1, CLASSES, 16, 16, 16))
        most = max(most, collected.planes)
        for _, slab in collected.finished(tiling.finished_planes(done)):
            torch.testing.assert_close(slab, torch.ones_like(slab))
    assert most == 16
    assert collected.planes == 0


@pytest.mark.parametrize("along", [1, 2])
def test_slabs_along_another_axis_have_the_same_logits(along):
    network, data, patch = make_network(3), make_data(1, 21, 45, 30), (12, 16, 20)
    expected = predict(network, data, patch_size=patch, mirror_axes=(0, 2))
    turned = predict(
        network, np.moveaxis(data, 1 + along, 1), patch_size=patch, mirror_axes=(0, 2), along=along, batch_size=2
    )
    torch.testing.assert_close(turned.movedim(1, 1 + along), expected, rtol=0, atol=5e-6)


def test_a_slab_belongs_to_its_receiver():
    """No inference mode leaks into the loop that receives, which may change a slab in place."""
    for _, slab in predict_logits(
        make_network(3), make_data(1, 20, 16, 16), patch_size=(16, 16, 16), num_classes=CLASSES
    ):
        assert not torch.is_inference_mode_enabled()
        slab += 1


def test_a_memory_mapped_volume_is_read_tile_by_tile(tmp_path):
    data = make_data(1, 30, 20, 20)
    np.save(tmp_path / "volume.npy", data)
    mapped = np.load(tmp_path / "volume.npy", mmap_mode="r")
    network = make_network(3)
    assert torch.equal(
        predict(network, mapped, patch_size=(16, 16, 16)), predict(network, data, patch_size=(16, 16, 16))
    )
    assert torch.equal(
        predict(network, torch.from_numpy(data), patch_size=(16, 16, 16)),
        predict(network, data, patch_size=(16, 16, 16)),
    )


# --- Progress, cancelling, what the network may not do ----------------------------------------------------------------


def test_progress_is_told_after_each_batch_with_the_time_left():
    told = []
    data = make_data(1, 30, 30, 20)
    predict(make_network(3), data, patch_size=(16, 16, 16), batch_size=4, progress=lambda *now: told.append(now))
    assert [(done, total) for done, total, _ in told] == [(0, 18), (4, 18), (8, 18), (12, 18), (16, 18), (18, 18)]
    assert told[0][2] is None
    assert all(seconds > 0 for _, _, seconds in told[1:-1])
    assert told[-1][2] == 0


def test_it_stops_before_the_next_batch_when_asked():
    done = []
    with pytest.raises(Cancelled):
        predict(
            make_network(3),
            make_data(1, 30, 30, 20),
            patch_size=(16, 16, 16),
            progress=lambda tiles, total, seconds_left: done.append(tiles),
            should_stop=lambda: len(done) == 4,
        )
    assert done == [0, 1, 2, 3]


def test_the_network_is_in_evaluation_mode_and_then_as_it_was():
    network = nn.Sequential(make_network(3), nn.Dropout(0.9)).train()
    network[0][1].eval()
    before = [module.training for module in network.modules()]
    data = make_data(1, 40, 16, 16)
    slabs = predict_logits(network, data, patch_size=(16, 16, 16), num_classes=CLASSES)
    first = next(slabs)[1]
    assert not network[1].training
    slabs.close()  # the receiver gives up
    assert [module.training for module in network.modules()] == before
    assert torch.equal(first, predict(network[0], data, patch_size=(16, 16, 16))[:, : first.shape[1]])


class Scaled(nn.Module):
    """Multiplies the logits by 100,000 and divides again: too much on the way for float16, not for float32."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self.up, self.down = nn.Conv3d(CLASSES, CLASSES, 1), nn.Conv3d(CLASSES, CLASSES, 1)
        for conv, factor in ((self.up, 1e5), (self.down, 1e-5)):
            nn.init.zeros_(conv.bias)
            conv.weight.data.copy_(torch.eye(CLASSES).view(CLASSES, CLASSES, 1, 1, 1) * factor)

    def forward(self, x):
        return self.down(self.up(self.network(x) + 1.0))


def test_values_too_large_for_half_precision_are_repeated_in_single_precision():
    data, reports = make_data(1, 24, 16, 16), []
    tiling = Tiling.of(data.shape[1:], (16, 16, 16), 0.5)
    ladder = MemoryLadder("cpu", 0, batch_size=1, most=1, report=reports.append)
    network = TileNetwork(
        Scaled(make_network(3)), CLASSES, (), planar=False, device=torch.device("cpu"), report=reports.append, half=True
    )
    slabs = run_tiles(network, data, RollingLogits(tiling, CLASSES), ladder, None, None)
    found = torch.cat([slab for _, slab in slabs], dim=1)
    expected = predict(Scaled(make_network(3)), data, patch_size=(16, 16, 16))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert reports == ["Half precision does not suffice for this volume: continuing in single precision, slower."]


def test_half_precision_that_suffices_is_kept():
    tiles, reports = torch.from_numpy(make_data(2, 1, 16, 16, 16)), []
    options = {"planar": False, "device": torch.device("cpu"), "report": reports.append}
    half = TileNetwork(make_network(3), CLASSES, (0,), half=True, **options)(tiles)
    single = TileNetwork(make_network(3), CLASSES, (0,), half=False, **options)(tiles)
    assert half.dtype == torch.float32
    assert not torch.equal(half, single)
    torch.testing.assert_close(half, single, rtol=0, atol=0.01)
    assert reports == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("tile", [1, 2, 4])
def test_non_finite_values_never_become_a_mask(value, tile):
    class Broken(nn.Module):
        calls = 0

        def forward(self, x):
            x, self.calls = x.repeat(1, CLASSES, 1, 1, 1), self.calls + 1
            if self.calls == tile:
                x[0, -1, 0, 0, 0] = value
            return x

    network = Broken()
    with pytest.raises(UsemaError, match="The network produced non-finite values"):
        predict(network, make_data(1, 24, 24, 16), patch_size=(16, 16, 16))
    assert network.calls == (1 if tile == 1 else 2 * -(-tile // 2)), "told with the first tile, or at the row's end"


@pytest.mark.parametrize(
    ("output", "found"),
    [
        (lambda x: x, r"\(1, 1, 16, 16, 16\)"),
        (lambda x: x.repeat(1, CLASSES, 1, 1, 1)[..., ::2], r"\(1, 3, 16, 16, 8\)"),
        (lambda x: [x.repeat(1, CLASSES, 1, 1, 1)], "a list"),
    ],
    ids=["wrong number of classes", "wrong size", "deep supervision"],
)
def test_a_network_that_returns_something_else_is_refused(output, found):
    class Other(nn.Module):
        def forward(self, x):
            return output(x)

    with pytest.raises(BundleError, match=rf"returned {found} where logits of shape \(1, 3, 16, 16, 16\)"):
        predict(Other(), make_data(1, 16, 16, 16), patch_size=(16, 16, 16))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"overlap": 0.95}, "0.95"),
        ({"overlap": -0.1}, "-0.1"),
        ({"overlap": float("nan")}, "nan"),
        ({"patch_size": (16,)}, r"\(16,\)"),
        ({"patch_size": (16, 0, 16)}, r"\(16, 0, 16\)"),
        ({"mirror_axes": (0, 3)}, r"\(0, 3\)"),
        ({"mirror_axes": (-1,)}, r"\(-1,\)"),
        ({"mirror_axes": (1, 1)}, r"\(1, 1\)"),
        ({"mirror_axes": (2,), "patch_size": (16, 16)}, r"\(2,\)"),
        ({"batch_size": 0}, "0"),
        ({"data": make_data(16, 16, 16)}, r"\(16, 16, 16\)"),
        ({"data": make_data(1, 16, 0, 16)}, r"\(1, 16, 0, 16\)"),
    ],
    ids=str,
)
def test_arguments_that_cannot_be_used_are_refused_at_once_by_name(options, named):
    options = {"data": make_data(1, 16, 16, 16), "patch_size": (16, 16, 16)} | options
    with pytest.raises(InputError, match=named):
        predict_logits(make_network(3), num_classes=CLASSES, **options)


# --- On a GPU ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
@pytest.mark.parametrize("batch_size", [None, 3])
@pytest.mark.parametrize("patch_size", [(16, 16, 12), (16, 12)])
def test_a_gpu_gives_the_logits_of_the_cpu(patch_size, batch_size):
    data, reports = make_data(1, 41, 30, 25), []
    options = {"patch_size": patch_size, "mirror_axes": (0,), "batch_size": batch_size}
    expected = predict(make_network(len(patch_size)), data, **options)
    found = predict(make_network(len(patch_size)), data, device="cuda", report=reports.append, **options)
    assert found.device.type == "cuda"
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=0.01)  # float16 within the network
    assert reports == []
