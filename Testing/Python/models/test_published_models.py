"""The models that USEMA's own index offers, as far as their files lie in the repository."""

from __future__ import annotations

import json

import numpy as np
import pytest
from robustness_cases import dice
from usema.files import sha256_of
from usema.inference.predictor import Predictor
from usema.models.bundle import read_bundle
from usema.models.card_files import CARD_FILE, CASES_FILE
from usema.resources import bundled_models, resources_folder
from usema.store import archive, versions
from usema.volumes.volume import load_volume, read_volume

INDEX = json.loads((resources_folder() / "models.json").read_text(encoding="utf-8"))
OFFERED = {model["name"]: model for model in INDEX["models"]}
RELEASES = {path.name: path for path in (resources_folder() / "Releases").glob("*.usema")}


def test_what_is_bundled_is_offered_in_the_same_version():
    for name, folder in bundled_models().items():
        assert OFFERED[name]["version"] == read_bundle(folder).metadata.version


def test_every_file_that_waits_for_a_release_is_offered_as_it_is():
    files = {model["file"]["urls"][0].rpartition("/")[2]: model["file"] for model in OFFERED.values()}
    for name, path in RELEASES.items():
        with path.open("rb") as stream:
            assert sha256_of(stream) == files[name]["sha256"]
        assert path.stat().st_size == files[name]["size"]
        assert any(url.endswith(f"/Resources/Releases/{name}") for url in files[name]["urls"])


def test_a_model_of_schema_2_is_offered_to_engines_that_read_it_only():
    for path in (*bundled_models().values(), *RELEASES.values()):
        metadata = read_bundle(path).metadata
        if metadata.schema_version == 2:
            assert not versions.newer("0.2.0", OFFERED[metadata.name]["minimum_engine"]), metadata.name


@pytest.fixture(scope="module")
def sarcoma(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unpacked") / "sarcoma-mr"
    archive.unpack(RELEASES[f"sarcoma-mr-{OFFERED['sarcoma-mr']['version']}.usema"], folder)
    return read_bundle(folder)


def test_the_sarcoma_model_comes_with_its_card(sarcoma):
    sarcoma.verify()
    card = (sarcoma.path / CARD_FILE).read_text(encoding="utf-8")
    assert "Not a medical device" in card
    assert f"{sarcoma.metadata.metrics['validation']['mean_dice']:.3f}" in card
    assert sarcoma.metadata.metrics == OFFERED["sarcoma-mr"]["metrics"]


def test_the_sarcoma_model_reaches_the_dice_of_its_card(sarcoma, data):
    source = data / "nnUNet_raw/Dataset051_SarcomaMR"
    said = {case["case"]: case for case in json.loads((sarcoma.path / CASES_FILE).read_text(encoding="utf-8"))["cases"]}
    predictor = Predictor(sarcoma, "cpu")
    for case in ("STS_024", "STS_032"):
        result = predictor.segment(read_volume(source / "imagesTr" / f"{case}_0000.nii.gz"))
        reference = load_volume(source / "labelsTr" / f"{case}.nii.gz").array
        np.testing.assert_allclose(dice(result.labels, reference, (1,)), said[case]["labels"][0]["dice"], atol=0.002)
