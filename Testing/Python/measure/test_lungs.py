"""Areas and widths of lung fields."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from usema.measure import Scale, measure, told
from usema.measure.lungs import lung_field, sides


def lungs(*boxes, shape=(100, 120)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    for left, right, top, bottom in boxes:
        mask[top:bottom, left:right] = True
    return mask


def values(mask, scale=None):
    found, doubts = lung_field(mask, scale or Scale())
    return {one.name: one.value for one in found}, {one.unit for one in found}, doubts


TWO = lungs((10, 40, 20, 80), (70, 105, 25, 85))


def test_areas_and_widths_are_those_of_each_side_of_the_image():
    found, units, doubts = values(TWO)
    assert found == {
        "Lung area": 30 * 60 + 35 * 60,
        "Lung area, left side of the image": 1800,
        "Lung width, left side of the image": 30,
        "Lung area, right side of the image": 2100,
        "Lung width, right side of the image": 35,
        "Width across both lungs": 95,
        "Widest gap between the lungs": 30,
        "Gap / width across both lungs": pytest.approx(30 / 95),
    }
    assert units == {"pixels", ""}
    assert doubts == []


def test_with_the_size_of_a_pixel_they_are_in_millimetres():
    found, units, _ = values(TWO, Scale(0.5, 0.25, True))
    assert found["Lung area"] == pytest.approx(3900 * 0.125)
    assert found["Width across both lungs"] == 47.5
    assert units == {"mm", "mm2", ""}


def test_a_lung_in_pieces_and_specks_do_not_move_a_side():
    pieces = lungs((10, 40, 20, 50), (10, 40, 52, 80), (70, 105, 25, 85), (55, 57, 90, 92))
    left, right = sides(pieces)
    assert (left.sum(), right.sum()) == (30 * 58, 2100)


def test_lungs_that_touch_are_parted_in_the_middle():
    left, right = sides(lungs((10, 110, 20, 80)))
    assert (left.sum(), right.sum()) == (3000, 3000)


def test_one_lung_alone_has_no_width_across():
    found, _, doubts = values(lungs((10, 40, 20, 80)))
    assert "Width across both lungs" not in found
    assert "on one side of the image only" in doubts[0]
    assert lung_field(np.zeros((9, 9), bool), Scale()) == ([], [])


def test_real_films_have_plausible_ratios(data):
    """Ten drawn films: both lungs on their sides, nearly symmetrical, and a gap as wide as a mediastinum."""
    for path in sorted((data / "images2d/cxr_lungs/masks").iterdir())[:100:10]:
        mask = sitk.GetArrayFromImage(sitk.ReadImage(str(path))) > 0
        found, _, doubts = values(mask)
        assert doubts == []
        areas = [found[f"Lung area, {side} side of the image"] for side in ("left", "right")]
        assert 0.98 * found["Lung area"] <= sum(areas) <= found["Lung area"]
        assert 0.5 < areas[0] / areas[1] < 2
        assert 0.2 < found["Gap / width across both lungs"] < 0.75


def test_several_frames_are_told_by_their_range():
    frames, _ = measure(["lung_field"], np.stack([TWO, lungs((10, 40, 20, 80), (70, 100, 25, 85))]) * 1, None, Scale())
    assert told(frames).startswith("Lung area 3600 pixels to 3900 pixels in 2 of 2 frames; ")
    assert told(frames[:1]).startswith("Lung area 3900 pixels; Lung area, left side of the image 1800 pixels")
