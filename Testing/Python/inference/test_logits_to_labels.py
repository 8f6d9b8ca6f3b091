"""From logits to labels, against nnU-Net's own export on the grids of real volumes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nnunet_cases import CASES, Case, load, read_volume
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from scipy import ndimage
from torch.utils._python_dispatch import TorchDispatchMode
from usema.inference import slab_resampling
from usema.inference.logits_to_labels import LogitsToLabels
from usema.inference.nnunet_recipe import Plan, Preprocessed, preprocess
from usema.inference.outputs import Outputs
from usema.inference.slab_resampling import CHUNK
from usema.inference.winners import can_win
from usema.volumes.margins import LOWEST, NEAR

CLASSES = 4


def prepare(case: Case) -> Preprocessed:
    return preprocess(case.array, case.spacing, Plan.from_nnunet(case.plans, case.configuration))


def smooth_logits(shape, classes: int = CLASSES, seed: int = 0) -> torch.Tensor:
    """Logits with structures of some voxels, as a network's are; from hesitant to certain."""
    noise = np.random.default_rng(seed).normal(size=(classes, *shape))
    return torch.from_numpy(60 * ndimage.gaussian_filter(noise, (0, 2, 2, 2))).float()


def streamed(sink: LogitsToLabels, logits: torch.Tensor, depth: int):
    for start in range(0, logits.shape[1], depth):
        sink.add(start, logits[:, start : start + depth])
    return sink.finish()


