"""What the user is told before a run, and what is refused: without torch."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from bundles import METADATA, plan
from usema.errors import InputError
from usema.inference import checks
from usema.models.bundle import read_bundle
from usema.models.metadata import ModelMetadata
from usema.resources import bundled_models
from usema.volumes.geometry import Geometry
from usema.volumes.volume import Volume, read_volume

EYE = (1, 0, 0, 0, 1, 0, 0, 0, 1)
WEIGHTS = {"file": "weights.safetensors", "sha256": "0" * 64, "bytes": 1000, "dtype": "float16"}


def metadata(**changes) -> ModelMetadata:
    document = {**METADATA, "preprocessing": plan(), "schema_version": 3, "weights": WEIGHTS, **changes}
    return ModelMetadata.from_dict(document)


def grid(size=(40, 50, 40), spacing=(1, 1, 1)) -> Geometry:
    return Geometry(size, spacing, (0, 0, 0), EYE)


def found(described: ModelMetadata, geometry: Geometry, intensities=(0, 100)) -> dict[str, str]:
    sentences = checks.findings(described, geometry, intensities)
    assert len({one.kind for one in sentences}) == len(sentences), "one fact, one sentence"
    assert {one.kind for one in sentences} <= set(checks.KINDS)
    return {one.kind: one.message for one in sentences}


@pytest.mark.parametrize(
    ("spacing", "words"),
    [
        ((4, 1, 1), "The spacing along x is 4 mm; the model was trained on 0.8 to 1.2 mm."),
        ((4, 4, 1), "The spacing along x and y is 4 mm; the model was trained on 0.8 to 1.2 mm."),
        (
            (4, 4, 5),
            "along x, y and z is 4, 4 and 5 mm; the model was trained on 0.8 to 1.2, 0.8 to 1.2 and 0.8 to 1.5",
        ),
    ],
)
def test_one_fact_about_spacing_is_one_sentence_whatever_the_axes(spacing, words):
    assert words in found(metadata(), grid(spacing=spacing))["spacing"]


def test_a_volume_like_those_of_the_training_brings_no_word():
    assert found(metadata(expected_extent_mm={"min": [30, 40, 30], "max": [40, 60, 45]}), grid()) == {}


def test_a_whole_head_for_a_model_of_crops_is_told_with_both_extents():
    bundled = replace(read_bundle(bundled_models()["hippocampus-mr"]).metadata, find_regions=None)
    head = found(bundled, Geometry((181, 217, 181), (1, 1, 1), (0, 0, 0), EYE))
    assert set(head) == {checks.EXTENT}
    assert "181 x 217 x 181 mm" in head["extent"]
    assert "31 to 42 x 41 to 59 x 24 to 47 mm" in head["extent"]
    assert bundled.anatomy in head["extent"]


def test_a_model_that_finds_its_regions_takes_a_whole_head_and_is_not_for_a_whole_body():
    bundled = read_bundle(bundled_models()["hippocampus-mr"]).metadata
    assert found(bundled, Geometry((181, 217, 181), (1, 1, 1), (0, 0, 0), EYE)) == {}
    body = found(bundled, Geometry((200, 200, 350), (2, 2, 1), (0, 0, 0), EYE))
    assert "400 x 400 x 350 mm, far more than the model is for" in body["extent"]
    assert "A whole head has up to 320 mm: is the spacing right? Else cut it to that first." in body["extent"]


def test_lengths_are_compared_along_the_models_own_axes():
    described = metadata(expected_extent_mm={"min": [10, 10, 100], "max": [20, 20, 200]})
    along_z = Geometry((20, 20, 200), (1, 1, 1), (0, 0, 0), EYE)
    along_x = along_z.moved(along_z.moves_to("SLP"))
    assert along_x.size == (200, 20, 20)
    assert found(described, along_z) == found(described, along_x) == {}


def test_real_crops_bring_no_word_about_their_extent(data):
    bundled = read_bundle(bundled_models()["hippocampus-mr"]).metadata
    for number in ("001", "003", "004"):
        path = data / f"nnUNet_raw/Dataset004_Hippocampus/imagesTr/hippocampus_{number}_0000.nii.gz"
        assert checks.EXTENT not in found(bundled, read_volume(path).geometry)


def test_memory_that_does_not_suffice_is_refused_with_both_numbers():
    size = (512, 512, 900)
    with pytest.raises(InputError, match=r"at least 2\.3 GiB are needed, 2\.0 GiB are free"):
        checks.check_memory(metadata(), size[::-1], (1, 1, 1), free=2 * 2**30)
    checks.check_memory(metadata(), size[::-1], (1, 1, 1), free=5 * 2**30)
    with pytest.raises(InputError, match=r"Without keeping the probabilities 2\.3 GiB suffice"):
        checks.check_memory(metadata(), size[::-1], (1, 1, 1), probabilities=True, free=5 * 2**30)


def test_what_is_needed_grows_with_the_models_voxels_channels_and_labels():
    shape, spacing = (100, 200, 200), (1.0, 1.0, 1.0)
    usual = checks.needed_bytes(metadata(), shape, spacing)
    assert usual > 4 * 2 * 4_000_000  # the volume in single precision, before and after resampling
    fine = checks.needed_bytes(metadata(preprocessing={**plan(), "spacing": [0.5] * 3}), shape, spacing)
    assert fine - usual > 4 * 7 * 4_000_000
    two = metadata(channels=[{"name": "a"}, {"name": "b"}], preprocessing=plan(2))
    assert checks.needed_bytes(two, shape, spacing) - usual == 4 * 2 * 4_000_000
    many = [{**METADATA["labels"][0], "value": i, "name": str(i)} for i in range(1, 101)]
    assert checks.needed_bytes(metadata(labels=many), shape, spacing) > usual + 4 * 90 * 4_000_000 // 10


def test_the_check_needs_neither_torch_nor_a_loaded_model():
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from usema.inference import checks; from usema.models.bundle import read_bundle\n"
        "from usema.resources import bundled_models; from usema.volumes.geometry import Geometry\n"
        "metadata = read_bundle(bundled_models()['hippocampus-mr']).metadata\n"
        "head = Geometry((181, 217, 181), (2, 2, 2), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))\n"
        "print([finding.kind for finding in checks.findings(metadata, head, (0, 1))])\n"
        "checks.check_memory(metadata, head.shape, head.spacing_zyx)\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=280)
    assert run.stdout == "['extent']\n", run.stderr


def test_the_number_of_volumes_is_the_models():
    volume = Volume(np.random.default_rng(0).normal(size=(40, 50, 40)).astype(np.float32), grid())
    assert checks.check_case(metadata(), [volume]) == []
    with pytest.raises(InputError, match=r"takes 1 volume\(s\) \(T1\), not 2"):
        checks.check_case(metadata(), [volume, volume])
