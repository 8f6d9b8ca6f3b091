"""Values that single precision or a z-score cannot bear, on real volumes."""

from __future__ import annotations

import numpy as np
import pytest
from nnunet_cases import planned, read_volume
from usema.inference.intensities import values_of
from usema.inference.nnunet_recipe import preprocess
from usema.inference.plan import Plan

VOLUMES = ["hippocampus", "sarcoma", "body CT"]


def prepared(array: np.ndarray, spacing, scheme: str = "ZScoreNormalization", mask: bool = False):
    plans = planned("hippocampus")
    plans["configurations"]["3d_fullres"].update(
        {"normalization_schemes": [scheme], "use_mask_for_norm": [mask], "spacing": [1.5, 1.5, 1.5]}
    )
    return preprocess(array, spacing, Plan.from_nnunet(plans, "3d_fullres"))


@pytest.mark.parametrize("name", VOLUMES)
@pytest.mark.parametrize("value", [1e20, -1e20, 1e6])
@pytest.mark.parametrize("scheme", ["ZScoreNormalization", "RescaleTo01Normalization"])
def test_one_absurd_voxel_neither_drowns_the_image_nor_goes_unsaid(scheme, value, name, data):
    array, spacing = read_volume(name, data)
    array = array.astype(np.float32)
    clean = prepared(array, spacing, scheme)
    absurd = array.copy()
    absurd[0, 9, 9, 9] = value
    found = prepared(absurd, spacing, scheme)
    assert clean.notes == []
    (note,) = found.notes
    assert "One voxel holds an absurd value" in note
    assert f"{value:.3g}" in note
    assert np.median(abs(found.data - clean.data)) < 0.01 * clean.data.std()
    assert abs(found.data).max() < 3 * abs(clean.data).max()


def test_absurd_values_that_float32_does_not_hold_are_cut_as_well(data):
    array, spacing = read_volume("hippocampus", data)
    absurd = array.astype(np.float64)
    absurd[0, 3, 3, 3:6] = 1e300, -1e300, 1e300
    found = prepared(absurd, spacing)
    assert "3 voxels hold an absurd value" in found.notes[0]
    assert np.isfinite(found.data).all()


def test_a_bright_structure_is_no_absurd_value(data):
    array, _ = read_volume("hippocampus", data)
    bright = array[0].astype(np.float32)
    bright[10:14, 10:14, 10:14] *= 50
    assert values_of(bright).absurd == 0
    mostly_empty = np.zeros((60, 60, 60), np.int16)
    mostly_empty[30, 30, 28:34] = 3000  # almost everywhere one value: then the few others are the image
    assert values_of(mostly_empty).absurd == 0


@pytest.mark.parametrize("scheme", ["ZScoreNormalization", "RescaleTo01Normalization"])
@pytest.mark.parametrize(("dtype", "offset"), [(np.int32, 10**9), (np.int64, 10**12), (np.float64, -3e11)])
def test_values_far_from_zero_give_what_they_give_near_it(dtype, offset, scheme, data):
    array, spacing = read_volume("hippocampus", data)
    near = np.rint(array * 0.2).astype(np.int32) + 1  # no zeros, which would be cropped
    expected = prepared(near, spacing, scheme).data
    far = near.astype(dtype) + dtype(offset)
    found = prepared(far, spacing, scheme)
    np.testing.assert_allclose(found.data, expected, atol=2e-5 * abs(expected).max())
    lost = prepared(far.astype(np.float32), spacing, scheme).data  # what single precision before subtraction makes
    assert abs(lost - expected).max() > 0.05 * abs(expected).max()


def test_outside_the_mask_stays_zero_when_values_are_shifted(data):
    array, spacing = read_volume("hippocampus", data)
    near = np.rint(array * 0.2).astype(np.int64) + 1
    near[:, :9, :9, :9] = 0  # outside, for no hole reaches the border
    found = prepared(np.where(near, near + 10**9, 0), spacing, mask=True).data
    expected = prepared(near, spacing, mask=True).data
    assert abs(expected[0, 1:4, 1:4, 1:4]).max() < 0.01  # but for the spline
    np.testing.assert_allclose(found, expected, atol=1e-5 * abs(expected).max())


@pytest.mark.parametrize("name", VOLUMES)
def test_ordinary_values_are_neither_cut_nor_shifted(name, data):
    array, _ = read_volume(name, data)
    values = values_of(array[0])
    assert (values.absurd, values.offset) == (0, 0.0)
    assert (values.low, values.high) == (array.min(), array.max())
