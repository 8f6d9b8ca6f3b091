"""A head comes onto the conformed grid as its publishers' program puts it there, and labels come back."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from usema.inference.conform import SIDE, conform, hounsfield_to_cormack, normalised_by_quantiles
from usema.inference.conform_recipe import ConformRecipe
from usema.volumes.geometry import Geometry
from usema.volumes.volume import read_volume

HEADS = {
    "whole_head": "volumes/whole_head/t1_whole_head.nii.gz",
    "whole_head_oblique": "public_models/brainchop/reference/whole_head_oblique/t1_whole_head_oblique.nii.gz",
}


@pytest.fixture(scope="module")
def reference(data) -> dict:
    path = data / "public_models" / "brainchop" / "reference" / "reference.json"
    return json.loads(path.read_text("utf-8"))


@pytest.mark.parametrize("head", HEADS)
def test_the_conformed_image_is_the_publishers(data, reference, head):
    volume = read_volume(data / HEADS[head])
    conformed = conform(volume.array, volume.geometry)
    expected = reference["conform"][head]
    if head == "whole_head":  # on the oblique one, single precision there rounds 600 voxels to the next grey level
        assert hashlib.sha256(conformed.image.tobytes()).hexdigest() == expected["sha256_of_uint8_ijk_C_order"]
    assert conformed.image.mean() == pytest.approx(expected["mean"], abs=1e-4)
    assert np.quantile(conformed.image, (0.02, 0.98)).tolist() == [expected["q02"], expected["q98"]]
    assert conformed.cut_off_mm == 0


def test_labels_come_back_onto_the_volumes_own_grid_as_the_publishers_do(data):
    nibabel = pytest.importorskip("nibabel")
    folder = data / "public_models" / "brainchop" / "reference" / "whole_head_oblique"
    volume = read_volume(data / HEADS["whole_head_oblique"])
    conformed = conform(volume.array, volume.geometry)
    for model in ("mindgrab", "model18cls", "model5_gw_ae"):
        labels = np.asarray(nibabel.load(folder / f"{model}_conformed.nii.gz").dataobj)
        expected = read_volume(folder / f"{model}_native.nii.gz").array
        differing = np.count_nonzero(conformed.labels_on_input(labels) != expected)
        assert differing <= 1e-4 * np.count_nonzero(expected), f"{model}: {differing} voxels"


def test_a_volume_beyond_the_grid_says_by_how_much():
    geometry = Geometry((10, 300, 10), (1, 1, 1), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    conformed = conform(np.ones((10, 300, 10), np.int16), geometry)
    assert conformed.cut_off_mm == 300 - SIDE


@pytest.mark.parametrize(("step", "told"), [(1.5, []), (1.52, ["4 mm"])])  # 171 voxels: 256.5 and 259.9 mm
def test_less_than_a_millimetre_beyond_the_grid_is_not_told(step, told):
    geometry = Geometry((10, 171, 10), (1, step, 1), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    image = np.arange(17100, dtype=np.int16).reshape(1, 10, 171, 10)
    notes = ConformRecipe({}).prepare(image, geometry).notes
    assert [words in note for words, note in zip(told, notes, strict=True)] == [True] * len(told)


def test_quantiles_become_zero_and_one():
    image = np.arange(256, dtype=np.uint8).repeat(10)
    normalised = normalised_by_quantiles(image)
    assert normalised.dtype == np.float32
    assert normalised.min() == 0
    assert normalised.max() == pytest.approx(1, abs=1e-4)
    assert normalised_by_quantiles(np.full((4, 4), 7, np.uint8)).tolist() == np.zeros((4, 4)).tolist()


def test_hounsfield_units_are_stretched_where_soft_tissue_lies():
    units = np.array([-2000, -1000, -100, 0, 100, 300], np.float32)
    assert hounsfield_to_cormack(units).tolist() == [0, 0, 900, 1900, 2900, 3100]
