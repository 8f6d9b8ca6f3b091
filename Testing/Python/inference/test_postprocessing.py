"""Steps after the networks, against the functions they stand for, on real labels."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.postprocessing.remove_connected_components import remove_all_but_largest_component_from_segmentation
from scipy import ndimage
from usema.inference.postprocessing import STEPS, postprocess
from usema.inference.pre_resampling import back_to, pre_resample
from usema.inference.region import box_around, cut, pasted
from usema.models.metadata import SCHEMA
from usema.volumes.geometry import Geometry
from usema.volumes.volume import Volume

EYE = (1, 0, 0, 0, 1, 0, 0, 0, 1)


@pytest.fixture(scope="module")
def organs(data) -> np.ndarray:
    """Five of the organs of a body CT, broken into pieces by noise."""
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(data / "volumes/body_ct/example_seg_fast.nii.gz")))
    present = np.unique(labels)[1:6]
    kept = np.searchsorted(present, labels) + 1
    kept[~np.isin(labels, present)] = 0
    kept[np.random.default_rng(0).random(kept.shape) < 0.75] = 0
    return kept.astype(np.uint8)


@pytest.mark.parametrize(
    ("labels", "nnunets"), [([2], 2), ([1, 3], [(1, 3)]), (None, [(1, 2, 3, 4, 5)]), ([4, 5], [4, 5])]
)
def test_the_largest_component_is_nnunets(labels, nnunets, organs):
    expected = remove_all_but_largest_component_from_segmentation(organs, nnunets)
    assert (expected != organs).any()
    step = {"step": "keep_largest"} | ({"labels": labels} if labels else {})
    np.testing.assert_array_equal(postprocess(organs.copy(), [step], (1, 1, 1)), expected)


def test_small_components_go_by_their_volume(organs):
    spacing = (1.5, 2.0, 0.5)
    step = {"step": "remove_small", "labels": [1], "volume_mm3": 12.0, "connectivity": 6}
    found = postprocess(organs.copy(), [step], spacing)
    components, count = ndimage.label(organs == 1)
    sizes = np.bincount(components.ravel())
    assert count > 10
    expected = np.where((organs == 1) & (sizes[components] * 1.5 <= 12.0), 0, organs)
    np.testing.assert_array_equal(found, expected)


def test_several_of_the_largest_may_stay(organs):
    found = postprocess(
        organs.copy(), [{"step": "keep_largest", "labels": [1], "count": 2, "connectivity": 6}], (1,) * 3
    )
    assert ndimage.label(found == 1)[1] >= 2
    np.testing.assert_array_equal(found[organs != 1], organs[organs != 1])


def test_steps_run_one_after_the_other_and_an_empty_result_stays(organs):
    steps = [{"step": "remove_small", "volume_mm3": 10**9}, {"step": "keep_largest"}]
    assert not postprocess(organs.copy(), steps, (1, 1, 1)).any()


def test_the_schema_knows_the_same_steps():
    assert SCHEMA["properties"]["postprocess"]["items"]["properties"]["step"]["enum"] == list(STEPS)


def test_the_region_is_the_box_of_the_labels_with_whole_voxels_of_margin():
    labels = np.zeros((20, 30, 40), np.uint8)
    labels[5:7, 10, 20:23] = 2
    labels[0, 0, 0] = 1
    geometry = Geometry((40, 30, 20), (1.0, 1.5, 3.0), (5, -3, 2), EYE)
    box = box_around(labels, [2], 4.0, geometry)
    assert box == (slice(4, 8), slice(8, 13), slice(16, 27))
    assert box_around(labels, [], 0, geometry)[0] == slice(0, 7)
    assert box_around(labels, [3], 20, geometry) is None
    assert box_around(labels, [2], 1000, geometry) == (slice(0, 20), slice(0, 30), slice(0, 40))


def test_a_volume_cut_to_a_box_lies_where_it_lay_and_goes_back_there():
    array = np.arange(20 * 30 * 40).reshape(20, 30, 40)
    rotation = np.array(sitk.Euler3DTransform((0, 0, 0), 0.3, -0.2, 0.25).GetMatrix())
    volume = Volume(array, Geometry((40, 30, 20), (1.0, 1.5, 3.0), (5, -3, 2), tuple(rotation)))
    box = (slice(4, 8), slice(8, 13), slice(16, 27))
    part = cut(volume, box)
    first = volume.geometry.affine @ [16, 8, 4, 1]
    np.testing.assert_allclose(part.geometry.affine[:, 3], first)
    back = pasted(part.array, box, array.shape)
    np.testing.assert_array_equal(back[box], array[box])
    assert not back[:4].any()


@pytest.mark.parametrize("spacing", [(1.5, 1.5, 1.5), (3.0, 2.0, 4.0), (0.7, 0.8, 0.9)])
def test_resampling_first_keeps_the_outer_voxel_centres_and_whole_numbers(spacing, data):
    image = sitk.ReadImage(str(data / "volumes/body_ct/example_ct_sm.nii.gz"))[:60, :50, :40]
    array, geometry = sitk.GetArrayFromImage(image), Geometry.of_image(image)
    (found,), grid = pre_resample(array[None], geometry, spacing)
    sizes = [round(n * old / new) for n, old, new in zip(geometry.size, geometry.spacing, spacing, strict=True)]
    assert grid.size == tuple(sizes)
    assert grid.spacing == spacing
    # As TotalSegmentator's change_spacing calls it, on an array (x, y, z).
    zoom = np.array(sizes) / array.T.shape
    expected = ndimage.zoom(array.T.astype(float), zoom, order=1, mode="nearest").astype(np.int32).T
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found[:: sizes[2] - 1, 0, 0], array[[0, -1], 0, 0])
    back = ndimage.zoom(expected.T, np.array(array.T.shape) / expected.T.shape, order=0, mode="nearest").T
    np.testing.assert_array_equal(back_to(found, array.shape), back)
    np.testing.assert_array_equal(back_to(np.stack([found, -found]), array.shape)[1], -back)


def test_what_has_the_spacing_already_is_not_touched():
    array = np.random.default_rng(0).normal(size=(1, 5, 6, 7))
    geometry = Geometry((7, 6, 5), (1.5, 1.5, 1.5), (0, 0, 0), EYE)
    found, grid = pre_resample(array, geometry, [1.5, 1.5, 1.5])
    assert found is array
    assert grid is geometry


@pytest.fixture(scope="module")
def vertebrae(data) -> np.ndarray:
    """Four bodies of vertebrae (z, y, x), 1.5 mm, numbered from C1 = 1 to L5 = 24; two of them are mixed up."""
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(data / "volumes/body_ct/example_seg_fast.nii.gz")))
    spine = np.zeros_like(labels)
    for value, number in ((33, 18), (32, 19), (31, 20), (30, 21)):
        spine[ndimage.binary_erosion(labels == value)] = number
    spine = np.repeat(np.repeat(np.repeat(spine, 2, 0), 2, 1), 2, 2)[:, 20:110, 80:150]
    lowest = spine == 21
    lowest[:, :, :32] = False
    spine[lowest] = 22
    spine[50:52, 2:4, 2:4] = 3  # too small to be one
    return spine


STEPS_OF_VERTEBRAE = [
    {"step": "number_downwards", "labels": list(range(1, 25)), "volume_mm3": 100},
    {"step": "grow", "distance_mm": 3},
]


def test_vertebrae_that_touch_are_counted_up_from_the_lowest(vertebrae):
    numbered = postprocess(vertebrae.copy(), STEPS_OF_VERTEBRAE[:1], (1.5,) * 3)
    heights = {value: np.argwhere(numbered == value)[:, 0].mean() for value in np.unique(numbered)[1:]}
    assert max(heights) == 22  # the lowest label that the network had found
    assert sorted(heights, key=heights.get) == sorted(heights, reverse=True)
    assert sorted(heights) == list(range(min(heights), 23))
    assert not numbered[50:52, 2:4, 2:4].any()
    components, count = ndimage.label(numbered)
    assert all(len(np.unique(numbered[components == one])) == 1 for one in range(1, count + 1))


def test_vertebrae_of_a_head_are_counted_down_from_the_first(vertebrae):
    head = np.where(vertebrae > 3, vertebrae - 16, 0).astype(np.uint8)
    head[head == 2] = 1
    numbered = postprocess(head.copy(), STEPS_OF_VERTEBRAE[:1], (1.5,) * 3)
    heights = {value: np.argwhere(numbered == value)[:, 0].mean() for value in np.unique(numbered)[1:]}
    assert min(heights) == 1
    assert sorted(heights, key=heights.get) == sorted(heights, reverse=True)


def test_vertebrae_that_lie_apart_keep_their_numbers(vertebrae):
    apart = np.where(vertebrae == 22, 21, vertebrae)
    np.testing.assert_array_equal(postprocess(apart.copy(), STEPS_OF_VERTEBRAE[:1], (1.5,) * 3), apart)


def test_labels_grow_into_background_alone(vertebrae):
    grown = postprocess(vertebrae.copy(), STEPS_OF_VERTEBRAE[1:], (1.5,) * 3)
    np.testing.assert_array_equal(grown[vertebrae > 0], vertebrae[vertebrae > 0])
    distance = ndimage.distance_transform_edt(vertebrae == 0, sampling=1.5)
    np.testing.assert_array_equal(grown > 0, distance <= 3)


@pytest.mark.parametrize("shift", [0, 16])
@pytest.mark.parametrize("mixed_up", [True, False])
def test_vertebrae_are_totalsegmentators(shift, mixed_up, vertebrae):
    theirs = pytest.importorskip(
        "totalsegmentator.postprocessing", reason="pip install --no-deps TotalSegmentator, to compare with it"
    )
    labels = np.where(vertebrae > 3, vertebrae - shift, 0).astype(np.uint8)
    labels[labels == 2] = 1
    if not mixed_up:
        labels[labels == 22 - shift] = 21 - shift
    names = {value: f"vertebrae_{value}" for value in range(1, 25)} | {1: "vertebrae_C1", 24: "vertebrae_L5"}
    expected = theirs.postprocess_vertebrae_pp(labels.T.copy(), names, voxel_volume=1.5**3, voxel_spacing=(1.5,) * 3)
    found = postprocess(labels.copy(), STEPS_OF_VERTEBRAE, (1.5,) * 3)
    np.testing.assert_array_equal(found, expected.T)
    bodies = (np.random.default_rng(0).random(labels.shape) < 0.7).astype(np.uint8)
    spacing = (0.9, 0.7, 1.25)  # x, y, z
    expected = theirs.refine_vertebrae_pp_with_body_mask(expected, bodies.T, names, spacing)
    steps = [{"step": "grow", "distance_mm": 2}, {"step": "keep_within", "part": "bodies", "part_labels": [1]}]
    found = postprocess(found, steps, spacing[::-1], {"bodies": bodies})
    np.testing.assert_array_equal(found, expected.T)


def test_a_label_of_an_image_becomes_the_ellipse_along_its_outline():
    y, x = np.indices((60, 80))
    whole = ((x - 40) / 30) ** 2 + ((y - 28) / 20) ** 2 <= 1
    labels = np.where(whole, 1, 0).astype(np.uint8)[None]
    labels[0, 26:30, 60:70] = 0  # a dent
    labels[0, 2:4, 2:4] = 1  # a speck
    labels[0, 28, 40] = 2  # of another label, which stays
    found = postprocess(labels, [{"step": "ellipse", "labels": [1]}], (1, 1, 1))[0]
    assert found[28, 40] == 2
    assert ((found != 0) ^ whole).sum() < 20  # of 45 that were wrong
