"""What a correction may change: nothing where nothing was changed, little where little was, and much not unasked."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from robustness_cases import SPACINGS, dice
from scipy import ndimage
from usema.adaptation import adapting, estimate
from usema.adaptation.adapting import adapt
from usema.adaptation.corrections import Corrections
from usema.adaptation.drawn import Drawn, along, meets_another
from usema.adaptation.judging import CARRIED, PROPAGATED, change_of, lost_when_left_out
from usema.adaptation.lesson import Lesson, Shown
from usema.adaptation.places import Places
from usema.adaptation.truth import UNKNOWN
from usema.adaptation.wish import AUTO, Wish
from usema.errors import DeviceError
from usema.inference.loading import LoadedPart


@pytest.fixture(scope="module")
def fine(case):
    """The sample at half the spacing of the model's network, what the model finds there, and what is right."""
    changed = SPACINGS["0.5 x 0.5 x 0.5 mm"](case.volume, case.reference, np.random.default_rng(0))
    labels = case.predictor.segment(changed.image).labels.astype(np.int16)
    return SimpleNamespace(volume=changed.image, labels=labels, reference=changed.follow(case.reference))


@pytest.mark.parametrize("way", [AUTO, CARRIED])
def test_slices_accepted_as_they_are_change_nothing_whatever_the_spacing(case, fine, way):
    corrections = Corrections(fine.labels, ((0, 20), (0, 37), (1, 41), (2, 30)))
    found = adapt(case.predictor, [fine.volume], corrections, Wish(way=way))
    np.testing.assert_array_equal(found.segmentation.labels, fine.labels)
    assert found.report["slices"] == [[0, 20], [0, 37], [1, 41], [2, 30]]


