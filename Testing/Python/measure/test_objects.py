"""Objects: split from each other, numbered, and told in a table."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage
from usema.measure import Scale, measure
from usema.measure.objects import COMPONENTS, WATERSHED, followed, object_rows, object_sizes, rims, split_objects


def discs(*circles, shape=(80, 120)) -> np.ndarray:
    y, x = np.indices(shape)
    return np.any([(x - cx) ** 2 + (y - cy) ** 2 <= r * r for cx, cy, r in circles], axis=0)


TWO_THAT_TOUCH = discs((40, 40, 15), (66, 40, 13))


def test_areas_that_are_connected_are_one_object_and_watershed_cuts_them():
    assert split_objects(TWO_THAT_TOUCH, None, COMPONENTS).max() == 1
    cut = split_objects(TWO_THAT_TOUCH, None, WATERSHED)
    assert cut.max() == 2
    assert np.array_equal(cut != 0, TWO_THAT_TOUCH)
    assert cut[40, 38] != cut[40, 68]
    shares = np.bincount(cut.ravel())[1:] / TWO_THAT_TOUCH.sum()
    assert shares == pytest.approx([0.57, 0.43], abs=0.03)


def test_watershed_leaves_single_round_and_long_objects_whole():
    y, x = np.indices((80, 120))
    ellipse = ((x - 60) / 40) ** 2 + ((y - 40) / 15) ** 2 <= 1
    for mask in (discs((40, 40, 17.5)), ellipse, np.pad(np.ones((9, 60), bool), 20)):
        assert split_objects(mask, None, WATERSHED).max() == 1


@pytest.mark.parametrize("thickness", [1, 2])
def test_a_thin_piece_is_no_part_of_an_object_that_it_does_not_touch(thickness):
    mask = discs((40, 40, 12), (100, 60, 9))
    mask[8 : 8 + thickness, 60:90] = True
    mask[70, 20] = True
    objects = split_objects(mask, None, WATERSHED)
    assert objects.max() == 4
    assert np.array_equal(objects, ndimage.label(mask, np.ones((3, 3)))[0])
    kept = split_objects(mask, None, WATERSHED, minimum_pixels=70)
    assert kept.max() == 2
    assert np.array_equal(kept != 0, discs((40, 40, 12), (100, 60, 9)))


@pytest.mark.parametrize("method", [COMPONENTS, WATERSHED])
def test_a_boundary_between_objects_keeps_them_apart_and_belongs_to_the_nearest(method):
    core = discs((40, 40, 11), (62, 40, 9))
    whole = discs((40, 40, 14), (62, 40, 12))
    objects = split_objects(core, whole & ~core, method)
    assert objects.max() == 2
    assert np.array_equal(objects != 0, whole)
    assert [objects[40, 28], objects[40, 72]] == [objects[40, 40], objects[40, 62]] == [1, 2]


def test_a_rim_without_an_inside_is_an_object_of_its_own():
    core, rim = discs((30, 30, 8)), discs((90, 50, 3))
    objects = split_objects(core, rim, WATERSHED)
    assert objects.max() == 2
    assert objects[50, 90] == 2


def test_small_objects_go_and_numbers_have_no_gaps():
    mask = discs((10, 10, 4), (50, 20, 1), (90, 60, 6))
    objects = split_objects(mask, None, COMPONENTS, minimum_pixels=10)
    assert np.unique(objects).tolist() == [0, 1, 2]
    assert objects.dtype == np.uint16
    assert objects[20, 50] == 0


@pytest.mark.parametrize("method", [COMPONENTS, WATERSHED])
def test_nothing_has_no_objects(method):
    nothing = np.zeros((20, 30), bool)
    for boundary in (None, nothing):
        objects = split_objects(nothing, boundary, method)
        assert objects.shape == (20, 30)
        assert not objects.any()
    assert [str(one) for one in object_sizes(objects, Scale())] == ["Objects 0"]


def test_more_than_65535_objects_have_numbers_of_their_own():
    mask = np.zeros((600, 600), bool)
    mask[::2, ::2] = True
    objects = split_objects(mask, None, COMPONENTS)
    assert objects.max() == 90000
    assert objects.dtype == np.uint32


def test_real_nuclei_that_were_drawn_with_rims_are_counted_right(data):
    """Numbers that people drew, as inside and one pixel of rim, back to numbers: nearly all are found as drawn."""
    found = drawn = 0
    for path in sorted((data / "images2d/dsb2018_nuclei/instances").iterdir())[:60:10]:
        truth = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        padded = np.pad(truth, 1)
        neighbours = [
            padded[1 + dy : 1 + dy + truth.shape[0], 1 + dx : 1 + dx + truth.shape[1]]
            for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0))
        ]
        core = (truth != 0) & np.all([truth == other for other in neighbours], axis=0)
        objects = split_objects(core, (truth != 0) & ~core, WATERSHED)
        assert np.array_equal(objects != 0, truth != 0)
        for number, box in enumerate(ndimage.find_objects(truth), 1):
            if box is None:
                continue
            own, other = truth[box] == number, objects[box]
            best = np.bincount(other[own]).argmax()
            found += (own & (other == best)).sum() / (
                own.sum() + (objects == best).sum() - (own & (other == best)).sum()
            ) > 0.5
            drawn += 1
    assert drawn > 100
    assert found / drawn > 0.97


def test_a_table_tells_place_and_size_of_each_object():
    mask = discs((40, 30, 10), (117, 75, 6))
    rows = list(object_rows(split_objects(mask, None, COMPONENTS)[None], Scale()))
    assert [row["object"] for row in rows] == [1, 2]
    first, last = rows
    assert [first["x"], first["y"], first["left"], first["top"], first["width"], first["height"]] == [
        40,
        30,
        30,
        20,
        21,
        21,
    ]
    assert first["pixels"] == (mask[:45]).sum()
    assert first["diameter"] == pytest.approx(20, abs=0.5)
    assert [first["at_border"], last["at_border"]] == [0, 1]
    assert not any("mm" in column for column in first)
    known = next(iter(object_rows(split_objects(mask, None, COMPONENTS)[None], Scale(0.5, 0.25, True))))
    assert known["area / mm2"] == pytest.approx(first["pixels"] * 0.125)
    assert known["diameter / mm"] == pytest.approx(20 * np.sqrt(0.125), rel=0.02)


def test_sizes_of_several_frames_are_told_for_each():
    objects = np.stack([split_objects(mask, None, COMPONENTS) for mask in (TWO_THAT_TOUCH, discs((20, 20, 9)))])
    frames, doubts = measure(["objects"], (objects > 0) * 1, objects, Scale())
    assert [frame[0].value for frame in frames] == [1, 1]
    assert frames[1][1].value == (objects[1] > 0).sum()
    assert doubts == []


def test_rims_are_as_wide_at_every_size_and_keep_real_nuclei_apart(data):
    found = drawn = 0
    for path in sorted((data / "images2d/dsb2018_nuclei/instances").iterdir())[5:60:11]:
        truth = sitk.GetArrayFromImage(sitk.ReadImage(str(path))).astype(np.int32)
        for objects in (truth, truth.repeat(2, axis=0).repeat(2, axis=1)):
            labels = rims(objects)
            assert np.array_equal(labels > 0, objects > 0)
            depth = ndimage.distance_transform_edt(np.pad(objects > 0, 1, mode="edge"))[1:-1, 1:-1]
            assert depth[labels == 1].min() > 1
            inside = objects[labels == 1]
            drawn, found = drawn + len(np.unique(objects)) - 1, found + len(np.unique(inside))
            again = split_objects(labels == 1, labels == 2, COMPONENTS)
            assert again.max() == pytest.approx(len(np.unique(objects)) - 1, rel=0.05)
    assert found == drawn > 150


def test_where_the_picture_ends_an_object_has_no_rim():
    objects = np.zeros((40, 40), np.int32)
    objects[10:30, 20:] = 1
    assert (rims(objects)[12:28, 38:] == 1).all()
    seen = np.ones(objects.shape, bool)
    seen[:, 35:] = False
    objects[:, 35:] = 0
    assert (rims(objects, seen)[12:28, 30:35] == 1).all()
    assert (rims(objects)[12:28, 33:35] == 2).all()


def test_objects_follow_a_mask_that_was_corrected():
    objects = split_objects(TWO_THAT_TOUCH, None, WATERSHED).astype(np.int32)
    assert np.array_equal(followed(objects, TWO_THAT_TOUCH), objects)
    mask = TWO_THAT_TOUCH.copy()
    mask[:, 38:41] = False  # through the first one
    mask |= discs((80, 40, 4))  # onto the second one
    mask |= discs((100, 70, 5))
    now = followed(objects, mask)
    assert np.array_equal(now > 0, mask)
    assert now.max() == 4
    assert now[40, 30] != now[40, 45]
    assert now[40, 70] == now[40, 83]
    assert not followed(objects, np.zeros_like(mask)).any()
    assert followed(np.zeros_like(objects), TWO_THAT_TOUCH).max() == 1
