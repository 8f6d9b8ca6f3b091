"""Several networks of nnU-Net, and regions: imported, and compared with nnU-Net's own results on real volumes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nnunet_fixtures import assert_same, segmented
from nnunet_models import case, predicted_by_nnunet, train
from usema import converters
from usema.converters import Options
from usema.errors import BundleError

pytest_plugins = ["nnunet_fixtures"]

STAGES = ("low resolution", "cascade")  # which need each other


def test_an_imported_model_finds_the_regions_that_nnunet_finds(trained, tmp_path, data):
    bundle = converters.convert(trained("regions"), tmp_path / "bundle")
    files = case("regions", data)
    assert_same(segmented(bundle, files), predicted_by_nnunet(trained("regions"), files))


def test_regions_are_named_by_what_is_left_of_them(trained, tmp_path):
    metadata = converters.convert(trained("regions"), tmp_path / "bundle").metadata
    assert [label.name for label in metadata.labels] == ["whole without Posterior", "Posterior"]
    assert metadata.inference == {"mirror_axes": [0, 1, 2], "activation": "sigmoid", "region_order": [1, 2]}


def test_folds_are_averaged(folds, tmp_path, data):
    (folder,) = folds.glob("*3d_fullres")
    bundle = converters.convert(folds, tmp_path / "bundle", ["3d_fullres"], Options(folds=("0", "1", "all")))
    assert bundle.metadata.training["folds"] == ["0", "1", "all"]
    files = case("3D", data)
    theirs = predicted_by_nnunet(folder, files, (0, 1, "all"))
    assert_same(segmented(bundle, files), theirs)
    assert (predicted_by_nnunet(folder, files) != theirs).any(), "one fold alone finds the same"


def test_configurations_are_averaged(folds, tmp_path, data):
    bundle = converters.convert(folds, tmp_path / "bundle", ["2d", "3d_fullres"], Options(folds=("0",)))
    assert bundle.metadata.title == "Hippocampus (nnU-Net 2d + 3d_fullres)"
    files = case("3D", data)
    each = [predicted_by_nnunet(folder, files, probabilities=True) for folder in sorted(folds.glob("*__*"))]
    theirs = np.mean(each, axis=0).argmax(0)
    assert_same(segmented(bundle, files), theirs)
    assert all((one.argmax(0) != theirs).any() for one in each), "one alone finds the same"


@pytest.fixture(scope="module")
def stages(tmp_path_factory, data) -> Path:
    """The results folder of a cascade: 3d_lowres and 3d_cascade_fullres."""
    results = tmp_path_factory.mktemp("results")
    for kind in STAGES:
        folder = train(kind, results, data)
    return folder.parent


def test_a_cascade_brings_its_first_stage(stages, tmp_path, data):
    first, second = sorted(stages.glob("*__*"), reverse=True)
    files = case("cascade", data)
    before = predicted_by_nnunet(first, files)
    theirs = predicted_by_nnunet(second, files, previous=before)
    assert (theirs != predicted_by_nnunet(second, files, previous=np.zeros_like(before))).any(), "it is not looked at"
    bundle = converters.convert(stages, tmp_path / "bundle", ["3d_cascade_fullres"])
    assert [part.previous for part in bundle.metadata.networks] == [None, "3d_lowres"]
    assert_same(segmented(bundle, files), theirs)
    with pytest.raises(BundleError, match="second stage of a cascade, after '3d_lowres'") as refusal:
        converters.convert(second, tmp_path / "other")
    assert "dataset's folder" in refusal.value.hint
