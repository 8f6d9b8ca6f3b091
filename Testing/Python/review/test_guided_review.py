"""The list of doubtful regions of a real result in a real scene: order, what is done, undo, saving."""

from __future__ import annotations

import json

import numpy as np
import pytest
from review_cases import ANTERIOR, POSTERIOR
from slicer_cases import statusOf
from usema.quality.review_regions import DOUBT, GAP, PIECE, Region, doubts, find
from usema.volumes.margins import HIGHEST, LOWEST, STEP, Margins, PlacedMargins
from usema.volumes.masks import common_box
from USEMASegmentationLib.Review.Accepted import placeOf
from USEMASegmentationLib.Review.GuidedReview import ACCEPTED, FIXED, OPEN, SKIPPED, GuidedReview
from USEMASegmentationLib.Review.Threshold import apply

pytest_plugins = ["slicer_fixtures", "review_fixtures"]


def margins_of(labels: np.ndarray, *doubtful: tuple[tuple, float]) -> Margins:
    """As a model gives them that is sure of its labels, but for the chance of another label in some voxels."""
    parts = {}
    for value in (0, 1, 2):
        own = labels == value
        parts[value] = PlacedMargins(np.where(own, HIGHEST, LOWEST).astype(np.int8), (0, 0, 0))
    for place, chance in doubtful:
        steps = int(np.floor(np.log((1 - chance) / chance) / STEP))
        for value in (0, 1):
            part = parts[value].array[place]
            parts[value].array[place] = np.where(part >= 0, steps, -1 - steps)
    return Margins(labels.shape, parts)


def ball(shape=(30, 30, 30), middle=(15, 15, 15), radius=8) -> np.ndarray:
    z, y, x = np.ogrid[tuple(slice(0, length) for length in shape)]
    inside = (z - middle[0]) ** 2 + (y - middle[1]) ** 2 + (x - middle[2]) ** 2 < radius**2
    return inside.astype(np.uint8)


def test_the_chance_of_an_error_is_what_the_probabilities_say(found):
    probabilities = {}
    chance, labels, box = doubts(found.margins)
    for value, one in found.margins.of.items():
        probabilities[value] = np.exp(np.minimum(one.on(box) + 0.5, 0) * STEP)
    total = sum(probabilities.values())
    assert np.allclose(chance, 1 - 1 / np.maximum(total, 1), atol=0.04)
    assert (labels == found.labels[box]).all()


def test_a_sure_result_has_no_regions_and_an_empty_one_neither():
    assert find(margins_of(ball()), (1, 1, 1)) == []
    assert find(Margins((3, 3, 3), {}), (1, 1, 1)) == []
    assert find(margins_of(np.zeros((5, 5, 5), np.uint8)), (1, 1, 1)) == []


def test_the_larger_doubt_comes_first_with_its_expected_error_and_its_place():
    large, small = (slice(12, 18), slice(12, 18), slice(12, 18)), (slice(2, 6), slice(2, 6), slice(2, 6))
    margins = margins_of(ball(), (large, 0.4), (small, 0.4))
    first, second = find(margins, (1, 1, 1))
    assert first.ml == pytest.approx(216 * 0.4 / 1000, rel=0.05)
    assert all(part.start <= one < part.stop for one, part in zip(first.middle, first.box, strict=True))
    assert all(part.start <= 12 and part.stop >= 18 for part in first.box)
    assert second.ml == pytest.approx(64 * 0.4 / 1000, rel=0.05)
    assert all(part.start <= 2 and part.stop >= 6 for part in second.box)


def test_a_piece_apart_counts_with_all_its_voxels_and_a_slice_that_is_left_out_is_found():
    labels = ball(middle=(15, 12, 12))
    labels[14] = 0
    labels[2:6, 24:28, 24:28] = 1
    regions = find(margins_of(labels, ((slice(2, 6), slice(24, 28), slice(24, 28)), 0.3)), (1, 1, 1))
    pieces = [one for one in regions if one.why == PIECE]
    gaps = [one for one in regions if one.why == GAP]
    assert [one.ml for one in pieces] == [pytest.approx(64 / 1000, rel=0.01)]
    assert [(one.low[0], one.high[0]) for one in gaps] == [(14, 14)]


