"""brainchop's files become models by their hash; on whole heads they give the publisher's own labels."""

from __future__ import annotations

import shutil
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from usema import converters
from usema.converters import Work
from usema.errors import BundleError, InputError
from usema.inference.conform_recipe import ConformRecipe
from usema.inference.predictor import Predictor
from usema.networks import build
from usema.volumes.volume import read_volume

FOLDERS = {
    "mindgrab": "brain-mask",
    "subcortical": "brain-subcortical",
    "model18cls": "brain-subcortical-mini",
    "model20chan3cls": "brain-tissue",
    "model5_gw_ae": "brain-tissue-light",
    "model21_104class": "brain-aparc",
    "model30chan50cls": "brain-aparc-50",
}


@pytest.fixture(scope="module")
def published(data):
    return data / "public_models" / "brainchop"


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_file_becomes_a_model_that_can_be_loaded(published, tmp_path, folder):
    bundle = converters.convert(published / "weights" / folder, tmp_path / "model")
    assert bundle.metadata.name == FOLDERS[folder]
    assert bundle.metadata.licence["name"] == "MIT"
    assert bundle.metadata.source["publisher"] == "neuroneural/brainchop-models"
    assert str(tmp_path) not in str(bundle.metadata.to_dict()), "no path of this computer in a model"
    names = [label.name for label in bundle.metadata.labels]
    assert len(set(names)) == len(names)
    Predictor(bundle, "cpu")


def test_every_tensor_of_the_mask_is_used_its_last_bias_too(published, tmp_path):
    bundle = converters.convert(published / "weights" / "mindgrab" / "model.pth", tmp_path / "model")
    weights = bundle.load_weights()
    assert sum(tensor.numel() for tensor in weights.values()) == 146_237
    assert weights["head.bias"].tolist() == pytest.approx([1.5254, -1.5258], abs=1e-4)


def test_weights_of_tensorflow_are_turned(published, tmp_path):
    bundle = converters.convert(published / "weights" / "model20chan3cls", tmp_path / "model")
    numbers = np.fromfile(published / "weights" / "model20chan3cls" / "model.bin", "<f4")
    kernel = numbers[: 27 * 20].reshape(3, 3, 3, 1, 20)
    first = bundle.load_weights()["convolutions.0.weight"].numpy()
    assert first[7, 0, 2, 1, 0] == kernel[2, 1, 0, 0, 7]


def test_a_folder_of_all_offers_each_and_one_is_chosen_by_name(published, tmp_path):
    found = converters.look(published / "weights")
    assert {model.short for model in found} == set(FOLDERS.values())
    with pytest.raises(InputError, match="holds 7 models"):
        converters.convert(published / "weights", tmp_path / "model")
    bundle = converters.convert(published / "weights", tmp_path / "model", ("brain-tissue",))
    assert bundle.metadata.name == "brain-tissue"


def test_a_zip_and_a_file_of_another_name_are_known_by_what_they_hold(published, tmp_path):
    file = tmp_path / "downloaded (1).pth"
    shutil.copyfile(published / "weights" / "model5_gw_ae" / "model.pth", file)
    assert [model.short for model in converters.look(file)] == ["brain-tissue-light"]
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(file, "deep/in/it/model.pth")
    assert [model.short for model in converters.look(tmp_path / "all.zip")] == ["brain-tissue-light"]


def test_a_changed_file_is_not_taken_for_the_publishers(published, tmp_path):
    weights = safetensors.torch.load_file(published / "weights" / "model5_gw_ae" / "model.pth")
    weights["model.0.bias"] += 1
    safetensors.torch.save_file(weights, tmp_path / "model.pth")
    with pytest.raises(BundleError):
        converters.look(tmp_path / "model.pth")


def test_the_regions_take_the_mask_along_or_say_that_it_is_missing(published, tmp_path):
    said = []
    alone = converters.convert(
        published / "weights" / "model21_104class", tmp_path / "alone", work=Work(report=said.append)
    )
    assert alone.metadata.parts is None
    assert "scalp may be labelled" in said[0]
    both = converters.convert(published / "weights", tmp_path / "both", ("brain-aparc",))
    assert [(part["name"], part.get("previous")) for part in both.metadata.parts] == [
        ("mask", None),
        ("regions", "mask"),
    ]


@pytest.mark.parametrize("head", ["whole_head", "whole_head_oblique"])
def test_a_head_gets_the_publishers_labels(published, data, tmp_path, head):
    """The smallest model, in the middle of a block, as far from its borders as the network looks. test_panel_shelf.py
    has a whole head, Testing/Benchmarks/whole_heads.py all models."""
    volume = data / "volumes" / "whole_head" / "t1_whole_head.nii.gz"
    if head == "whole_head_oblique":
        volume = published / "reference" / head / "t1_whole_head_oblique.nii.gz"
    bundle = converters.convert(published / "weights" / "model5_gw_ae", tmp_path / "model")
    assert bundle.metadata.preprocessing == {"kind": "conform", "largest_component": True}
    network = build(bundle.metadata.architecture).eval()
    network.load_state_dict(bundle.load_weights())
    looks = sum(network.config.dilations)
    block = (slice(96 - looks, 136 + looks),) * 3
    voxels = read_volume(volume)
    case = ConformRecipe({"largest_component": True}).prepare(voxels.array[None], voxels.geometry)
    with torch.inference_mode():
        found = network(torch.from_numpy(case.data[(slice(None), *block)])[None]).argmax(1)[0].numpy()
    nibabel = pytest.importorskip("nibabel")
    expected = nibabel.load(published / "reference" / head / "model5_gw_ae_conformed.nii.gz").get_fdata()[block]
    inside = (slice(looks, -looks),) * 3
    assert {0, 1, 2} == set(np.unique(expected[inside]))
    assert (found[inside] != expected[inside]).mean() <= 1e-4
