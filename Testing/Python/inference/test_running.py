"""Folds, parts, regions and cascades, against nnU-Net's own predictor on real volumes."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from bundles import METADATA
from nnunet_prediction import REGION_ORDER, case, network, plans, predicted_by_nnunet
from usema.errors import BundleError, InputError
from usema.inference.plan import Plan
from usema.inference.predictor import Predictor
from usema.models.bundle_writing import write_bundle
from usema.volumes.volume import Geometry, Volume


def volume_of(image: sitk.Image) -> Volume:
    return Volume(sitk.GetArrayFromImage(image), Geometry.of_image(image))


def keys(described: dict, plan: dict, configuration: str = "3d_fullres", **inference) -> dict:
    """The three keys of a network in model.json."""
    preprocessing = Plan.from_nnunet(plan, configuration).to_dict()
    return {
        "architecture": described,
        "preprocessing": preprocessing,
        "inference": {"mirror_axes": [], **inference},
    }


def write(folder, state: dict, **document):
    """A bundle in single precision that takes volumes as they lie."""
    kept = {
        key: value
        for key, value in METADATA.items()
        if "parts" not in document or key not in ("architecture", "preprocessing", "inference")
    }
    return write_bundle(folder, {**kept, "orientation": None, **document}, state, half=False)


def prefixed(**states: dict) -> dict:
    """The weights of parts under the names they have in a bundle's file; "low_0" is part low, fold 0."""
    return {
        f"{key.replace('_', '.')}.{name}": tensor for key, state in states.items() for name, tensor in state.items()
    }


def agreement(ours: np.ndarray, theirs: np.ndarray) -> float:
    assert ours.shape == theirs.shape
    assert len(np.unique(theirs)) == 3, "the comparison says nothing where a label is missing"
    return float((ours == theirs).mean())