def test_a_long_doubt_is_cut_into_boxes():
    labels = np.zeros((60, 10, 10), np.uint8)
    labels[2:58, 2:8, 2:8] = 1
    place = (slice(4, 56), slice(3, 7), slice(3, 7))
    regions = find(margins_of(labels, (place, 0.4)), (1, 1, 1))
    assert len(regions) >= 3
    assert all((part.stop - part.start) <= 10 for one in regions for part in one.box)
    assert sum(one.ml for one in regions) == pytest.approx(52 * 16 * 0.4 / 1000, rel=0.1)


def test_a_region_comes_back_from_json(found):
    (first, *_) = find(found.margins, (1, 1, 1))
    assert Region.from_dict({**first.to_dict(), "low": list(first.low)}) == first


# The list in the scene


@pytest.fixture
def review(scene):
    review = GuidedReview([scene.case()])
    assert not review.searched
    assert review.search() >= 3
    return review


def middle(item) -> tuple:
    return tuple(slice(one, one + 1) for one in item.region.middle)


def flip(scene, item) -> None:
    """The user changes the voxel in the middle."""
    place = middle(item)
    scene.paint(place, value=0 if scene.voxels()[place].any() else 1)


def test_next_leads_through_all_that_is_not_done_and_skipped_ones_come_last(review):
    count = len(review.items)
    first = review.next()
    review.say(SKIPPED)
    numbers = []
    while (item := review.next()) is not None and item.status == OPEN:
        numbers.append(item.number)
        review.say(ACCEPTED)
    assert sorted([*numbers, first.number]) == list(range(count))
    assert item.number == first.number
    assert review.done == count - 1
    assert review.millilitresLeft == pytest.approx(first.region.ml)
    review.say(ACCEPTED)
    assert review.next() is None
    assert review.millilitresLeft == 0


def test_segments_that_were_reviewed_are_completed_or_flagged_in_the_list_of_segments(scene, review, tmp_path):
    scene.node.GetSegmentation().AddEmptySegment("mine")
    about = {ANTERIOR: 1, POSTERIOR: 2}

    def expected(value: int) -> str:
        statuses = [one.status for one in review.items if value in one.region.values]
        if not any(status in (SKIPPED, ACCEPTED) for status in statuses):
            return "notstarted"
        return "flagged" if SKIPPED in statuses else "inprogress" if OPEN in statuses else "completed"

    seen = set()
    for said in (SKIPPED, ACCEPTED):
        while (item := review.next()) is not None and (item.status == OPEN or said == ACCEPTED):
            review.say(said if item.number == 0 else ACCEPTED)
            statuses = {name: statusOf(scene.node, name) for name in about}
            assert statuses == {name: expected(value) for name, value in about.items()}
            seen |= set(statuses.values())
    assert {"flagged", "completed"} <= seen
    assert set(statuses.values()) == {"completed"}
    assert statusOf(scene.node, "mine") == "notstarted"
    scene.reload(tmp_path / "scene.mrb")
    assert statusOf(scene.node, ANTERIOR) == "completed"


def test_what_is_said_twice_leaves_a_step_that_can_be_redone(scene, review):
    review.next()
    review.say(ACCEPTED)
    scene.paint((slice(2, 3), slice(2, 3), slice(2, 3)))
    painted = scene.voxels()
    scene.editor.Undo()
    review.say(ACCEPTED)
    scene.editor.Redo()
    assert (scene.voxels() == painted).all()


def test_previous_leads_back(review):
    one, two = review.next(), review.next()
    assert review.next(-1).number == one.number
    assert review.next().number == two.number


