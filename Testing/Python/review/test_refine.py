"""Refining at the user's strokes on a real result in a real scene: what follows, what stays, what comes back."""

from __future__ import annotations

import time

import numpy as np
import pytest
import slicer
import slicer.util
from review_cases import ANTERIOR, POSTERIOR
from scipy import ndimage
from usema.errors import InputError
from USEMASegmentationLib.Review.GuidedReview import GuidedReview
from USEMASegmentationLib.Review.Refine import REACH_MM, Strokes, costs, geodesic, refine, weight
from USEMASegmentationLib.Review.Threshold import LiveThreshold, apply

pytest_plugins = ["slicer_fixtures", "review_fixtures"]


def beyond(scene, away: int = 2, value: int = 1) -> tuple:
    """A place of 3 x 3 voxels in one slice, so many voxels outside of the segment (or inside of it), where the model
    doubts the most: the user adds, or erases, something there."""
    inside = scene.voxels(ANTERIOR)
    distance = ndimage.distance_transform_cdt(~inside if value else inside, "taxicab")
    doubtful = scene.case().margins.of[1].on(tuple(slice(0, length) for length in inside.shape)).astype(int)
    free = scene.both() == 0 if value else inside
    free &= ~ndimage.binary_dilation(scene.voxels(POSTERIOR), iterations=3)
    candidates = np.where(free & (distance == away), np.abs(doubtful), 1000)
    candidates[:, :3], candidates[:, -3:], candidates[:, :, :3], candidates[:, :, -3:] = 1000, 1000, 1000, 1000
    z, y, x = np.unravel_index(candidates.argmin(), inside.shape)
    return slice(z, z + 1), slice(y - 1, y + 2), slice(x - 1, x + 2)


def stroke(scene, value: int = 1) -> np.ndarray:
    """Paints or erases there; bool, what was changed."""
    before = scene.both()
    scene.paint(beyond(scene, value=value), value=value)
    return scene.both() != before


def test_the_segment_follows_a_stroke_and_the_stroke_stays(scene):
    original = scene.both()
    drawn = stroke(scene)
    painted = scene.both()
    changed = refine(scene.case())
    after = scene.both()
    assert (after == painted)[drawn].all()
    follows = after != painted
    assert changed == follows.sum() > drawn.sum()
    assert (after == 1)[follows].mean() > 0.9
    components, count = ndimage.label(follows | drawn)
    assert count == len(np.unique(components[drawn]))
    distance = ndimage.distance_transform_edt(~drawn, scene.case().spacing)
    assert distance[follows].max() <= REACH_MM
    assert not scene.voxels(ANTERIOR)[scene.voxels(POSTERIOR)].any()
    assert (original == painted)[~drawn].all()


def test_erasing_is_followed_as_well(scene):
    drawn = stroke(scene, value=0)
    painted = scene.both()
    refine(scene.case())
    follows = scene.both() != painted
    assert follows.any()
    assert (painted[follows] == 1).all()
    assert not scene.voxels(ANTERIOR)[drawn].any()


def test_undo_takes_it_back_alone_and_redo_brings_it_again(scene):
    stroke(scene)
    painted = scene.both()
    refine(scene.case())
    refined, tag = scene.both(), scene.case().tag
    scene.editor.Undo()
    assert (scene.both() == painted).all()
    assert Strokes.of(scene.case()).values == (1,)
    scene.editor.Redo()
    assert (scene.both() == refined).all()
    assert scene.case().tag == tag
    with pytest.raises(InputError, match="no new corrections"):
        refine(scene.case())
    scene.editor.Undo()
    scene.editor.Undo()
    with pytest.raises(InputError, match="no new corrections"):
        refine(scene.case())


def test_only_new_strokes_are_followed_and_old_corrections_stay(scene):
    stroke(scene)
    refine(scene.case())
    once = scene.both()
    far = (slice(2, 4), slice(2, 5), slice(2, 5))
    scene.paint(far, POSTERIOR)
    painted = scene.both()
    refine(scene.case())
    follows = scene.both() != painted
    drawn = painted != once
    distance = ndimage.distance_transform_edt(~drawn, scene.case().spacing)
    assert distance[follows].max(initial=0) <= REACH_MM
    assert (scene.both() == once)[distance > REACH_MM].all()
    edits = scene.case().edits()
    assert edits[2].changed.count == edits[2].added.count == drawn.sum()