def close(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """But for single voxels: at the border nnU-Net divides tiny weights by tiny ones."""
    return bool((abs(ours - theirs) > 0.005).mean() < 0.001)


def meant(margins) -> np.ndarray:
    """The labels that margins mean."""
    labels = np.zeros(margins.shape, np.uint8)
    for value in margins.order or sorted(set(margins.of) - {0}):
        one = margins.of[value]
        labels[one.box][one.array >= 0] = value
    return labels


@pytest.mark.parametrize("number", ["001", "003", "004"])
def test_one_network_finds_what_nnunet_finds(number, data, tmp_path):
    described, state = network(data)
    image, _ = case(data, number)
    expected, probabilities = predicted_by_nnunet(described, [state], plans(), image)
    predictor = Predictor(write(tmp_path / "one", state, **keys(described, plans())), "cpu")
    result = predictor.segment(volume_of(image), probabilities=True)
    assert agreement(result.labels, expected) > 0.999
    assert close(result.probabilities, probabilities)


def test_regions_are_written_in_their_order_as_nnunet_writes_them(data, tmp_path):
    described, state = network(data, regions=True)
    image, _ = case(data, "004")
    expected, probabilities = predicted_by_nnunet(described, [state], plans(), image, regions=True)
    inference = {"activation": "sigmoid", "region_order": REGION_ORDER}
    predictor = Predictor(write(tmp_path / "regions", state, **keys(described, plans(), **inference)), "cpu")
    result = predictor.segment(volume_of(image), probabilities=True, margins=True)
    assert agreement(result.labels, expected) > 0.999
    assert (meant(result.margins) == result.labels).all()
    assert close(result.probabilities[1:], probabilities)
    assert close(result.probabilities[0], 1 - probabilities.max(axis=0))
    assert result.max_foreground_probability == pytest.approx(probabilities.max(), abs=0.01)


def test_each_region_has_its_own_temperature(data, tmp_path):
    described, state = network(data, regions=True)
    volume = volume_of(case(data, "004")[0])
    inference = {"activation": "sigmoid", "region_order": REGION_ORDER}
    hard = Predictor(write(tmp_path / "a", state, **keys(described, plans(), **inference)), "cpu")
    inference["temperature"] = [1.0, 4.0]
    soft = Predictor(write(tmp_path / "b", state, **keys(described, plans(), **inference)), "cpu")
    first, second = (one.segment(volume, probabilities=True) for one in (hard, soft))
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_array_equal(first.probabilities[1], second.probabilities[1])
    inside = (first.probabilities[2] > 0.01) & (first.probabilities[2] < 0.99)
    logit = [np.log(p / (1 - p)) for p in (one.probabilities[2][inside].astype(float) for one in (first, second))]
    np.testing.assert_allclose(logit[0] / 4, logit[1], atol=0.05)
    assert soft.temperature == [1.0, 4.0]


def test_the_folds_of_a_part_are_averaged_as_nnunet_averages_them(data, tmp_path):
    described, first = network(data, 0)
    _, second = network(data, 1)
    image, _ = case(data, "004")
    expected, probabilities = predicted_by_nnunet(described, [first, second], plans(), image)
    alone, _ = predicted_by_nnunet(described, [first], plans(), image)
    assert (alone != expected).mean() > 0.002  # or one fold would pass for both
    part = {"name": "full", "folds": ["0", "1"], **keys(described, plans())}
    predictor = Predictor(write(tmp_path / "folds", prefixed(full_0=first, full_1=second), parts=[part]), "cpu")
    result = predictor.segment(volume_of(image), probabilities=True)
    assert agreement(result.labels, expected) > 0.999
    assert close(result.probabilities, probabilities)
    assert result.provenance["parts"] == "full (0, 1)"


@pytest.mark.parametrize("axes", [(0,), (1, 2)])
def test_mirrored_copies_are_averaged_along_the_axes_that_nnunet_allows(axes, data, tmp_path):
    described, state = network(data)
    image, _ = case(data, "004")
    expected, _ = predicted_by_nnunet(described, [state], plans(), image, mirror_axes=axes)
    bundle = write(tmp_path / "mirror", state, **keys(described, plans(), mirror_axes=list(axes)))
    result = Predictor(bundle, "cpu").segment(volume_of(image), mirror=True)
    assert agreement(result.labels, expected) > 0.999


@pytest.mark.parametrize(("spacing", "regions"), [([1.3, 0.9, 1.2], True), ([3.5, 1.0, 1.0], False)])
def test_a_cascade_gives_the_labels_of_its_first_stage_to_the_second_as_nnunet_does(spacing, regions, data, tmp_path):
    coarse = plans(spacing=[1.6, 1.7, 1.5])
    fine = plans(spacing=spacing)
    described_low, low = network(data, regions=regions)
    described, high = network(data, 1, cascade=True)
    image, _ = case(data, "004")
    before, _ = predicted_by_nnunet(described_low, [low], coarse, image, regions=regions)
    expected, probabilities = predicted_by_nnunet(described, [high], fine, image, previous=before)
    blank, _ = predicted_by_nnunet(described, [high], fine, image, previous=np.zeros_like(before))
    assert (blank != expected).mean() > 0.002  # or the first stage would not matter
    inference = {"activation": "sigmoid", "region_order": REGION_ORDER} if regions else {}
    parts = [
        {"name": "low", "folds": ["0"], **keys(described_low, coarse, **inference)},
        {"name": "high", "folds": ["0"], "previous": "low", **keys(described, fine)},
    ]
    predictor = Predictor(write(tmp_path / "cascade", prefixed(low_0=low, high_0=high), parts=parts), "cpu")
    result = predictor.segment(volume_of(image), probabilities=True)
    assert agreement(result.labels, expected) > 0.999
    # A voxel of the first stage that falls differently where masks are equal moves probabilities around it.
    assert (abs(result.probabilities - probabilities) > 0.02).mean() < 0.003


def test_configurations_are_combined_by_the_mean_of_their_probabilities(data, tmp_path):
    described, state = network(data)
    described_flat, flat = network(data, axes=2)
    image, _ = case(data, "004")
    solid_plans = plans(spacing=[1.2, 1.1, 0.9])
    flat_plans = plans("2d", spacing=[1.1, 0.9])
    _, solid = predicted_by_nnunet(described, [state], solid_plans, image)
    _, planar = predicted_by_nnunet(described_flat, [flat], flat_plans, image, configuration="2d")
    mean = (solid + planar) / 2
    assert (solid.argmax(0) != mean.argmax(0)).mean() > 0.002
    parts = [
        {"name": "3d", "folds": ["0"], **keys(described, solid_plans)},
        {"name": "2d", "folds": ["0"], **keys(described_flat, flat_plans, "2d")},
    ]
    weights = {**{f"3d.0.{k}": v for k, v in state.items()}, **{f"2d.0.{k}": v for k, v in flat.items()}}
    bundle = write(tmp_path / "both", weights, parts=parts, combine="probabilities")
    seen = []
    result = Predictor(bundle, "cpu").segment(
        volume_of(image), probabilities=True, margins=True, progress=lambda *values: seen.append(values)
    )
    assert agreement(result.labels, mean.argmax(0)) > 0.999
    assert (meant(result.margins) == result.labels).all()
    assert close(result.probabilities, mean)
    done = [values[0] for values in seen]
    assert done == list(range(done[-1] + 1))
    assert {values[1] for values in seen} == {done[-1]}


def test_parts_for_different_labels_make_one_result_later_over_earlier(data, tmp_path):
    described, first = network(data, 0)
    _, second = network(data, 1)
    image, _ = case(data, "004")
    one, _ = predicted_by_nnunet(described, [first], plans(), image)
    two, _ = predicted_by_nnunet(described, [second], plans(), image)
    expected = np.where(one == 2, 1, 0)  # the first part's posterior is our label 1, its anterior is dropped
    expected[two == 1] = 2
    parts = [
        {"name": "a", "folds": ["0"], "labels": [0, 1], **keys(described, plans())},
        {"name": "b", "folds": ["0"], "labels": [2, 0], **keys(described, plans())},
    ]
    bundle = write(tmp_path / "parts", prefixed(a_0=first, b_0=second), parts=parts)
    predictor = Predictor(bundle, "cpu")
    seen = []
    result = predictor.segment(volume_of(image), margins=True, progress=lambda *values: seen.append(values))
    assert agreement(result.labels, expected) > 0.999
    assert result.margins is None  # they have no logits in common
    done, totals, _ = zip(*seen, strict=True)
    assert list(done) == list(range(totals[0] + 1))
    assert len(set(totals)) == 1
    with pytest.raises(InputError, match="2 networks for different labels"):
        predictor.segment(volume_of(image), probabilities=True)


def test_a_part_whose_weights_are_missing_or_of_another_shape_is_named(data, tmp_path):
    described, state = network(data)
    part = {"name": "full", "folds": ["0", "1"], **keys(described, plans())}
    bundle = write(tmp_path / "half", prefixed(full_0=state), parts=[part])
    with pytest.raises(BundleError, match=r"do not fit the architecture: full\.1\..* is missing where"):
        Predictor(bundle, "cpu")


def test_an_architecture_far_larger_than_its_weights_is_refused_before_it_is_built(data, tmp_path):
    described, state = network(data)
    config = {**described["config"], "features": [4096, 4096], "convs": [64, 64]}  # some terabytes of weights
    bundle = write(tmp_path / "huge", state, **keys({"name": "PlainConvUNet", "config": config}, plans()))
    with pytest.raises(BundleError, match="do not fit the architecture"):
        Predictor(bundle, "cpu")


def test_an_unknown_kind_of_preprocessing_is_refused_by_name(data, tmp_path):
    described, state = network(data)
    document = keys(described, plans())
    document["preprocessing"] = {"kind": "spherical"}
    bundle = write(tmp_path / "other", state, **document)
    with pytest.raises(BundleError, match="kind of preprocessing, 'spherical', is not one of nnunet"):
        Predictor(bundle, "cpu")
