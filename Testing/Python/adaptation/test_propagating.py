"""Corrected slices propagated to the others, on the sample: better than carrying, nobody's voxels touched, one rule."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from robustness_cases import dice
from usema.adaptation import adapting, propagating
from usema.adaptation.adapting import adapt
from usema.adaptation.corrections import Corrections
from usema.adaptation.judging import CARRIED, PROPAGATED, UNCHANGED, least_lost
from usema.adaptation.lesson import Shown
from usema.adaptation.propagation_features import FEATURES, Told, see, signed_distance
from usema.adaptation.wish import Wish
from usema.errors import InputError
from usema.volumes.volume import Volume


def mean_dice(found: np.ndarray, right: np.ndarray) -> float:
    """Of both labels."""
    return float(dice(found, right, (1, 2)).mean())


@pytest.fixture(scope="module")
def strange(case):
    """The sample as no scanner gives it, dark where it is bright: the model finds little of it."""
    volume = Volume(case.volume.array.max() - case.volume.array, case.volume.geometry)
    return SimpleNamespace(volume=volume, labels=case.predictor.segment(volume).labels.astype(np.int16))


def test_where_the_model_is_wrong_three_slices_tell_more_than_if_they_are_carried(case, strange):
    chosen = [6, 14, 22]
    labels, rest = strange.labels.copy(), np.setdiff1d(np.arange(len(strange.labels)), chosen)
    labels[chosen] = case.reference[chosen]
    corrections = Corrections(labels, tuple((0, index) for index in chosen))
    carried, found = (adapt(case.predictor, [strange.volume], corrections, Wish(way=way)) for way in (CARRIED, "auto"))
    assert (found.report["way"], found.delta) == (PROPAGATED, None)
    assert "propagated" in found.report["message"]
    assert found.segmentation.provenance["adaptation"] == PROPAGATED
    np.testing.assert_array_equal(found.segmentation.labels[chosen], labels[chosen])
    scores = [mean_dice(one[rest], case.reference[rest]) for one in (strange.labels, carried.segmentation.labels)]
    assert mean_dice(found.segmentation.labels[rest], case.reference[rest]) > max(scores) + 0.1


def test_slices_that_were_accepted_as_they_are_change_nothing(case):
    corrections = Corrections(case.labels, ((0, 9), (0, 18)))
    found = adapt(case.predictor, [case.volume], corrections, Wish(way=PROPAGATED))
    np.testing.assert_array_equal(found.segmentation.labels, case.labels)


def test_slices_along_two_axes_are_both_kept_and_heard(case, strange):
    labels = strange.labels.copy()
    labels[:, 20], labels[:, 30], labels[14] = case.reference[:, 20], case.reference[:, 30], case.reference[14]
    corrections = Corrections(labels, ((1, 20), (1, 30), (0, 14)))
    found = adapt(case.predictor, [strange.volume], corrections, Wish(way=PROPAGATED)).segmentation.labels
    for cut in (np.s_[:, 20], np.s_[:, 30], np.s_[14]):
        np.testing.assert_array_equal(found[cut], labels[cut])
    assert (
        mean_dice(found[:, 25], case.reference[:, 25]) > mean_dice(strange.labels[:, 25], case.reference[:, 25]) + 0.1
    )
    without = Corrections(labels, ((1, 20), (1, 30)))
    other = adapt(case.predictor, [strange.volume], without, Wish(way=PROPAGATED)).segmentation.labels
    assert (found[13] != other[13]).any()  # what was carried from the axial one


def test_of_regions_that_may_lie_in_each_other_nothing_is_propagated(case, monkeypatch):
    monkeypatch.setattr(adapting, "can_propagate", lambda outputs: False)
    corrections = Corrections(case.corrected(9), ((0, 9),))
    with pytest.raises(InputError, match="may lie in each other"):
        adapt(case.predictor, [case.volume], corrections, Wish(way=PROPAGATED))


def test_a_large_label_computed_in_pieces_changes_as_in_one(case, monkeypatch):
    score = np.where(case.labels == 1, 3, -3).astype(np.float32)
    told = [Told.of(np.array([index]), case.reference[[index]] == 1, score) for index in (9, 18)]
    image = case.volume.array.astype(np.float32)
    whole = propagating.change_of(image, score, told, slice(0, len(score)))
    monkeypatch.setattr(propagating, "TILE", 12)
    pieces = propagating.change_of(image, score, told, slice(0, len(score)))
    some = propagating.change_of(image, score, told, slice(5, 25))
    assert np.abs(whole).max() > 1
    assert np.abs(whole - pieces).max() < 0.35  # the network pads at other places
    assert ((score + whole > 0) != (score + pieces > 0)).mean() < 0.002
    np.testing.assert_allclose(some, pieces[5:25], atol=0.35)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_of_a_thick_slice_at_the_edge_of_a_change_the_planes_within_change(axis):
    box = [slice(0, 8)] * 3
    box[axis] = slice(2, 5)
    change = torch.arange(3 * 8 * 8.0).reshape(3, 8, 8).movedim(0, axis)
    found = propagating.Propagated((propagating.Part((1,), tuple(box), change),))
    shown = Shown((axis, 0), axis, np.array([4, 5, 6]))
    whole = found(0, torch.zeros(2, 8, 8, 8))
    its = found.at(shown, torch.zeros(2, 8, 8, 8).index_select(1 + axis, torch.tensor([4, 5, 6])))
    assert torch.equal(its, whole.index_select(1 + axis, torch.tensor([4, 5, 6])))
    assert its[1].select(axis, 0).any()
    beyond = Shown((axis, 1), axis, np.array([6, 7]))
    assert not found.at(beyond, torch.zeros(2, 8, 8, 8).index_select(1 + axis, torch.tensor([6, 7]))).any()


def test_far_from_all_corrected_slices_the_model_has_the_word(case):
    assert propagating.nearness(60, [Told(np.array([3]), *np.zeros((2, 1, 2, 2), bool))])[
        [3, 21, 59], 0, 0
    ] == pytest.approx([1, np.exp(-1), 0], abs=1e-3)


def test_the_features_of_a_slice_that_was_corrected_say_what_is_right_there(case):
    score = np.where(case.labels > 0, 4, -4).astype(np.float32)
    right = case.reference > 0
    told = [Told.of(np.array([index]), right[[index]], score) for index in (9, 18)]
    image = propagating.normalised(case.volume.array.astype(np.float32))
    seen = see(image, score, told)
    assert seen.features.shape == (FEATURES, *score.shape)
    assert np.isfinite(seen.features).all()
    np.testing.assert_array_equal(seen.features[8, 9] > 0, right[9])
    np.testing.assert_allclose(seen.features[2, 9] * 5, signed_distance(right[9]).clip(-15, 15), atol=1e-5)
    half = (signed_distance(right[9]) + 2 * signed_distance(right[18])) / 3  # plane 15 is twice as near to 18
    np.testing.assert_allclose(seen.features[2, 15] * 5, half.clip(-15, 15), atol=1e-4)
    part = see(image, score, told, 12, 17)
    np.testing.assert_allclose(part.features, seen.features[:, 12:17], atol=1e-6)


@pytest.mark.parametrize(
    ("lost", "way"),
    [
        ({UNCHANGED: 1.0, CARRIED: 0.9, PROPAGATED: 0.5}, PROPAGATED),
        ({UNCHANGED: 1.0, CARRIED: 0.5, PROPAGATED: 0.52}, PROPAGATED),
        ({UNCHANGED: 1.0, CARRIED: 0.5, PROPAGATED: 0.6}, CARRIED),
        ({UNCHANGED: 0.4, CARRIED: 0.5, PROPAGATED: 0.6}, UNCHANGED),
        ({UNCHANGED: 0.0, CARRIED: 0.0, PROPAGATED: 0.0}, PROPAGATED),
        ({UNCHANGED: 0.05, CARRIED: 0.05}, CARRIED),
    ],
)
def test_the_way_is_the_one_that_loses_the_least_dice(lost, way):
    assert least_lost(lost) == way
