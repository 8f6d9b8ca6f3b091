"""A model that was trained further against the one that it came from, on real cases that were held back."""

from __future__ import annotations

import json
import shutil

import pytest
from bundles import write_crop_model, write_tiny_bundle
from click.testing import CliRunner
from usema.cli import main
from usema.models.bundle import read_bundle
from usema.models.bundle_writing import change_metadata, write_bundle
from usema.quality.labelled_cases import names_sha256
from usema.store.library import find_model

CASES = ("hippocampus_007", "hippocampus_074")


@pytest.fixture(scope="module")
def dataset(data, tmp_path_factory):
    """Two validation cases, and one that both models were trained on."""
    source, folder = (
        data / "nnUNet_raw/Dataset004_Hippocampus",
        tmp_path_factory.mktemp("raw") / "Dataset004_Hippocampus",
    )
    train = json.loads((source / "splits_final.json").read_text())[0]["train"][0]
    for part, ending in (("imagesTr", "_0000"), ("labelsTr", "")):
        (folder / part).mkdir(parents=True)
        for case in (*CASES, train):
            shutil.copy(source / part / f"{case}{ending}.nii.gz", folder / part)
    (folder / "splits_final.json").write_text(json.dumps([{"train": [train], "val": list(CASES)}]))
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The network of the bundled model, a copy with a higher version, and one whose weights are all zero."""
    folder = tmp_path_factory.mktemp("models")
    old = write_crop_model(folder / "old")
    same = change_metadata(write_crop_model(folder / "same"), version="9.0.0")
    document = {key: value for key, value in old.metadata.to_dict().items() if key not in ("schema_version", "weights")}
    zero = {name: value * 0 for name, value in old.load_weights().items()}
    worse = write_bundle(folder / "worse", {**document, "version": "9.0.1"}, zero)
    return old.path, same.path, worse.path


def compare(*arguments):
    return CliRunner().invoke(main, ["models", "compare", *map(str, arguments)])


def test_one_that_is_not_worse_may_be_installed_and_is_then_used(models, dataset):
    old, same, _ = models
    result = compare(old, same, dataset, "--install")
    assert result.exit_code == 0, result.output
    assert "is not worse than hippocampus-mr" in result.output
    assert " 2 cases" in result.output  # the case that was trained on is not among them
    assert "less than 5 cases and says little" in result.output
    assert "too few" in result.output  # for an interval
    assert "+0.0000" in result.output
    assert read_bundle(find_model("hippocampus-mr")).metadata.version == "9.0.0"


def test_one_that_is_worse_is_not_installed(models, dataset):
    old, _, worse = models
    before = find_model("hippocampus-mr")
    result = compare(old, worse, dataset, "--install")
    assert result.exit_code == 1
    assert "hippocampus-mr 9.0.1 should not take the place of hippocampus-mr" in result.output
    assert "the mean Dice falls by 0.9064" in result.output
    assert find_model("hippocampus-mr") == before


def test_a_split_that_is_not_the_one_of_the_training_is_refused(models, dataset, tmp_path):
    old, same, _ = models
    document = read_bundle(same).metadata.training
    others = {"cases_sha256": names_sha256(CASES), "validation_cases_sha256": names_sha256(["hippocampus_001"])}
    new = change_metadata(read_bundle(shutil.copytree(same, tmp_path / "new")), training={**document, **others})
    result = compare(old, new.path, dataset)
    assert result.exit_code == 1
    assert "held back other cases than fold 0" in " ".join(result.output.split())


def test_what_was_held_back_has_to_be_known_and_models_have_to_be_alike(models, dataset, tmp_path):
    old, same, _ = models
    other = shutil.copytree(dataset, tmp_path / "Dataset005_Other")
    (other / "splits_final.json").unlink()
    result = compare(old, same, other)
    assert result.exit_code == 1
    assert "which cases were held back is not known" in result.output
    liver = write_tiny_bundle(tmp_path / "liver", channels=[{"name": "T2"}])
    assert "cannot be compared" in compare(old, liver.path, dataset).output
