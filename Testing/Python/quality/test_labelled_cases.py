"""Which cases a model is measured on, and whether its training is known to have left them out."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from usema.errors import InputError
from usema.inference.predictor import Predictor
from usema.models.bundle import read_bundle
from usema.models.bundle_writing import change_metadata
from usema.quality.calibration_voxels import read_voxels
from usema.quality.card.measure import measure
from usema.quality.card.results import read_results
from usema.quality.labelled_cases import IGNORED, LabelledCase, describe_cases, names_sha256, read_case
from usema.resources import bundled_models

CASES = ("hippocampus_001", "hippocampus_007", "hippocampus_149", "hippocampus_181")


def test_only_the_split_whose_cases_have_the_hashes_of_the_training_is_taken_for_its_own(tmp_path):
    metadata, images = read_bundle(bundled_models()["hippocampus-mr"]).metadata, Path("Dataset004_Hippocampus/imagesTr")
    hashes = {"cases_sha256": names_sha256("ab"), "validation_cases_sha256": names_sha256(CASES)}
    metadata = replace(metadata, training={**metadata.training, **hashes})
    path = tmp_path / "splits_final.json"

    def left_out(train, val, metadata=metadata) -> bool:
        path.write_text(json.dumps([{"train": list(train), "val": list(val)}]))
        return describe_cases(metadata, images, path, 0)[1]

    assert left_out("ab", CASES)
    assert left_out("ba", reversed(CASES))
    # As many cases, but validated are those that were trained on; or trained on were those that are validated.
    assert not left_out(["a", CASES[0]], [*CASES[1:], "b"])
    assert not left_out(CASES[:2], ["a", "b", *CASES[2:]])
    assert not left_out("ab", CASES[:3])
    unknown = {key: value for key, value in metadata.training.items() if not key.endswith("sha256")}
    assert not left_out("ab", CASES, replace(metadata, training=unknown))
    assert not left_out("ab", CASES, replace(metadata, training={**metadata.training, "dataset": "Dataset007"}))
    assert not describe_cases(metadata, images, None, 0)[1]


DATASET = "nnUNet_raw/Dataset004_Hippocampus"


@pytest.fixture
def case(data, tmp_path) -> LabelledCase:
    """A case of which one half nobody labelled: it has the value 3."""
    name = CASES[0]
    image = sitk.ReadImage(str(data / DATASET / "labelsTr" / f"{name}.nii.gz"))
    image[: image.GetWidth() // 2, :, :] = 3
    sitk.WriteImage(image, str(tmp_path / "labels.nii.gz"))
    return LabelledCase(name, (data / DATASET / "imagesTr" / f"{name}_0000.nii.gz",), tmp_path / "labels.nii.gz")


def test_what_nobody_labelled_is_neither_right_nor_wrong(case, data, tmp_path):
    bundle = read_bundle(shutil.copytree(bundled_models()["hippocampus-mr"], tmp_path / "bundle"))
    with pytest.raises(InputError, match="has the label 3, and the model"):
        read_case(case, bundle.metadata)
    bundle = change_metadata(bundle, training={**bundle.metadata.training, "ignored_label": 3})
    _, reference = read_case(case, bundle.metadata)
    half = reference.shape[2] // 2
    assert (reference[..., :half] == IGNORED).all()
    assert set(np.unique(reference[..., half:])) <= {0, 1, 2}

    predictor = Predictor(bundle, "cpu")
    voxels, _ = read_voxels(predictor, case)
    assert set(np.unique(voxels.labels)) <= {0, 1, 2}
    whole = LabelledCase("whole", case.images, data / DATASET / "labelsTr" / f"{CASES[0]}.nii.gz")
    measured = read_results(measure(bundle, [case, whole], cases_from="here", left_out=False, device="cpu"))
    part, every = measured.cases
    for one, other in zip(part.labels, every.labels, strict=True):
        assert 0 < one.reference_ml < other.reference_ml
        assert 0 < one.predicted_ml < other.predicted_ml, "the result counts only where the reference is known"
        assert one.dice > 0.6
