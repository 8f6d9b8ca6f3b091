"""The model that comes with USEMA: as good as its model.json says, on cases that training left out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from usema.bundle import read_bundle
from usema.geometry import Geometry
from usema.predictor import Predictor
from usema.resources import sample_volume
from usema.store.library import find_model
from usema.volume import Volume, load_volume, read_volume, reorient

MEGABYTE = 2**20


@pytest.fixture(scope="module")
def bundle():
    return read_bundle(find_model("hippocampus-mr"))


@pytest.fixture(scope="module")
def predictor(bundle) -> Predictor:
    return Predictor(bundle, "cpu")


@pytest.fixture(scope="module")
def sample() -> Volume:
    return read_volume(sample_volume())


@pytest.fixture(scope="module")
def sample_labels() -> np.ndarray:
    path = sample_volume()
    return load_volume(path.parent / "reference" / path.name).array


def dice(labels: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Dice of labels 1 and 2."""
    pairs = ((labels == value, reference == value) for value in (1, 2))
    return np.array([2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in pairs])


def test_it_reaches_the_dice_that_it_claims_on_the_cases_left_out(bundle, predictor, data):
    source = data / "nnUNet_raw/Dataset004_Hippocampus"
    cases = json.loads((source / "splits_final.json").read_text())[0]["val"]
    scores = []
    for case in cases:
        result = predictor.segment(read_volume(source / "imagesTr" / f"{case}_0000.nii.gz"))
        scores.append(dice(result.labels, load_volume(source / "labelsTr" / f"{case}.nii.gz").array))
    measured = np.mean(scores, axis=0)
    claimed = bundle.metadata.metrics["validation"]
    assert claimed["cases"] == len(cases) == 26
    assert measured.mean() >= 0.85
    assert measured == pytest.approx(list(claimed["dice"].values()), abs=0.002)


def test_it_is_small_and_verified(bundle):
    bundle.verify()
    assert sum(path.stat().st_size for path in Path(bundle.path).iterdir()) < 8 * MEGABYTE


def test_the_sample_was_not_trained_on(data):
    splits = json.loads((data / "nnUNet_raw/Dataset004_Hippocampus/splits_final.json").read_text())
    assert sample_volume().name.removesuffix(".nii.gz") in splits[0]["val"]


@pytest.fixture(scope="module")
def sample_dice(predictor, sample, sample_labels) -> np.ndarray:
    return dice(predictor.segment(sample).labels, sample_labels)


def test_the_sample_is_segmented_well(sample_dice):
    assert sample_dice.min() > 0.88


@pytest.mark.parametrize("orientation", ["LPS", "PIR", "SAL", "IRP"])
def test_the_order_of_axes_changes_nothing(predictor, sample, sample_labels, sample_dice, orientation):
    result = predictor.segment(reorient(sample, orientation))
    back = reorient(Volume(result.labels, result.geometry), sample.geometry.orientation)
    np.testing.assert_allclose(dice(back.array, sample_labels), sample_dice, atol=0.002)


@pytest.mark.parametrize(
    "rescale",
    [
        lambda x: x / x.max() * 112,
        lambda x: x / x.max() * 1.7e6,
        lambda x: (x / x.max() * 255).astype(np.uint8),
        lambda x: (x / x.max() * 2000 - 1000).astype(np.int16),
    ],
    ids=["112", "1.7 million", "8 bit", "signed"],
)
def test_the_scale_of_intensities_hardly_matters(predictor, sample, sample_labels, sample_dice, rescale):
    result = predictor.segment(Volume(rescale(sample.array.astype(np.float64)), sample.geometry))
    assert (sample_dice - dice(result.labels, sample_labels)).max() < 0.03


@pytest.mark.parametrize("spacing", [(0.5, 0.5, 0.5), (0.8, 0.8, 1.5), (1.5, 1.5, 1.5)])
def test_other_spacings_find_the_same_anatomy(predictor, sample, sample_labels, sample_dice, spacing):
    """Image and reference are resampled alike, onto the same field of view; coarse voxels get a looser bar."""
    old = sample.geometry
    size = tuple(round(n * s / t) for n, s, t in zip(old.size, old.spacing, spacing, strict=True))
    corner = old.axes @ ((np.array(spacing) - old.spacing) / 2)  # from the first voxel's old centre to its new one
    geometry = Geometry(size, spacing, tuple(np.array(old.origin) + corner), old.direction)

    def resample(array: np.ndarray, rule: int) -> np.ndarray:
        image = Volume(array, old).to_image()
        fill = float(array.flat[0])
        grid = (geometry.size, sitk.Transform(), rule, geometry.origin, geometry.spacing, geometry.direction)
        return sitk.GetArrayFromImage(sitk.Resample(image, *grid, fill))

    result = predictor.segment(Volume(resample(sample.array, sitk.sitkLinear), geometry))
    score = dice(result.labels, resample(sample_labels, sitk.sitkNearestNeighbor))
    assert (sample_dice - score).max() < (0.06 if max(spacing) > 1 else 0.03)