def exported_by_nnunet(case: Case, logits: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    _, properties = case.preprocessed_by_nnunet()
    plans, configuration = case.nnunet()
    names = {"background": 0} | {str(label): label for label in range(1, len(logits))}
    return convert_predicted_logits_to_segmentation_with_correct_shape(
        logits.clone(),
        plans,
        configuration,
        plans.get_label_manager({"labels": names}),
        properties,
        return_probabilities=True,
        num_threads_torch=torch.get_num_threads(),
    )


@pytest.mark.parametrize("name", CASES)
def test_labels_and_probabilities_are_those_of_nnunet_for_every_slab_size(name, data):
    case = load(name, data)
    preprocessed = prepare(case)
    logits = smooth_logits(preprocessed.data.shape[1:])
    expected, expected_probabilities = exported_by_nnunet(case, logits)
    assert len(np.unique(expected)) == CLASSES
    for depth in (1, 3, 16, logits.shape[1]):
        labels, probabilities = streamed(LogitsToLabels(preprocessed, Outputs.classes(CLASSES), True), logits, depth)
        assert labels.dtype == np.uint8
        assert labels.shape == case.array.shape[1:]
        assert probabilities.dtype == np.float16
        # float16 rounds at 2.5e-4 below one.
        assert np.abs(probabilities - expected_probabilities).max() < 3e-4
        # Where two classes are equal to the last digits, either may win.
        differs = labels != expected
        chosen = np.take_along_axis(expected_probabilities, labels[None].astype(int), 0)[0]
        assert np.all(expected_probabilities.max(0)[differs] - chosen[differs] < 1e-5)
        assert differs.mean() < 1e-4


@pytest.mark.parametrize("name", ["hippocampus, other spacing", "sarcoma, coarser", "sarcoma, reversed"])
def test_slabs_along_another_axis_give_the_same_labels_and_margins(name, data):
    preprocessed = prepare(load(name, data))
    logits = smooth_logits(preprocessed.data.shape[1:])
    results = []
    for along in (0, 1, 2):
        sink = LogitsToLabels(preprocessed.turned(along), Outputs.classes(CLASSES), keep_margins=True)
        labels, _ = streamed(sink, logits.movedim(1 + along, 1), 9)
        box = tuple(slice(0, length) for length in labels.shape)
        results.append((labels, sink.margins.of[1].on(box).astype(int)))
    for labels, margins in results[1:]:
        assert (labels != results[0][0]).mean() < 1e-4
        both = np.minimum(margins, results[0][1]) > NEAR
        assert both.any()
        assert np.abs(margins - results[0][1])[both].max() <= 1  # of 1/16, by rounding


def test_labels_on_the_networks_grid_come_back_voxel_by_voxel(data):
    """Without resampling the way back is exact: what the network says of a voxel lands on that voxel."""
    array, spacing = read_volume("sarcoma in zeros", data)
    plan = Plan(
        spacing=(spacing[2], spacing[0], spacing[1]),
        patch_size=(32, 32, 32),
        transpose_forward=(2, 0, 1),
        transpose_backward=(1, 2, 0),
        normalization=("NoNormalization",),
        use_mask_for_norm=(False,),
        intensity_properties=({},),
    )
    preprocessed = preprocess(array, spacing, plan)
    bright = torch.from_numpy((preprocessed.data[0] > 600).astype(np.float32))
    labels, probabilities = streamed(
        LogitsToLabels(preprocessed, Outputs.classes(2)), torch.stack([0.5 - bright, bright - 0.5]), 7
    )
    assert np.array_equal(labels, array[0] > 600)
    assert probabilities is None


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_logits_of_any_precision_and_memory_order_are_taken(kind, data):
    preprocessed = prepare(load("sarcoma, coarser", data))
    logits = smooth_logits(preprocessed.data.shape[1:]).to(kind)
    expected, _ = streamed(LogitsToLabels(preprocessed, Outputs.classes(CLASSES)), logits.float(), 5)
    strided = torch.stack([logits, logits], dim=-1)[..., 0]
    labels, _ = streamed(LogitsToLabels(preprocessed, Outputs.classes(CLASSES)), strided, 5)
    assert np.array_equal(labels, expected)


def test_more_than_256_classes_get_wider_labels(data):
    preprocessed = prepare(load("hippocampus, 3d", data))
    rng = np.random.default_rng(0)
    expected = rng.integers(0, 300, preprocessed.data.shape[1:])
    sink = LogitsToLabels(preprocessed, Outputs.classes(300))
    for start in range(0, len(expected), 10):
        wanted = torch.from_numpy(expected[start : start + 10])
        sink.add(start, torch.nn.functional.one_hot(wanted, 300).movedim(-1, 0).float())
    labels, _ = sink.finish()
    assert labels.dtype == np.uint16
    assert np.array_equal(labels, expected)


def test_all_classes_never_exist_at_once_on_the_volumes_grid(data):
    case = load("sarcoma, coarser", data)
    large = Case(np.tile(case.array, (1, 1, 2, 2)), case.spacing, case.plans, case.configuration)
    preprocessed = prepare(large)
    classes = 20
    slab = smooth_logits((4, *preprocessed.data.shape[2:]), classes)
    depth = preprocessed.data.shape[1]
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            tensors = result if isinstance(result, (tuple, list)) else [result]
            largest = max([largest, *(t.numel() for t in tensors if isinstance(t, torch.Tensor))])
            return result

    sink = LogitsToLabels(preprocessed, Outputs.classes(classes))
    with Watch():
        for start in range(0, depth, 4):
            sink.add(start, slab[:, : depth - start])
    labels, _ = sink.finish()
    assert labels.size * classes > 6 * CHUNK
    assert largest <= max(CHUNK, slab.numel())


def test_the_largest_foreground_probability_explains_an_empty_result(data):
    preprocessed = prepare(load("hippocampus, 3d", data))
    logits = torch.zeros((3, *preprocessed.data.shape[1:]))
    logits[0] = 3.0
    logits[2, 20, 10, 10] = 2.0
    sink = LogitsToLabels(preprocessed, Outputs.classes(3))
    labels, _ = streamed(sink, logits, 8)
    assert not labels.any()
    expected = torch.tensor([3.0, 0.0, 2.0]).softmax(0)[2].item()
    assert sink.highest == pytest.approx(expected, rel=1e-5)


def test_slabs_that_do_not_follow_each_other_are_refused(data):
    preprocessed = prepare(load("hippocampus, 3d", data))
    logits = smooth_logits(preprocessed.data.shape[1:], 2)
    sink = LogitsToLabels(preprocessed, Outputs.classes(2))
    sink.add(0, logits[:, :10])
    with pytest.raises(ValueError, match="10 slices"):
        sink.add(11, logits[:, 11:20])
    with pytest.raises(ValueError, match="10 slices"):
        sink.add(10, logits[:, 10:, 1:])
    with pytest.raises(ValueError, match="10 slices"):
        sink.add(10, torch.cat([logits, logits], dim=1))
    with pytest.raises(ValueError, match="10 of 35 slices"):
        sink.finish()


@pytest.mark.parametrize(("name", "margins"), [("sarcoma, coarser", False), ("sarcoma, coarser", True)])
def test_leaving_out_classes_that_cannot_win_changes_no_voxel(name, margins, data, monkeypatch):
    preprocessed, classes, there = prepare(load(name, data)), 40, 24
    shape = preprocessed.data.shape[1:]
    # Each class in a place of its own and far behind elsewhere, as organs are; the last ones nowhere.
    where = np.moveaxis(np.mgrid[tuple(slice(0, length) for length in shape)], 0, -1)
    centres = np.random.default_rng(1).uniform(0, 1, (there, 3)) * shape
    away = [np.linalg.norm(where - centre, axis=-1) for centre in centres]
    logits = torch.from_numpy(
        np.stack([*(4 - one for one in away), *[np.full(shape, -90.0)] * (classes - there)])
    ).float()
    logits += smooth_logits(shape, classes) / 8

    def found(depth):
        sink = LogitsToLabels(preprocessed, Outputs.classes(classes, 0.8), keep_margins=margins)
        labels, _ = streamed(sink, logits, depth)
        return labels, sink.margins

    compared = []

    def watched(parts, slack):
        compared.append(can_win(parts, slack))
        return compared[-1]

    with monkeypatch.context() as patch:
        patch.setattr(slab_resampling, "can_win", lambda parts, slack: None)
        expected, expected_margins = found(7)
    monkeypatch.setattr(slab_resampling, "can_win", watched)
    for depth in (1, 7, shape[0]):
        labels, kept = found(depth)
        assert np.array_equal(labels, expected)
        for value in expected_margins.of if margins else ():
            box = tuple(slice(0, length) for length in expected.shape)
            wanted, given = (one.of[value].on(box) for one in (expected_margins, kept))
            assert np.array_equal(np.where(wanted > NEAR, wanted, LOWEST), np.where(given > NEAR, given, LOWEST))
    assert len(np.unique(expected)) > 10
    assert sum(one is not None and len(one) <= there for one in compared) > len(compared) / 2