def test_a_stroke_inside_makes_it_done_and_undo_opens_it_again(scene, review):
    item = review.next()
    flip(scene, item)
    review.update()
    assert [one.status for one in review.items if one.number == item.number] == [FIXED]
    scene.editor.Undo()
    review.update()
    assert [one.status for one in review.items if one.number == item.number] == [OPEN]
    scene.editor.Redo()
    review.update()
    assert review.done == 1


def test_a_threshold_is_no_stroke_of_the_user(scene, review):
    apply(scene.case(), 1, 24)
    review.update()
    assert review.done == 0


def test_the_list_and_what_was_said_survive_saving_and_loading(scene, review, tmp_path):
    review.next()
    review.say(ACCEPTED)
    item = review.next()
    flip(scene, item)
    review.update()
    before = [(one.number, one.region, one.status) for one in review.items]
    scene.reload(tmp_path / "scene.mrb")
    again = GuidedReview([scene.case()])
    assert again.searched
    assert [(one.number, one.region, one.status) for one in again.items] == before
    assert again.done == 2


# Another search


def test_accepted_regions_stay_so_after_another_search_and_what_else_was_said_is_forgotten(scene, review, tmp_path):
    count, accepted = len(review.items), []
    for said in (SKIPPED, ACCEPTED, ACCEPTED):
        item = review.next()
        review.say(said)
        accepted += [item.region] if said == ACCEPTED else []
    scene.reload(tmp_path / "scene.mrb")
    again = GuidedReview([scene.case()])
    for _ in range(2):
        assert again.search() == count
        assert [one.region for one in again.items if one.status == ACCEPTED] == accepted
        assert {one.status for one in again.items if one.region not in accepted} == {OPEN}
    again.next()
    assert again.current.status == OPEN


def test_after_another_search_an_accepted_region_is_open_where_something_in_it_was_changed(scene, review):
    item = review.next()
    review.say(ACCEPTED)
    other = next(one for one in review.items if common_box(one.region.box, item.region.box) is None)
    flip(scene, other)
    review.search()
    assert [one.region for one in review.items if one.status == ACCEPTED] == [item.region]
    flip(scene, item)
    review.search()
    assert {one.status for one in review.items} == {OPEN}
    scene.editor.Undo()
    review.search()
    assert {one.status for one in review.items} == {OPEN}, "what was said of it is gone"


def test_after_another_search_an_accepted_region_is_open_where_a_threshold_changed_it(scene, review):
    while (item := review.next()) is not None and item.status == OPEN:
        review.say(ACCEPTED)
    before = scene.voxels()
    apply(scene.case(), 1, 24)
    changed = scene.voxels() != before
    assert changed.any()
    review.search()
    for one in review.items:
        assert one.status == (OPEN if changed[one.region.box].any() else ACCEPTED)
    assert {one.status for one in review.items} >= {OPEN}


def test_one_place_is_the_box_that_is_most_alike_for_the_same_reason():
    def region(low: int, why: str = DOUBT, side: int = 10) -> Region:
        return Region((low,) * 3, (low + side - 1,) * 3, (low,) * 3, 0, 1.0, why, (1,))

    before = [region(0), region(1), region(30, PIECE, 2)]
    assert placeOf(region(1), before) == 1
    assert placeOf(region(0), before) == 0
    assert placeOf(region(30, PIECE, 2), before) == 2
    assert placeOf(region(30, DOUBT, 2), before) is None
    assert placeOf(region(2), before) is None, "half of it was in none of them"
    assert placeOf(region(0), []) is None


def test_a_state_that_is_damaged_is_no_list(scene, review):
    scene.node.SetAttribute("USEMA.review", "{]")
    review.update()
    assert review.items == []
    scene.node.SetAttribute("USEMA.review", json.dumps({scene.case().tag: {"regions": [{"low": 1}]}}))
    review.update()
    assert review.items == []
