"""Margins of logits as the engine streams them, against the probabilities that it keeps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from usema.inference.logit_margins import MarginCollector, margins_of
from usema.inference.outputs import Outputs
from usema.inference.predictor import Predictor
from usema.models.bundle import read_bundle
from usema.resources import bundled_models, sample_volume
from usema.volumes.margins import LOWEST, NEAR, STEP
from usema.volumes.volume import read_volume, reorient


@pytest.fixture(scope="module")
def sample():
    return read_volume(sample_volume())


@pytest.fixture(scope="module")
def predictor():
    return Predictor(read_bundle(bundled_models()["hippocampus-mr"]), "cpu")


@pytest.fixture(scope="module")
def result(predictor, sample):
    return predictor.segment(sample, overlap=0, margins=True, probabilities=True)


def expected_steps(probabilities: np.ndarray, value: int) -> np.ndarray:
    logs = np.log(np.maximum(probabilities.astype(np.float64), 1e-7))
    return (logs[value] - np.delete(logs, value, 0).max(0)) / STEP


def test_the_margins_of_a_result_are_those_of_its_probabilities_and_agree_with_its_labels(result):
    for value, one in result.margins.of.items():
        assert ((one.array >= 0) == (result.labels[one.box] == value)).all()
        exact = expected_steps(result.probabilities, value)[one.box]
        near = np.abs(exact) < 60  # beyond, float16 is too coarse to be compared with
        assert np.abs(one.array + 0.5 - exact)[near].max() <= 0.6
        outside = np.ones(result.labels.shape, bool)
        outside[one.box] = False
        if value:
            assert result.probabilities[value][outside].max(initial=0) <= 0.005


def test_another_orientation_of_the_volume_moves_them(predictor, sample, result):
    turned = predictor.segment(reorient(sample, "SRA"), overlap=0, margins=True)
    for value, one in turned.margins.of.items():
        assert ((one.array >= 0) == (turned.labels[one.box] == value)).all()
        assert abs(int((one.array > NEAR).sum()) - int((result.margins.of[value].array > NEAR).sum())) < 50


def test_of_chosen_labels_the_others_are_background(predictor, sample, result):
    one = predictor.segment(sample, overlap=0, margins=True, labels=["Anterior hippocampus"])
    assert set(one.margins.of) == {0, 1}
    background = one.margins.of[0]
    assert ((background.array >= 0) == (one.labels[background.box] == 0)).all()
    assert predictor.segment(sample, overlap=0).margins is None


def random_logits(outputs: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(0, 4, (outputs, 9, 5, 6))).float()


@pytest.mark.parametrize(
    ("outputs", "boundary"),
    [
        (Outputs.classes(4, 1.7), 0.0),
        (Outputs((0, 2, 1, 2, 0), 2), 0.0),
        (Outputs.classes(4), 0.5),
        (Outputs((2, 1, 3), 3, "sigmoid", (1.0, 2.0, 0.5)), 0.0),
        (Outputs((2, 1, 3), 3, "sigmoid"), 0.5),
    ],
)
def test_the_label_is_the_one_whose_margin_is_not_negative(outputs, boundary):
    logits = random_logits(outputs.count)
    scores = outputs.probabilities(logits) if boundary else logits
    labels = outputs.to_labels(scores, boundary)
    values, margins = margins_of(outputs, scores, boundary)
    found = torch.zeros_like(labels)
    for value, one in zip(values, margins, strict=True):
        found[one >= 0] = value
    assert (found == labels).all()
    collector = MarginCollector(logits.shape[1:], outputs)
    for begin in (0, 4, 8):
        collector.add(begin, scores[:, begin : begin + 4], boundary)
    kept = collector.finish()
    assert kept.order == ((2, 1, 3) if outputs.activation == "sigmoid" else None)
    for value, one in zip(values, margins, strict=True):
        found, exact = kept.of[value].array, one.numpy()[kept.of[value].box]
        assert (np.maximum(found, NEAR) == np.maximum(exact, NEAR)).all()
        assert (one > NEAR).sum() == (found > NEAR).sum()


def test_what_would_take_too_much_is_left_out_largest_first():
    outputs = Outputs.classes(3)
    logits = torch.full((3, 20, 20, 20), -9.0)
    logits[0] = 9
    logits[1, 2:5, 2:5, 2:5] = 9
    logits[2, 6:18, 6:18, 6:18] = 9
    collector = MarginCollector((20, 20, 20), outputs, most_bytes=1000)
    for begin in range(0, 20, 2):
        collector.add(begin, logits[:, begin : begin + 2])
    kept = collector.finish()
    assert collector.left_out == {0, 2}
    assert set(kept.of) == {1}
    assert kept.of[1].array.shape == (3, 3, 3)


@pytest.mark.parametrize("temperature", [0.8, 2.0])
@pytest.mark.parametrize("far", [0.0, 40.0])
def test_of_many_labels_those_that_are_nowhere_near_are_left_out_and_the_others_are_the_same(far, temperature):
    outputs = Outputs.classes(30, temperature)
    logits = torch.from_numpy(np.random.default_rng(0).normal(0, 4, (30, 6, 7, 8))).float()
    logits[0] -= far  # background, too
    logits[5:] -= far * temperature
    logits[7, 0, 0, 0] = logits[:, 0, 0, 0].max() - 7.9 * temperature  # just near enough, in one voxel
    values, margins = margins_of(outputs, logits)
    assert values == (sorted({*range(1, 5), 7}) if far else list(range(30)))
    exact = logits.double().numpy() / temperature
    for value, one in zip(values, margins, strict=True):
        behind = exact[value] - np.delete(exact, value, 0).max(0)
        steps = np.where(behind > 0, np.clip(behind / STEP, 0, 127), np.clip(np.floor(behind / STEP), LOWEST, -1))
        assert np.abs(one.numpy() - steps).max() <= 1
    collector = MarginCollector(logits.shape[1:], outputs)
    collector.add(0, logits)
    labels = outputs.to_labels(logits).numpy()
    for value, one in collector.finish().of.items():
        assert ((one.array >= 0) == (labels[one.box] == value)).all()
