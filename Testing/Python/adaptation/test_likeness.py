"""What a voxel's looks say of its label: by patches, by intensities, and by a model's score together with them."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from usema.adaptation.likeness import by_intensity, by_patches, fitted, maps
from usema.adaptation.propagation_features import signed_distance


def planes_of(case) -> tuple[np.ndarray, np.ndarray]:
    image = case.volume.array.astype(np.float32)
    return (image - image.mean()) / image.std(), case.reference > 0


def test_a_label_that_moved_with_its_image_is_found_where_it_went(case):
    image, label = planes_of(case)
    moved, there = np.roll(image[14], 3, axis=0)[None], np.roll(label[14], 3, axis=0)
    said = by_patches(moved, image[14], label[14])[0]
    assert np.abs(said).max() <= 1
    stayed = (label[14] != there).sum()
    assert ((said > 0) != there).sum() < 0.5 * stayed


def test_an_intensity_that_the_label_has_and_its_surroundings_have_not_is_likely(case):
    _, label = planes_of(case)
    image = np.where(label, 2.0, 0.0) + np.random.default_rng(0).normal(size=label.shape)
    away = [signed_distance(label[index]) for index in (9, 18)]
    found = by_intensity(image, [image[9], image[18]], away)
    assert found.shape == image.shape
    assert (found[image > 2].mean(), found[image < 0].mean()) > (1, -9)
    assert found[image < 0].mean() < -1
    turned = by_intensity(-image, [-image[9], -image[18]], away)
    np.testing.assert_allclose(turned, found, atol=0.5)


def test_without_a_label_on_the_slices_nothing_is_likely(case):
    image, _ = planes_of(case)
    assert not by_intensity(image, [image[0]], [np.full(image[0].shape, -12.0)]).any()


def test_a_score_that_is_too_low_on_two_slices_is_raised_on_all(case):
    image, label = planes_of(case)
    score = np.stack([signed_distance(plane) for plane in ndimage.gaussian_filter(label.astype(float), 1) > 0.5]) - 1.5
    own = np.stack([signed_distance(plane > 0) for plane in score])
    its, told = np.stack([*maps(image, score, own)]), [9, 18]
    near = np.abs(own[told]) < 8
    weights = fitted(its[:, told], score[told], label[told], near)
    changed = score + np.tensordot(weights, its, 1)
    rest = np.setdiff1d(np.arange(len(score)), told)
    wrong = [((one[rest] > 0) != label[rest]).sum() for one in (score, changed)]
    assert wrong[1] < 0.7 * wrong[0]
    assert not fitted(its[:, told], score[told], label[told], np.zeros_like(near)).any()
