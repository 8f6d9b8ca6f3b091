"""Learning from corrections on the sample: the rest follows, what is the user's stays, the model is not touched."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from scipy import ndimage
from usema.adaptation import adapting
from usema.adaptation.adapting import PHASES, adapt
from usema.adaptation.carrying import REACH, SHORT_REACH, Carried
from usema.adaptation.corrections import Corrections
from usema.adaptation.judging import CARRIED, LEARNED, UNCHANGED
from usema.adaptation.lesson import Lesson, Shown
from usema.adaptation.places import Places
from usema.adaptation.wish import AUTO, Wish
from usema.errors import BundleError, Cancelled, InputError
from usema.inference.predictor import Predictor
from usema.models.bundle import METADATA_FILE, WEIGHTS_FILE
from usema.models.delta import Delta

SLICES = 9, 18
DRAWN_NARROWER = np.zeros((3, 3, 3), bool)
DRAWN_NARROWER[1] = True  # within axial slices


def narrower(labels: np.ndarray) -> np.ndarray:
    """As a user has it who draws everything a voxel narrower than the model does."""
    return np.where(ndimage.binary_erosion(labels > 0, DRAWN_NARROWER), labels, 0)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * ((one == other) & (one > 0)).sum() / ((one > 0).sum() + (other > 0).sum())


def hashes(bundle) -> list[str]:
    return [hashlib.sha256((bundle.path / name).read_bytes()).hexdigest() for name in (METADATA_FILE, WEIGHTS_FILE)]


@pytest.fixture(scope="module")
def learned(case):
    """What comes of two corrected slices and of one voxel that was edited elsewhere."""
    before = hashes(case.bundle)
    labels = case.labels.copy()
    labels[list(SLICES)] = narrower(case.labels)[list(SLICES)]
    edited = np.zeros(labels.shape, bool)
    edited[28, 2, 3] = True
    labels[edited] = 2
    corrections = Corrections(labels, tuple((0, index) for index in SLICES), edited)
    told = []
    adapted = adapt(
        case.predictor, [case.volume], corrections, Wish(way=LEARNED, margins=True),
        progress=lambda *step: told.append(step), estimated=lambda estimate: told.append(estimate),
    )  # fmt: skip
    assert hashes(case.bundle) == before
    return adapted, labels, told


def test_two_slices_that_are_drawn_narrower_make_the_others_narrower(case, learned):
    adapted, labels, _ = learned
    assert adapted.report["way"] == LEARNED
    wanted, found, rest = narrower(case.labels), adapted.segmentation.labels, [12, 14, 16, 21]
    assert (case.labels[rest] > 0).sum() > (found[rest] > 0).sum() > (wanted[rest] > 0).sum()
    assert dice(found[rest], wanted[rest]) > dice(case.labels[rest], wanted[rest]) + 0.01
    assert adapted.report["changed_voxels"] == (adapted.segmentation.labels != labels).sum() > 0


def test_corrected_slices_and_edited_voxels_are_the_users(learned):
    adapted, labels, _ = learned
    found = adapted.segmentation.labels
    np.testing.assert_array_equal(found[list(SLICES)], labels[list(SLICES)])
    assert found[28, 2, 3] == 2
    margins = adapted.segmentation.margins  # which say the same as the labels
    box = tuple(slice(0, length) for length in found.shape)
    for value in (1, 2):
        np.testing.assert_array_equal(margins.of[value].on(box) >= 0, found == value)


def test_the_phases_are_told_in_their_order_and_the_estimate_before_learning(learned):
    _, _, told = learned
    estimate = next(index for index, one in enumerate(told) if not isinstance(one, tuple))
    phases = list(dict.fromkeys(one[0] for one in told if isinstance(one, tuple)))
    assert phases == ["looking", "learning", "segmenting"]  # with two slices, none is left out
    assert {one[0] for one in told[:estimate]} == {"looking"}
    assert told[estimate].seconds > 0
    assert told[estimate].trained == 51
    for phase in phases:
        steps = [one for one in told if isinstance(one, tuple) and one[0] == phase]
        assert (steps[0][1], steps[-1][1]) == (0, steps[-1][2])


def test_what_was_learned_is_undone_by_leaving_out_the_delta(case, learned):
    adapted, _, _ = learned
    np.testing.assert_array_equal(case.predictor.segment(case.volume).labels, case.labels)
    delta = Delta.of_bytes(adapted.delta.to_bytes(), "it")
    again = Predictor(case.bundle, "cpu", delta=delta).segment(case.volume)
    assert (again.labels != case.labels).any()
    assert again.provenance["deltaSha256"] == adapted.delta.sha256 == delta.sha256
    assert "deltaSha256" not in case.predictor.segment(case.volume).provenance


def test_provenance_tells_what_was_done(learned):
    provenance = learned[0].segmentation.provenance
    assert provenance["adaptation"] == LEARNED
    assert provenance["adaptedFrom"] == "axis 0: 9, 18"
    assert len(provenance["deltaSha256"]) == 64


def test_the_same_seed_gives_the_same_again(case, learned):
    adapted, labels, _ = learned
    corrections = Corrections(labels, tuple((0, index) for index in SLICES))
    again = adapt(case.predictor, [case.volume], corrections, Wish(way=LEARNED))
    assert again.delta.sha256 == adapted.delta.sha256


def test_accepting_what_the_model_says_changes_nothing(case):
    corrections = Corrections(case.labels, ((0, 12), (0, 20)))
    adapted = adapt(case.predictor, [case.volume], corrections, Wish(way=LEARNED))
    assert (adapted.segmentation.labels != case.labels).sum() <= 3  # of 51744: the logits change in their last digits


@pytest.fixture
def in_each_other(monkeypatch):
    """As if the labels were regions that may lie in each other, of which nothing can be propagated."""
    monkeypatch.setattr(adapting, "can_propagate", lambda outputs: False)


def test_three_slices_are_checked_by_leaving_one_out(case, in_each_other):
    slices = (9, 14, 18)
    labels = case.labels.copy()
    labels[list(slices)] = narrower(narrower(case.labels))[list(slices)]
    adapted = adapt(case.predictor, [case.volume], Corrections(labels, tuple((0, index) for index in slices)))
    held = adapted.report["held_out"]
    assert (held["axis"], held["index"]) == (0, 14)
    assert held["learned"] > held["before"]  # what two slices show holds on the third, which was not learned from
    assert adapted.report["way"] == LEARNED
    assert "slice 14" in adapted.report["message"]


def test_where_the_model_is_nearly_right_what_was_changed_is_carried_and_nothing_learned(case, in_each_other):
    adapted = adapt(case.predictor, [case.volume], Corrections(case.corrected(14, 18), ((0, 14), (0, 18))))
    assert adapted.report["dice_before"] > 0.75
    assert (adapted.report["way"], adapted.delta) == (CARRIED, None)
    assert adapted.segmentation.provenance["adaptation"] == CARRIED
    assert "nearly right" in adapted.report["message"]
    far = adapted.segmentation.labels[[3, 28]]  # ten slices away from both nothing has changed
    np.testing.assert_array_equal(far, case.labels[[3, 28]])


def test_where_the_model_is_right_what_does_not_hold_on_the_next_corrected_slice_is_not_carried(case, in_each_other):
    labels = case.labels.copy()
    labels[13] = narrower(case.labels)[13]  # and 14 was accepted as it is
    adapted = adapt(case.predictor, [case.volume], Corrections(labels, ((0, 13), (0, 14), (0, 20))))
    assert adapted.report["dice_before"] > 0.75
    assert (adapted.report["way"], adapted.delta) == (UNCHANGED, None)
    np.testing.assert_array_equal(adapted.segmentation.labels, labels)
    assert "Nothing was changed" in adapted.report["message"]


@pytest.mark.parametrize("thick", [1, 2, 4])
@pytest.mark.parametrize("reach", [REACH, SHORT_REACH])
def test_how_far_is_carried_does_not_grow_with_the_thickness_of_the_slices(case, thick, reach):
    planes = np.arange(8, 8 + thick)
    shown = Shown((0, 8 // thick), 0, planes)
    middles = (np.arange(20) + 0.5) / thick - 0.5  # of the network's planes, in slices
    places = Places((0, 1, 2), (middles, np.arange(3.0), np.arange(3.0)))
    lesson = Lesson(np.zeros((1, 20, 3, 3), np.float32), np.ones((20, 3, 3), np.int16), (shown,), places)
    lesson = lesson.seen({shown.slice: np.zeros((thick, 3, 3), np.int16)})
    outputs = case.predictor.parts[0].outputs
    ((_, weights, _),) = Carried.of(lesson, {shown.slice: torch.zeros(3, thick, 3, 3)}, outputs, [shown], reach).parts
    np.testing.assert_allclose(weights, np.exp(-np.abs(np.arange(20) - planes.mean()) / reach), rtol=1e-5)


def test_nonsense_on_the_slices_is_not_learned_when_a_check_sees_that_it_does_not_help(case, in_each_other):
    slices = (8, 16, 24)
    labels = case.labels.copy()
    labels[[8, 24]] = 0  # as if there were nothing, and in between all is right
    corrections = Corrections(labels, tuple((0, index) for index in slices))
    adapted = adapt(case.predictor, [case.volume], corrections)
    held = adapted.report["held_out"]
    assert (held is None) == (adapted.report["dice_before"] >= 0.75)
    assert adapted.report["way"] != LEARNED or held["learned"] >= held["before"] - 0.01
    np.testing.assert_array_equal(adapted.segmentation.labels[list(slices)], labels[list(slices)])


def test_slices_of_another_axis_are_learned_from_and_kept(case):
    labels = case.labels.copy()
    labels[:, 20] = case.reference[:, 20]
    adapted = adapt(case.predictor, [case.volume], Corrections(labels, ((1, 20),)), Wish(way=CARRIED))
    assert adapted.delta is None
    np.testing.assert_array_equal(adapted.segmentation.labels[:, 20], labels[:, 20])
    assert adapted.report["changed_voxels"] > 0


@pytest.mark.parametrize("phase", PHASES)
def test_it_stops_in_each_phase(case, phase, request):
    if phase == "checking":
        request.getfixturevalue("in_each_other")
    slices = (9, 14, 18)
    labels = case.labels.copy()
    labels[list(slices)] = narrower(narrower(case.labels))[list(slices)]
    corrections = Corrections(labels, tuple((0, index) for index in slices))
    seen = []
    wish = Wish(way=LEARNED if phase == "learning" else AUTO)
    with pytest.raises(Cancelled):
        adapt(
            case.predictor, [case.volume], corrections, wish,
            progress=lambda name, *step: seen.append(name), should_stop=lambda: phase in seen,
        )  # fmt: skip
    assert seen[-1] == phase
    assert all(one.grad is None for one in case.predictor.parts[0].network.parameters())


def test_corrections_across_an_axis_are_told_along_it_also_if_those_named_lie_along_another(case):
    labels = case.labels.copy()
    labels[:, :, [10, 25]] = np.where(labels[:, :, [10, 25]] == 1, 2, labels[:, :, [10, 25]])
    assert (labels != case.labels)[:, :, 10].any()
    with pytest.raises(InputError, match=r"on slices 1, y:2 all is as .* lies on slices? x:"):
        adapt(case.predictor, [case.volume], Corrections(labels, ((0, 1), (1, 2))), Wish(way=CARRIED))


def test_what_was_changed_anywhere_is_not_told_again_where_the_caller_told_it(case):
    labels = case.corrected(9, 18)
    drawn = labels != case.labels
    adapted = adapt(case.predictor, [case.volume], Corrections(labels, ((0, 12),), drawn), Wish(way=CARRIED))
    np.testing.assert_array_equal(adapted.segmentation.labels[drawn], labels[drawn])
    assert not any("did not name" in line for line in adapted.segmentation.warnings)


def test_too_little_time_is_refused_with_the_estimate(case):
    corrections = Corrections(case.corrected(9), ((0, 9),))
    with pytest.raises(InputError, match=r"would take about .* are allowed"):
        adapt(case.predictor, [case.volume], corrections, Wish(way=LEARNED, seconds_allowed=0.001))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda labels: Corrections(labels, ()), "No slice is marked"),
        (lambda labels: Corrections(labels, ((0, 99),)), "no slice 99 along z"),
        (lambda labels: Corrections(labels, ((3, 1),)), "no slice 1 along axis 3"),
        (lambda labels: Corrections(labels.astype(float), ((0, 1),)), "type float64"),
        (lambda labels: Corrections(labels, ((0, 1),), np.zeros((2, 2, 2), bool)), r"the shape \(2, 2, 2\)"),
        (lambda labels: Corrections(labels + 90, ((0, 1),)), "the value 90, which is no label"),
        (lambda labels: Corrections(labels[1:], ((0, 1),)), r"the volume \(32, 49, 33\)"),
    ],
)
def test_what_are_no_corrections_is_refused(case, change, message):
    with pytest.raises(InputError, match=message):
        adapt(case.predictor, [case.volume], change(case.labels))


# The delta


def test_a_delta_of_other_weights_is_refused(case, learned):
    delta = learned[0].delta
    other = Delta(delta.tensors, {**delta.said, "weights_sha256": "0" * 64})
    with pytest.raises(BundleError, match="belongs to other weights"):
        Predictor(case.bundle, "cpu", delta=other)
    strange = Delta({"nowhere": next(iter(delta.tensors.values()))}, delta.said)
    with pytest.raises(BundleError, match="no nowhere of this shape"):
        Predictor(case.bundle, "cpu", delta=strange)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-4], "its tensors take"),
        (lambda data: data[:20], "no safetensors file"),
        (lambda data: b"\x80\x04 a pickle", "no safetensors file"),
        (lambda data: data.replace(b"usema-delta", b"usema-other"), "no delta of a model"),
        (lambda data: data[:-4] + b"\x00\x00\xc0\x7f", "no finite numbers"),
    ],
)
def test_a_damaged_delta_is_refused(learned, damage, message):
    with pytest.raises(BundleError, match=message):
        Delta.of_bytes(damage(learned[0].delta.to_bytes()), "it")


def test_the_weights_of_a_model_are_no_delta(case):
    with pytest.raises(BundleError, match="no delta of a model"):
        Delta.read(case.bundle.path / WEIGHTS_FILE)
