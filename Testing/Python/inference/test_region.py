"""A rough part, or another model, finds the region; a fine one works there alone."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from bundles import METADATA
from nnunet_prediction import case, network, plans
from usema.errors import BundleError
from usema.inference.plan import Plan
from usema.inference.predictor import Predictor
from usema.inference.region import box_around, cut, pasted
from usema.models.bundle_writing import write_bundle
from usema.volumes.volume import Geometry, Volume

KEYS = ("architecture", "preprocessing", "inference")


def described(architecture: dict, spacing) -> dict:
    preprocessing = Plan.from_nnunet(plans(spacing=list(spacing)), "3d_fullres").to_dict()
    return {"architecture": architecture, "preprocessing": preprocessing, "inference": {"mirror_axes": []}}


@pytest.fixture(scope="module")
def volume(data) -> Volume:
    """A crop of a hippocampus with empty surroundings, and an obliquely lying grid."""
    image, _ = case(data, "004")
    array = np.pad(sitk.GetArrayFromImage(image)[:30, :40, :30], 4, mode="edge")
    rotation = np.array(sitk.Euler3DTransform((0, 0, 0), 0.1, -0.2, 0.15).GetMatrix())
    return Volume(array, Geometry(array.shape[::-1], (1.0, 1.1, 0.9), (3, 4, 5), tuple(rotation)))


def test_only_what_the_rough_part_points_at_is_segmented(data, volume, tmp_path):
    shape, coarse = network(data, 1)
    alone = {**METADATA, **described(shape, (3, 3, 3))}
    usual = Predictor(write_bundle(tmp_path / "usual", alone, coarse, half=False), "cpu")
    usual.temperature = 20  # so that half precision tells the logits apart
    p = usual.segment(volume, overlap=0, probabilities=True).probabilities.astype(float).clip(1e-7, 1)
    *_, head = [name for name, tensor in coarse.items() if name.endswith("bias") and len(tensor) == 3]
    # So that the posterior part is found in few voxels, and there is something to leave out.
    coarse[head][2] -= 20 * float(np.quantile(np.log(p[2] / p[:2].max(axis=0)), 0.99998))
    _, fine = network(data, 0)
    rough = {"name": "rough", "folds": ["0"], **described(shape, (3, 3, 3))}
    full = {"name": "full", "folds": ["0"], **described(shape, (1, 1, 1))}
    weights = {**{f"rough.0.{k}": v for k, v in coarse.items()}, **{f"full.0.{k}": v for k, v in fine.items()}}
    crop = {"part": "rough", "labels": ["Posterior hippocampus"], "margin_mm": 2.5}
    document = {key: value for key, value in METADATA.items() if key not in KEYS}
    both = write_bundle(
        tmp_path / "both", {**document, "parts": [rough, full], "crop_first": crop}, weights, half=False
    )
    result = Predictor(both, "cpu").segment(volume, overlap=0, probabilities=True)

    found = Predictor(write_bundle(tmp_path / "rough", alone, coarse, half=False), "cpu").segment(volume, overlap=0)
    box = box_around(found.labels, [2], 2.5, volume.geometry)
    assert np.prod([part.stop - part.start for part in box]) < volume.array.size
    fine_alone = {**METADATA, **described(shape, (1, 1, 1))}
    fine_model = Predictor(write_bundle(tmp_path / "fine", fine_alone, fine, half=False), "cpu")
    expected = fine_model.segment(cut(volume, box), overlap=0, probabilities=True)
    np.testing.assert_array_equal(result.labels, pasted(expected.labels, box, volume.array.shape))
    np.testing.assert_array_equal(result.probabilities[(slice(None), *box)], expected.probabilities)
    outside = np.ones(volume.array.shape, bool)
    outside[box] = False
    assert (result.probabilities[0][outside] == 1).all()
    assert result.geometry == volume.geometry


def test_another_model_may_find_the_region_and_is_named(data, volume, tmp_path):
    shape, coarse = network(data, 1)
    _, fine = network(data, 0)
    other = write_bundle(
        tmp_path / "other", {**METADATA, "name": "finder", **described(shape, (3, 3, 3))}, coarse, half=False
    )
    crop = {"model": "finder", "labels": ["Anterior hippocampus"], "margin_mm": 0}
    document = {**METADATA, **described(shape, (1, 1, 1)), "crop_first": crop}
    bundle = write_bundle(tmp_path / "model", document, fine, half=False)
    asked = []
    predictor = Predictor(bundle, "cpu", lambda name: asked.append(name) or other)
    result = predictor.segment(volume, overlap=0)
    predictor.segment(volume, overlap=0)
    assert set(asked) == {"finder"}
    assert result.provenance["regionFoundBy"] == "finder 1.2.0"
    box = box_around(Predictor(other, "cpu").segment(volume, overlap=0).labels, [1], 0, volume.geometry)
    expected = Predictor(
        write_bundle(tmp_path / "fine", {**METADATA, **described(shape, (1, 1, 1))}, fine, half=False), "cpu"
    ).segment(cut(volume, box), overlap=0)
    np.testing.assert_array_equal(result.labels[box], expected.labels)
    with pytest.raises(BundleError, match=r"region found by the model 'finder'.*Install 'finder' first"):
        Predictor(bundle, "cpu").segment(volume, overlap=0)


def test_a_region_that_is_not_there_gives_an_empty_result_that_says_so(data, volume, tmp_path):
    shape, fine = network(data, 0)
    nothing = {name: tensor * 0 for name, tensor in fine.items()}  # background everywhere: the first of equals
    crop = {"model": "finder", "margin_mm": 10}
    other = write_bundle(tmp_path / "other", {**METADATA, "name": "finder", **described(shape, (3, 3, 3))}, nothing)
    bundle = write_bundle(
        tmp_path / "model", {**METADATA, **described(shape, (1, 1, 1)), "crop_first": crop}, fine, half=False
    )
    result = Predictor(bundle, "cpu", lambda name: other).segment(volume, overlap=0, probabilities=True)
    assert not result.labels.any()
    assert (result.probabilities[0] == 1).all()
    assert any("region that the model works in was not found" in warning for warning in result.warnings)