@pytest.mark.parametrize("axis", [0, 1])
def test_corrected_slices_finer_than_the_networks_planes_are_those_that_are_heard(case, fine, axis):
    """Also the ones that lie between two planes."""
    shown = np.flatnonzero((fine.labels > 0).any(axis=tuple({0, 1, 2} - {axis})))
    chosen = [int(shown[len(shown) * part // 5]) for part in (1, 2, 3, 4)]
    cut = (slice(None),) * axis + (chosen,)
    labels = fine.labels.copy()
    labels[cut] = fine.reference[cut]
    found = adapt(case.predictor, [fine.volume], Corrections(labels, tuple((axis, one) for one in chosen)))
    rest = (slice(None),) * axis + (np.setdiff1d(shown, chosen),)
    both = (fine.labels, found.segmentation.labels)
    before, after = (np.nanmean(dice(one[rest], fine.reference[rest], (1, 2))) for one in both)
    assert after > before - 0.002


@pytest.mark.parametrize("way", [PROPAGATED, CARRIED])
def test_one_voxel_changes_only_those_around_it(case, way):
    index = 14
    outline = (case.labels[index] > 0) & ~ndimage.binary_erosion(case.labels[index] > 0)
    place = tuple(np.argwhere(outline)[0])
    labels = case.labels.copy()
    labels[(index, *place)] = 0
    found = adapt(case.predictor, [case.volume], Corrections(labels, ((0, index),)), Wish(way=way))
    changed = np.argwhere(found.segmentation.labels != labels)
    assert np.linalg.norm(changed - (index, *place), axis=1).max(initial=0) < 4  # a radius of 0.6, twice, and the rim
    assert len(changed) < 12


def test_a_change_reaches_as_far_as_it_is_wide():
    changed = np.zeros((80, 80), bool)
    assert not Drawn.of(changed).weight(0.0).any()
    changed[40, 10] = True  # reaches 2 voxels
    changed[36:44, 50:58] = True  # as wide as a disc with a radius of 4.5: 10 voxels
    drawn = Drawn.of(changed)
    reached = drawn.weight(0.0)
    assert (reached[40, 10 - 2], reached[40, 10 - 3], reached[40, 10 - 4]) == (1, 0.5, 0)
    assert (reached[40, 57 + 10], reached[40, 57 + 13]) == (1, 0)
    assert (drawn.weight(3.0)[40, 10], drawn.weight(4.0)[40, 10]) == (0.5, 0)
    assert (drawn.weight(10.0)[40, 54], drawn.weight(13.0)[40, 54]) == (1, 0)
    np.testing.assert_array_equal(drawn.weight(3.0, slice(30, 50), slice(5, 60)), drawn.weight(3.0)[30:50, 5:60])


def test_of_a_label_taken_from_a_slice_little_goes_where_the_model_has_more_of_it():
    areas = np.array([0, 0, 4, 8, 9, 90, 90, 90, 0, 0])
    end = along(areas, np.array([3]), 0)[:, 0, 0]
    np.testing.assert_allclose(end, [1, 1, 1, 1, *[0.2] * 6])
    gap = along(areas, np.array([6]), 5)[:, 0, 0]
    np.testing.assert_allclose(gap[[2, 5, 7]], 0.1)
    drawn_smaller = along(areas, np.array([6]), 60)[:, 0, 0]
    np.testing.assert_allclose(drawn_smaller[2:8], 1)
    missed = along(areas, np.array([9]), 50)[:, 0, 0]  # the model has nothing there: it may have missed more
    np.testing.assert_allclose(missed, 1)
    exchanged = along(areas, np.array([9]), 50, exchanged=True)[:, 0, 0]  # another label gave it
    np.testing.assert_allclose(exchanged, [0.1, 0.1, *[1] * 6, 0.1, 1])


@pytest.mark.parametrize(
    ("plane", "left", "meets"),
    [
        (6, 0, True),  # it went, and ends two planes farther for the model, too
        (7, 3, True),
        (2, 0, False),  # it went from where the model has it far and wide
        (5, 70, False),  # it is there as before
        (9, 60, True),  # it came, and the model has it two planes before
        (11, 60, False),  # it came where the model has nothing like it
    ],
)
def test_where_the_model_lets_two_labels_meet_near_a_slice_it_tells_of_itself_alone(plane, left, meets):
    areas = np.array([80, 90, 90, 90, 90, 80, 70, 50, 0, 0, 0, 0, 0])
    assert meets_another(areas, np.array([plane]), left) == meets


def test_a_slice_given_from_one_label_to_another_leaves_what_lies_behind_it(case):
    labels = case.labels.copy()
    index = int(np.flatnonzero((labels == 2).any(axis=(0, 2)))[-1]) + 3  # of label 1 alone, as all that lies behind it
    labels[:, index][labels[:, index] == 1] = 2
    found = adapt(case.predictor, [case.volume], Corrections(labels, ((1, index),)), Wish(way="propagated"))
    np.testing.assert_array_equal(found.segmentation.labels[:, index], labels[:, index])
    behind = np.s_[:, index + 2 :]
    assert (found.segmentation.labels[behind] == 2).sum() < 0.1 * (labels[behind] == 1).sum()


def test_a_slice_on_which_two_labels_meet_a_little_farther_leaves_all_others(case):
    labels = case.labels.copy()
    index = int(np.flatnonzero((labels == 2).sum(axis=(0, 2)) > 0.5 * (labels == 1).sum(axis=(0, 2)).max())[-1]) + 2
    labels[:, index][labels[:, index] > 0] = 2
    found = adapt(case.predictor, [case.volume], Corrections(labels, ((1, index),)), Wish(way="propagated"))
    assert found.report["changed_voxels"] == 0


def test_a_slice_emptied_in_the_middle_leaves_the_others(case):
    labels = case.labels.copy()
    labels[16] = 0
    found = adapt(case.predictor, [case.volume], Corrections(labels, ((0, 16),))).segmentation.labels
    assert (found > 0).sum() > 0.85 * (labels > 0).sum()


def test_a_plane_is_told_by_the_slice_that_lies_nearest():
    places = Places((0, 1, 2), (np.arange(0.0, 20, 2), np.arange(4.0), np.arange(4.0)))
    labels = np.zeros((20, 4, 4), np.int16)
    labels[7] = 1
    data = np.zeros((1, 10, 4, 4), np.float32)
    lesson = Lesson.of(data, places, labels, ((0, 7),))
    np.testing.assert_array_equal(lesson.shown[0].planes, [3, 4])  # at 6 and 8
    assert (lesson.labels[[3, 4]] == 1).all()
    both = Lesson.of(data, places, labels, ((0, 7), (0, 8)))
    assert [one.planes.tolist() for one in both.shown] == [[3], [4]]
    assert (both.labels[4] == 0).all()
    assert both.heard == ((0, 7), (0, 8))


def test_a_change_of_a_voxel_is_not_lost_between_those_of_the_network():
    places = Places((0, 1, 2), (np.arange(3.0), np.arange(1.0, 12, 3), np.arange(1.0, 12, 3)))
    mask = np.zeros((3, 12, 12), bool)
    mask[1, 5, 6] = True
    touched = places.touched(mask, 0, 1)
    assert touched.shape == (1, 4, 4)
    assert touched[0, 1, 2]  # at 4 and 7
    assert touched.sum() <= 4
    assert not places.touched(mask, 0, 2).any()


@pytest.mark.parametrize(("neighbour", "counts"), [("changed alike", False), ("accepted", True)])
def test_a_slice_does_not_prove_what_holds_by_one_beside_it_that_shows_the_same(case, neighbour, counts):
    part = case.predictor.parts[0]
    shape, found = (12, 8, 8), {}
    labels = np.full(shape, UNKNOWN, np.int16)
    shown = tuple(Shown((0, index), 0, np.array([index])) for index in (5, 6))
    logits = {}
    for one in shown:
        found[one.slice] = np.zeros((1, 8, 8), np.int16)
        logits[one.slice] = torch.zeros(3, 1, 8, 8)
        logits[one.slice][0] = 1
        labels[one.planes] = 1 if one is shown[0] or neighbour == "changed alike" else 0
    places = Places((0, 1, 2), tuple(np.arange(float(length)) for length in shape))
    lesson = Lesson(np.zeros((1, *shape), np.float32), labels, shown, places).seen(found)
    lost = lost_when_left_out([lesson], [logits], part.outputs, 1.5)
    assert any(lost.values()) is counts


def test_before_memory_runs_out_it_is_said_how_much_is_needed(case, monkeypatch):
    labels = case.corrected(9, 18)
    monkeypatch.setattr(estimate, "free_memory", lambda device: 3 * 2**20)
    with pytest.raises(DeviceError, match=r"To propagate corrections needs about 0\.0 GiB"):
        adapt(case.predictor, [case.volume], Corrections(labels, ((0, 9), (0, 18))), Wish(way=PROPAGATED))


def test_if_much_of_what_is_segmented_would_go_the_user_is_asked(case):
    before, after = case.labels, case.labels.copy()
    after[:, : before.shape[1] // 2] = 0
    corrections = Corrections(before, ((0, 16),))
    told = change_of(after, corrections, case.volume.geometry)
    assert "would change" in told["question"]
    little = before.copy()
    little[16] = 0
    assert change_of(little, corrections, case.volume.geometry)["question"] == ""


def test_each_step_of_propagating_tells_how_far_it_is(case):
    told = []
    corrections = Corrections(case.corrected(9, 14, 20), ((0, 9), (0, 14), (0, 20)))
    adapt(case.predictor, [case.volume], corrections, progress=lambda *step: told.append(step))
    assert list(dict.fromkeys(one[0] for one in told)) == ["looking", "checking", "propagating", "segmenting"]
    for phase in ("propagating", "segmenting"):
        *_, last = (one for one in told if one[0] == phase)
        assert last[1] == last[2] > 0


def test_the_network_runs_once_over_the_volume_and_the_result_is_as_if_it_ran_twice(case, monkeypatch):
    ran = []
    logits = LoadedPart.logits

    def counted(part, *its, **named):
        ran.append(part)
        return logits(part, *its, **named)

    monkeypatch.setattr(LoadedPart, "logits", counted)
    corrections = Corrections(case.corrected(9, 20), ((0, 9), (0, 20)))
    wish = Wish(probabilities=True, margins=True)
    once = adapt(case.predictor, [case.volume], corrections, wish).segmentation
    assert len(ran) == 1
    monkeypatch.setattr(adapting, "MOST_KEPT", 0)
    twice = adapt(case.predictor, [case.volume], corrections, wish).segmentation
    assert len(ran) == 3
    np.testing.assert_array_equal(once.labels, twice.labels)
    np.testing.assert_array_equal(once.probabilities, twice.probabilities)


def test_what_changes_no_other_slice_is_not_said_to_have_been_propagated(case):
    labels = case.labels.copy()
    labels[16, 2, 2] = 1  # a voxel far from all that the model finds
    report = adapt(case.predictor, [case.volume], Corrections(labels, ((0, 16),)), Wish(way="propagated")).report
    assert report["changed_voxels"] == 0
    assert report["message"] == "What you changed on 1 corrected slice changes nothing on the others."
