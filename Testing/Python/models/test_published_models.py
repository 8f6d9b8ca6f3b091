"""The models that USEMA's own index offers, as far as their files lie in the repository."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from robustness_cases import dice
from usema.files import sha256_of
from usema.inference.predictor import Predictor
from usema.models.bundle import read_bundle
from usema.models.card_files import CARD_FILE, CASES_FILE
from usema.resources import bundled_models, resources_folder
from usema.store import archive, versions
from usema.volumes.picture_files import load_picture, read_picture
from usema.volumes.volume import load_volume, read_volume

INDEX = json.loads((resources_folder() / "models.json").read_text(encoding="utf-8"))
OFFERED = {model["name"]: model for model in INDEX["models"]}
RELEASES = {path.name: path for path in (resources_folder() / "Releases").glob("*.usema")}


def test_what_is_bundled_is_offered_in_the_same_version():
    for name, folder in bundled_models().items():
        assert OFFERED[name]["version"] == read_bundle(folder).metadata.version


WAITING = sorted(set(OFFERED) - set(bundled_models()))  # for a release, or has one
LEFT = "its file has left the repository: a release has it"


def file_of(name: str) -> Path:
    return resources_folder() / "Releases" / f"{name}-{OFFERED[name]['version']}.usema"


def test_nothing_lies_in_wait_for_a_release_that_is_not_offered():
    assert set(RELEASES) <= {file_of(name).name for name in WAITING}


@pytest.mark.parametrize("name", WAITING)
def test_a_model_is_offered_by_the_release_first_and_by_the_repository_as_long_as_it_lies_there(name):
    first, *others = OFFERED[name]["file"]["urls"]
    assert first.endswith(f"/releases/download/{file_of(name).stem}/{file_of(name).name}")
    if file_of(name).name not in RELEASES:
        pytest.skip(LEFT)
    assert any(url.endswith(f"/Resources/Releases/{file_of(name).name}") for url in others)


@pytest.mark.parametrize("name", WAITING)
def test_a_file_that_waits_for_a_release_is_offered_as_it_is(name):
    path, file = file_of(name), OFFERED[name]["file"]
    if path.name not in RELEASES:
        pytest.skip(LEFT)
    with path.open("rb") as stream:
        assert sha256_of(stream) == file["sha256"]
    assert path.stat().st_size == file["size"]
    assert read_bundle(path).metadata_sha256 == file["metadata_sha256"]


def test_a_model_of_schema_2_is_offered_to_engines_that_read_it_only():
    for path in (*bundled_models().values(), *RELEASES.values()):
        metadata = read_bundle(path).metadata
        if metadata.schema_version == 2:
            assert not versions.newer("0.2.0", OFFERED[metadata.name]["minimum_engine"]), metadata.name


@pytest.fixture(scope="module")
def sarcoma(tmp_path_factory):
    if file_of("sarcoma-mr").name not in RELEASES:
        pytest.skip(LEFT)
    folder = tmp_path_factory.mktemp("unpacked") / "sarcoma-mr"
    return archive.unpack(file_of("sarcoma-mr"), folder)


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


# Model for images -> data set, where in it labels lie, a validation image, and the least Dice of it.
IMAGES = {
    "fetal-head-us": ("hc18", "masks", "217_HC", 0.95),
    "lungs-cxr": ("cxr_lungs", "masks", "CHNCXR_0021_0", 0.95),
    "nuclei-fluo": ("dsb2018_nuclei", "instances", "516a0e20327d6dfc", 0.9),
}


@pytest.mark.parametrize("name", IMAGES)
def test_a_model_for_images_is_small_comes_with_its_card_and_finds_what_it_is_for(name, data, tmp_path):
    if file_of(name).name not in RELEASES:
        pytest.skip(LEFT)
    assert RELEASES[file_of(name).name].stat().st_size < 4e6
    bundle = archive.unpack(file_of(name), tmp_path / name)
    bundle.verify()
    metadata = bundle.metadata
    assert metadata.takes_images
    assert metadata.inference["temperature"] != 1
    assert metadata.metrics == OFFERED[name]["metrics"]
    card = (bundle.path / CARD_FILE).read_text(encoding="utf-8")
    assert f"{metadata.metrics['validation']['mean_dice']:.3f}" in card
    folder, labels, case, least = IMAGES[name]
    source = data / "images2d" / folder
    if not source.is_dir():
        pytest.skip(f"{source} is not here")
    result = Predictor(bundle, "cpu").segment(read_picture(source / "images" / f"{case}.png"))
    drawn = load_picture(source / labels / f"{case}.png").array
    assert dice(result.labels, (drawn > 0).astype(int), (1,))[0] > least
    if metadata.instances is not None:
        counted, there = result.image.objects.max(), len(np.unique(drawn)) - 1
        assert abs(counted - there) <= 0.15 * there
