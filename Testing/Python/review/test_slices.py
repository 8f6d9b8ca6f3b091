"""Which slices are right as they stand: told by the user's strokes, ticked and accepted, and kept with the case."""

from __future__ import annotations

import numpy as np
import pytest
from review_cases import ANTERIOR
from usema.errors import InputError
from USEMASegmentationLib.Review.GuidedReview import GuidedReview
from USEMASegmentationLib.Review.Refine import refine
from USEMASegmentationLib.Review.Slices import accept, acceptedIn, cut, slicesOf, tick, told
from USEMASegmentationLib.Review.Threshold import apply

pytest_plugins = ["slicer_fixtures", "review_fixtures"]


def draw(scene, axis: int, index: int, value: int = 1, size: int = 6) -> None:
    """A stroke of the user in one slice across an axis, beside what the model found."""
    place = [slice(2, 2 + size)] * 3
    place[axis] = slice(index, index + 1)
    scene.paint(tuple(place), value=value)


def test_without_corrections_there_are_none(scene):
    assert slicesOf(scene.case()) == []


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_slice_that_was_drawn_in_is_found_along_its_own_axis(scene, axis):
    draw(scene, axis, 3)
    (one,) = slicesOf(scene.case())
    assert (one.axis, one.index, one.edited, one.ticked, one.accepted) == (axis, 3, 36, True, False)


def test_strokes_in_two_directions_are_told_apart(scene):
    draw(scene, 0, 3)
    place = (slice(10, 16), slice(2, 8), slice(25, 26))
    scene.paint(place)
    assert [(one.axis, one.index) for one in slicesOf(scene.case())] == [(0, 3), (2, 25)]


def test_strokes_far_apart_keep_their_places(scene):
    draw(scene, 0, 3)
    scene.paint((slice(30, 31), slice(40, 46), slice(24, 30)))
    found = [(one.axis, one.index, one.edited, one.ticked) for one in slicesOf(scene.case())]
    assert found == [(0, 3, 36, True), (0, 30, 36, True)]


@pytest.mark.parametrize(
    ("axis", "index", "message"),
    [
        (0, 999, "no slice 999 along axis 0"),
        (0, -1, "no slice -1 along axis 0"),
        (0, "x", "no slice 'x' along axis 0"),
        (1, 2.5, "no slice 2.5 along axis 1"),
        (5, 1, "no axis 5"),
        (-1, 1, "no axis -1"),
        ("z", 1, "no axis 'z'"),
    ],
)
def test_a_slice_that_the_volume_does_not_have_is_neither_accepted_nor_ticked(scene, axis, index, message):
    case = scene.case()
    before = case.state
    for say in (accept, lambda *place: tick(*place, True)):
        with pytest.raises(InputError, match=message) as refused:
            say(case, axis, index)
        assert refused.value.hint
    assert case.state == before
    accept(case, np.int64(0), np.int64(3))  # as numpy has them
    assert [(one.axis, one.index) for one in slicesOf(case)] == [(0, 3)]


def test_a_few_voxels_and_a_ball_are_offered_but_not_ticked(scene):
    draw(scene, 0, 3, size=3)
    (few,) = slicesOf(scene.case())
    assert (few.axis, few.edited, few.ticked) == (0, 9, False)
    scene.editor.Undo()
    place = (slice(2, 8), slice(2, 8), slice(2, 8))
    scene.paint(place)
    ball = slicesOf(scene.case())
    assert len(ball) == 6
    assert not any(one.ticked for one in ball)


def test_a_stroke_that_a_refinement_followed_is_no_corrected_slice(scene):
    draw(scene, 0, 3)
    refine(scene.case())
    (one,) = slicesOf(scene.case())
    assert (one.index, one.edited, one.ticked) == (3, 36, False)


def test_undo_takes_a_slice_out_and_saying_so_takes_its_tick(scene, tmp_path):
    draw(scene, 0, 3)
    draw(scene, 0, 9)
    tick(scene.case(), 0, 9, False)
    accept(scene.case(), 1, 12)
    expected = [(0, 3, True), (0, 9, False), (1, 12, True)]
    assert [(one.axis, one.index, one.ticked) for one in slicesOf(scene.case())] == expected
    scene.reload(tmp_path / "scene.mrb")
    assert [(one.axis, one.index, one.ticked) for one in slicesOf(scene.case())] == expected
    assert told(slicesOf(scene.case())) == "axis 0: 3, 9; axis 1: 12"


def test_undo_and_redo_take_a_slice_out_and_bring_it_again(scene):
    draw(scene, 0, 3)
    scene.editor.Undo()
    assert slicesOf(scene.case()) == []
    scene.editor.Redo()
    assert [one.index for one in slicesOf(scene.case())] == [3]


def test_a_search_for_doubtful_regions_forgets_no_slice(scene):
    accept(scene.case(), 1, 12)
    GuidedReview([scene.case()]).search()
    assert [(one.axis, one.index) for one in slicesOf(scene.case())] == [(1, 12)]


def test_an_accepted_slice_is_changed_by_no_threshold_and_by_no_refinement(scene):
    before = scene.both()
    index = int(np.argwhere(scene.voxels(ANTERIOR)).mean(axis=0)[0])
    accept(scene.case(), 0, index)
    assert apply(scene.case(), 1, 48)
    different = scene.both() != before
    assert different.any()
    assert not different[index].any()
    assert acceptedIn(scene.case(), tuple(slice(0, length) for length in before.shape))[index].all()
    scene.editor.Undo()
    z, y, x = np.argwhere(scene.voxels(ANTERIOR) & (np.arange(len(before)) == index - 1)[:, None, None]).mean(axis=0)
    scene.paint((slice(index - 1, index), slice(int(y), int(y) + 3), slice(int(x), int(x) + 3)), value=0)
    painted = scene.both()
    refine(scene.case())
    assert not (scene.both() != painted)[index].any()
    assert z == index - 1
    tick(scene.case(), 0, index, False)
    assert apply(scene.case(), 1, 48)
    assert (scene.both() != painted)[index].any()


def test_what_was_said_that_is_damaged_is_left_out(scene):
    case = scene.case()
    case.state = {"slices": {"0 3": {"accepted": True}, "9 1": {"accepted": True}, "0 9999": {}, "x": 1, "1 2": 7}}
    assert [(one.axis, one.index) for one in slicesOf(case)] == [(0, 3)]
    case.state = {"slices": [1, 2]}
    assert slicesOf(case) == []


def test_a_cut_lies_in_its_box():
    mask = cut([(0, 4), (2, 7), (1, 99)], (slice(4, 6), slice(0, 3), slice(6, 9)))
    assert mask[0].all()
    assert mask[:, :, 1].all()
    assert mask.sum() == 9 + 3
