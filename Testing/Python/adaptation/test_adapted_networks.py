"""Each architecture learns from a corrected slice, those that cannot are refused with the reason, and places fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from bundles import FLAT_NETWORKS, FLAT_PLAN, TINY, write_tiny_bundle
from usema.adaptation import learning
from usema.adaptation.adapting import adapt
from usema.adaptation.corrections import Corrections
from usema.adaptation.fitting import HEADS, STAGE
from usema.adaptation.judging import LEARNED
from usema.adaptation.lesson import Lesson, Shown
from usema.adaptation.looking import windows
from usema.adaptation.parameters import HEADS as HEAD_PLACES
from usema.adaptation.parameters import LAST
from usema.adaptation.places import Places
from usema.adaptation.truth import UNKNOWN, truth
from usema.adaptation.wish import Wish
from usema.errors import Cancelled
from usema.inference.outputs import Outputs
from usema.inference.predictor import Predictor
from usema.models.adaptable import NETWORKS, why_not
from usema.models.parts import SIGMOID
from usema.networks import ARCHITECTURES
from usema.volumes.volume import read_volume, reorient

SEGRESNET = {"in_channels": 1, "num_classes": 3, "filters": 8, "blocks_down": [1, 1], "blocks_up": [1]}
SOLID = {name: {**config, "kernels": [[3, 3, 3]] * 2, "strides": [[1, 1, 1], [2, 2, 2]]}
         for name, config in FLAT_NETWORKS.items() if "UNet" in name and "kernels" in config}  # fmt: skip
MODELS = {
    "USEMA": {"architecture": {"name": "USEMA", "config": TINY}},
    "SegResNetDS": {"architecture": {"name": "SegResNetDS", "config": SEGRESNET}},
    **{f"{name} 3D": {"architecture": {"name": name, "config": config}} for name, config in SOLID.items()},
    **{
        name: {"architecture": {"name": name, "config": config}, "preprocessing": FLAT_PLAN}
        for name, config in FLAT_NETWORKS.items()
    },
}


@pytest.fixture
def volume(small_volume):
    return read_volume(small_volume)


@pytest.mark.parametrize(
    ("name", "deep"), [(name, deep) for name in MODELS for deep in (False, True) if deep or name != "Attention-Mamba"]
)
def test_each_architecture_learns_from_a_slice(tmp_path, volume, name, deep):
    bundle = write_tiny_bundle(tmp_path / "tiny", **MODELS[name])
    predictor = Predictor(bundle, "cpu")
    labels = np.full(volume.array.shape, 2, np.uint8)
    before = {key: value.clone() for key, value in predictor.parts[0].network.state_dict().items()}
    # nothing holds an untrained network: what it said was noise
    recipe = replace(STAGE, steps=12, rate=5e-3, anchor=0.0) if deep else replace(HEADS, anchor=0.0)
    adapted = adapt(predictor, [volume], Corrections(labels, ((0, 6),)), Wish(way=LEARNED, recipe=recipe))
    np.testing.assert_array_equal(adapted.segmentation.labels[6], labels[6])
    found = [one.segment(volume).labels[6] for one in (predictor, predictor.adapted(adapted.delta))]
    assert (found[1] == labels[6]).mean() > (found[0] == labels[6]).mean()
    for key, value in predictor.parts[0].network.state_dict().items():
        assert torch.equal(value, before[key])
    weights = bundle.load_weights()
    assert adapted.delta.tensors.keys() <= weights.keys()
    assert any(not torch.equal(weights[key], value) for key, value in adapted.delta.tensors.items())
    assert (len(adapted.delta.tensors) <= 2) != deep


def test_where_heads_cannot_learn_alone_the_last_stage_does(tmp_path, volume, monkeypatch):
    monkeypatch.setattr(learning, "STAGE", replace(STAGE, steps=2))
    predictor = Predictor(write_tiny_bundle(tmp_path / "tiny", **MODELS["Attention-Mamba"]), "cpu")
    estimates, steps = [], []
    labels = np.ones(volume.array.shape, np.uint8)
    wish = Wish(way=LEARNED, recipe=HEADS)
    adapted = adapt(
        predictor, [volume], Corrections(labels, ((0, 6),)), wish, estimated=estimates.append,
        progress=lambda phase, done, total, left: steps.append((done, total)) if phase == "learning" else None,
    )  # fmt: skip
    assert steps == [(0, 2), (1, 2), (2, 2)]  # those of the recipe that it learned by
    assert len(adapted.delta.tensors) > 10
    assert estimates[0].memory_bytes > 0


def test_those_that_can_learn_are_the_same_with_and_without_torch():
    assert {ARCHITECTURES[name][0] for name in NETWORKS} == set(LAST)
    assert set(HEAD_PLACES) < set(LAST)


def test_a_model_that_cannot_learn_says_why(tmp_path, case):
    metadata = case.bundle.metadata
    assert why_not(metadata) == ""
    finder = replace(metadata)
    finder.__dict__["networks"] = (metadata.finder,)
    assert "MeshNet, which has no last stage" in why_not(finder)
    finder.__dict__["networks"] = (metadata.networks[0],) * 2
    assert "joins 2 networks" in why_not(finder)


# Where things lie


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "SAL", "PIR"])
@pytest.mark.parametrize("spacing", [1.0, 0.7, 2.0])
def test_a_slice_is_found_in_what_the_network_sees(tmp_path, volume, orientation, spacing):
    plan = {**write_tiny_bundle(tmp_path / "tiny").metadata.preprocessing, "spacing": [spacing] * 3}
    predictor = Predictor(write_tiny_bundle(tmp_path / "other", preprocessing=plan, orientation=orientation), "cpu")
    turned = reorient(volume, "PIR")
    seen = []
    for axis in range(3):
        index = turned.array.shape[axis] // 3
        numbers = np.arange(turned.array.shape[axis], dtype=np.int16)
        shape = [1, 1, 1]
        shape[axis] = -1
        labels = np.broadcast_to(numbers.reshape(shape), turned.array.shape)

        def teacher(part, prepared, grid, labels=labels, slices=((axis, index),)):
            seen.append(Lesson.of(prepared.data, Places.of(prepared, grid, turned.geometry), labels, slices))
            raise Cancelled("seen")  # the network need not run

        with pytest.raises(Cancelled):
            predictor.segment(turned, teacher=teacher)
        (shown,) = seen[-1].shown
        found = seen[-1].labels[shown.index]
        assert found.size
        assert (found == index).all()
        known = seen[-1].known()
        assert ((known != UNKNOWN).sum(axis=tuple({0, 1, 2} - {shown.axis})) > 0).sum() == len(shown.planes)
        assert (seen[-1].known(without=(axis, index)) == UNKNOWN).all()


def test_of_regions_that_lie_in_each_other_only_what_a_label_tells_is_known():
    outputs = Outputs([1, 2], 2, SIGMOID, (1.0,))
    target, known = truth(outputs, torch.tensor([0, 1, 2, UNKNOWN]))
    assert target.tolist() == [[0, 1, 0, 0], [0, 0, 1, 0]]
    assert known.tolist() == [[True, True, False, False], [True, True, True, False]]


def shown(*slices: tuple[int, int]) -> list[Shown]:
    return [Shown((axis, index), axis, np.array([index])) for axis, index in slices]


def lesson(*shape: int) -> Lesson:
    places = Places((0, 1, 2), tuple(np.arange(length, dtype=float) for length in shape))
    return Lesson(np.zeros((1, *shape), np.float32), np.zeros(shape, np.int16), (), places)


@pytest.mark.parametrize("tile", [(24, 32, 24), (40, 36)])
def test_windows_hold_all_slices_well_inside_and_are_few(tile):
    slices = shown((0, 0), (0, 30), (0, 33), (0, 90), (0, 99), (1, 50), (2, 7))
    found = windows(lesson(100, 120, 90), slices, tile)
    assert sorted(one.slice for window in found for one in window.shown) == sorted(one.slice for one in slices)
    sides = tile if len(tile) == 3 else (1, *tile)
    for window in found:
        assert window.stop - window.start == sides[window.axis]
        for one in window.shown:
            inner = 0 if sides[window.axis] == 1 else sides[window.axis] // 8
            length = (100, 120, 90)[window.axis]
            assert window.start == 0 or one.planes[0] >= window.start + inner
            assert window.stop == length or one.planes[-1] < window.stop - inner
    assert len(found) == (5 if len(tile) == 3 else 7)