def test_masks_and_segments_of_others_are_kept_to(scene):
    drawn = stroke(scene)
    painted = scene.both()
    half = np.zeros(painted.shape, np.uint8)
    half[:, : int(np.argwhere(drawn)[:, 1].mean())] = 1
    name = scene.editOnlyIn(half)
    refine(scene.case())
    follows = scene.both() != painted
    assert follows.any()
    assert half[follows].all()
    scene.editor.Undo()
    scene.editorNode.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedEverywhere)
    scene.editorNode.SetOverwriteMode(slicer.vtkMRMLSegmentEditorNode.OverwriteAllSegments)
    refine(scene.case())
    follows = scene.both() != painted
    assert not half[follows].any()
    assert (scene.voxels(name) == (half > 0)).all()


def test_it_goes_on_after_saving_and_loading(scene, tmp_path):
    stroke(scene)
    refine(scene.case())
    expected = scene.both()
    scene.editor.Undo()
    scene.reload(tmp_path / "scene.mrb")
    refine(scene.case())
    assert (scene.both() == expected).all()
    scene.reload(tmp_path / "again.mrb")
    assert (scene.both() == expected).all()
    with pytest.raises(InputError, match="no new corrections"):
        refine(scene.case())


def test_a_threshold_and_the_list_of_regions_go_on_from_there(scene):
    GuidedReview([scene.case()]).search()
    drawn = stroke(scene)
    refine(scene.case())
    refined = scene.both()
    assert GuidedReview([scene.case()]).searched
    live = LiveThreshold.of(scene.case(), 1)
    assert (live.mask(0) == (refined == 1)[live.box]).all()
    assert apply(scene.case(), 1, 16)
    assert (scene.both() == refined)[drawn].all()
    apply(scene.case(), 1, 0)
    assert (scene.both() == refined).all()


def test_what_was_read_of_margins_is_read_once_and_unpacked_only_where_it_is_asked_for(scene, monkeypatch):
    from usema.volumes import margins

    stroke(scene)
    before = scene.case()
    assert before.again().margins is before.margins
    refine(before)
    unpacked = []
    unpack = margins._unpacked
    monkeypatch.setattr(margins, "_unpacked", lambda *one: unpacked.append(one) or unpack(*one))
    after = scene.case()
    assert set(after.names) == {1, 2}
    assert after.margins is not before.margins
    assert not unpacked


def test_the_next_result_keeps_the_strokes_and_may_change_what_followed(scene):
    drawn = stroke(scene)
    painted = scene.both()
    refine(scene.case())
    scene.segment(segmentation=scene.node)
    assert (scene.both() == painted)[drawn].all()
    assert scene.case().refined() == {}


def test_a_stroke_on_the_sample_takes_less_than_a_second_of_a_processor(scene):
    stroke(scene)
    case = scene.case()
    started = time.process_time()
    refine(case)
    assert time.process_time() - started < 1


def test_an_edge_of_the_image_is_farther_away_than_even_tissue():
    image = np.zeros((9, 21, 21), np.float32)
    image[:, :, 12:] = 100
    image += np.random.default_rng(0).normal(0, 1, image.shape)
    mask = np.zeros(image.shape, bool)
    mask[4, 10, 10] = True
    distance = geodesic(costs(image, (1, 1, 1)), mask, (1, 1, 1))
    assert distance[4, 10, 14] > 2 * distance[4, 10, 6]
    assert weight(np.array([0.0, 1.0, 1.5])).tolist() == [1.0, 0.0, 0.0]
    assert (distance >= ndimage.distance_transform_edt(~mask) / REACH_MM - 0.1)[distance < 1].all()


def test_a_copy_that_the_user_made_does_not_hold_voxels_that_are_erased(scene):
    copy = slicer.vtkSegment()
    copy.DeepCopy(scene.node.GetSegmentation().GetSegment(ANTERIOR))
    scene.node.GetSegmentation().AddSegment(copy, "mine")
    before = scene.voxels("mine")
    drawn = stroke(scene, value=0)
    painted = scene.voxels()
    refine(scene.case())
    follows = scene.voxels() != painted
    assert follows.any()
    assert not scene.voxels()[follows | drawn].any()
    assert (scene.voxels("mine") == before).all()
