"""`usema adapt` as a user types it: what comes of corrected slices, what is kept of it, what is refused."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import SimpleITK as sitk
from bundles import write_tiny_bundle
from cli_cases import said, usema
from usema.resources import sample_volume
from usema.volumes.volume import load_volume


@pytest.fixture
def corrected(tmp_path, small_volume):
    """A label map of the volume, all of it the second label."""
    image = sitk.ReadImage(str(small_volume))
    labels = sitk.GetImageFromArray(np.full(image.GetSize()[::-1], 2, np.uint8))
    labels.CopyInformation(image)
    sitk.WriteImage(labels, str(tmp_path / "corrected.nii.gz"))
    return tmp_path / "corrected.nii.gz"


def test_corrected_slices_are_kept_the_rest_follows_and_what_was_learned_can_be_given_to_segment(
    tmp_path, small_volume, corrected, model
):
    output, delta = tmp_path / "new" / "result.seg.nrrd", tmp_path / "case.safetensors"
    result = usema(
        "adapt",
        small_volume,
        corrected,
        "--slices",
        "4, 19",
        "-o",
        output,
        "--model",
        model,
        "--save-delta",
        delta,
        "--way",
        "learned",
    )
    assert result.exit_code == 0, result.output
    assert "The model learned from 2 corrected slices." in said(result)
    labels = load_volume(output).array
    assert (labels[[4, 19]] == 2).all()
    header = output.read_bytes()[:20_000].decode("latin1")
    assert "adaptation" in header
    assert "axis 0: 4, 19" in header

    own, learned = tmp_path / "own.nii.gz", tmp_path / "learned.nii.gz"
    assert usema("segment", small_volume, "-o", own, "--model", model).exit_code == 0
    again = usema("segment", small_volume, "-o", learned, "--model", model, "--delta", delta)
    assert again.exit_code == 0, again.output
    assert (load_volume(learned).array == 2).sum() > (load_volume(own).array == 2).sum()

    other = write_tiny_bundle(tmp_path / "other", version="9.0.0").path  # of the same weights
    assert (
        usema("segment", small_volume, "-o", tmp_path / "o.nii.gz", "--model", other, "--delta", delta).exit_code == 0
    )
    refused = usema("segment", small_volume, "-o", tmp_path / "p.nii.gz", "--delta", delta)
    assert refused.exit_code == 1
    assert "belongs to other weights" in said(refused)


def test_what_changed_since_the_models_own_result_stays(tmp_path, small_volume, corrected, model):
    before = sitk.ReadImage(str(corrected))
    voxel = (3, 5, 11)  # x, y, z
    before[voxel] = 1
    sitk.WriteImage(before, str(tmp_path / "before.nii.gz"))
    output = tmp_path / "result.nii.gz"
    result = usema(
        "adapt", small_volume, corrected, "--slices", "x:20", "-o", output, "--model", model,
        "--before", tmp_path / "before.nii.gz", "--way", "carried", "--save-delta", tmp_path / "none.safetensors",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    labels = load_volume(output).array
    assert labels[voxel[::-1]] == 2
    assert (labels[:, :, 20] == 2).all()
    assert "Nothing was learned" in said(result)
    assert not (tmp_path / "none.safetensors").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--slices", "4;5"], "'4;5' is no slice"),
        (["--slices", "4,99"], "There is no slice 99 along z. Along z there are 24: 0 to 23."),
        (["--slices", "4,x:99"], "There is no slice 99 along x. Along x there are "),
        (["--slices", "4,y:99"], "There is no slice 99 along y. Along y there are "),
        (["--slices", "4", "-o", "result.dcm"], "Name it .seg.nrrd, .nii.gz, .nii, .nrrd or .mha."),
        (["--slices", "4", "-o", "result"], "Name it .seg.nrrd, .nii.gz, .nii, .nrrd or .mha."),
        (["--slices", "4", "--minutes", "nan"], "nan minutes are no time to learn in"),
        (["--slices", "4", "--minutes", "-1"], "-1 minutes are no time to learn in"),
        (["--slices", "4", "--seed", "99999999999999999999"], "99999999999999999999 is no seed"),
        (["--slices", "4", "--seed", "-1"], "-1 is no seed"),
        (["--slices", "4", "--minutes", "0", "--way", "learned"], "would take about"),
        (["--slices", "4", "--device", "abacus"], "'abacus' is not a device"),
    ],
)
def test_what_cannot_be_done_is_refused(tmp_path, small_volume, corrected, model, change, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = usema("adapt", small_volume, corrected, "-o", "result.nii.gz", "--model", model, *change)
    assert result.exit_code == 1
    assert message in said(result)
    assert not list(tmp_path.glob("result*"))


@pytest.mark.parametrize("name", ["corrected.nii.gz", "before.nii.gz"])
def test_what_the_user_drew_is_never_replaced_also_not_with_overwrite(tmp_path, small_volume, corrected, model, name):
    before = tmp_path / "before.nii.gz"
    before.write_bytes(corrected.read_bytes())
    drawn, places = corrected.read_bytes(), ["--slices", "4", "--before", before, "-o", tmp_path / "." / name]
    result = usema("adapt", small_volume, corrected, *places, "--model", model, "--way", "carried", "--overwrite")
    assert result.exit_code == 1
    assert "would replace its input" in said(result)
    assert corrected.read_bytes() == before.read_bytes() == drawn


@pytest.mark.parametrize("name", ["corrected.nii.gz", "result.nii.gz", "model/weights.safetensors"])
def test_what_was_learned_never_replaces_a_volume_a_result_or_the_model(tmp_path, small_volume, corrected, model, name):
    shutil.copytree(model, tmp_path / "model")
    delta = tmp_path / name
    before = delta.read_bytes() if delta.exists() else None
    arguments = ["--model", tmp_path / "model", "--way", "learned", "--save-delta", delta, "--overwrite"]
    result = usema("adapt", small_volume, corrected, "--slices", "4", "-o", tmp_path / "result.nii.gz", *arguments)
    assert result.exit_code == 1
    assert "Let it end with .safetensors" in said(result) or "would replace its input" in said(result)
    assert not (tmp_path / "result.nii.gz").exists()
    assert before is None or delta.read_bytes() == before


@pytest.fixture
def two_slices(tmp_path):
    """The sample as the bundled model has it, with corrections on the slices 12 and 20; and without them."""
    own, corrected = tmp_path / "own.nii.gz", tmp_path / "two.nii.gz"
    assert usema("segment", sample_volume(), "-o", own).exit_code == 0
    image = sitk.ReadImage(str(own))
    for index in (12, 20):
        image[:, :, index] = sitk.BinaryDilate(image[:, :, index] > 0, (1, 1))
    sitk.WriteImage(image, str(corrected))
    return corrected, own


@pytest.mark.parametrize("way", ["auto", "learned"])
def test_corrections_on_other_slices_than_those_named_are_never_lost_without_a_word(tmp_path, two_slices, way):
    corrected, own = two_slices
    output = tmp_path / "result.nii.gz"

    def adapted(*arguments):
        return usema("adapt", sample_volume(), corrected, "-o", output, "--way", way, *arguments)

    wrong = adapted("--slices", "13,21")
    assert wrong.exit_code == 1
    assert "on slices 13, 21 all is as the model has it, and what is not lies on slices 12, 20." in said(wrong)
    assert "Name the slices that you corrected" in said(wrong)
    assert not output.exists()

    one = adapted("--slices", "12")
    assert one.exit_code == 0, one.output
    assert "On slice 20, which you did not name" in said(one)

    for arguments in (["--slices", "12,20"], ["--slices", "13,21", "--before", own]):
        result = adapted(*arguments, "--overwrite")
        assert result.exit_code == 0, result.output
        assert "did not name" not in said(result)
        kept, drawn = load_volume(output).array, load_volume(corrected).array
        np.testing.assert_array_equal(kept[[12, 20]][drawn[[12, 20]] > 0], drawn[[12, 20]][drawn[[12, 20]] > 0])


def test_a_delta_that_is_none_is_refused_before_anything_is_read(tmp_path, small_volume, corrected, model):
    result = usema("segment", small_volume, "-o", tmp_path / "r.nii.gz", "--model", model, "--delta", corrected)
    assert result.exit_code == 1
    assert "cannot be read" in said(result)
