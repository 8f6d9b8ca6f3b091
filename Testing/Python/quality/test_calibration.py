"""Calibration: the measures against their definitions, the temperature against known ones, and the real model."""

from __future__ import annotations

import errno
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from bundles import METADATA, weights, write_crop_model, write_tiny_bundle
from click.testing import CliRunner
from usema.cli import main
from usema.errors import BundleError, InputError, OutputError
from usema.inference.predictor import Predictor
from usema.models.bundle import METADATA_FILE, WEIGHTS_FILE, read_bundle
from usema.models.bundle_writing import change_metadata, write_bundle
from usema.quality.calibration import BINS, Reliability, Voxels, calibrate, fit_temperature, write_plot
from usema.quality.calibration_voxels import LOGIT_TEMPERATURE, near_foreground, read_voxels
from usema.quality.labelled_cases import find_cases
from usema.store.install import install_file
from usema.volumes.volume import load_volume, read_volume


def usema(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


# Measures and fit, on voxels whose true probabilities are known


def calibrated_voxels(seed: int, n: int = 40_000, classes: int = 4) -> Voxels:
    """Labels drawn with the very probabilities that the logits stand for."""
    rng = np.random.default_rng(seed)
    logits = 3 * rng.normal(size=(n, classes))
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)  # Gumbel-max: a draw from the softmax
    return Voxels(logits.astype(np.float32), labels)


@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_the_measures_are_their_definitions_however_voxels_arrive(temperature):
    voxels = calibrated_voxels(0, n=3000)
    state = Reliability()
    for part in np.array_split(np.arange(3000), 7):
        state.add(Voxels(voxels.logits[part], voxels.labels[part]), temperature)

    logits, labels = torch.from_numpy(voxels.logits).double() / temperature, torch.from_numpy(voxels.labels)
    probabilities = logits.softmax(dim=1)
    confidence, likeliest = probabilities.max(dim=1)
    error = 0.0
    for m in range(BINS):
        inside = (confidence > m / BINS) & (confidence <= (m + 1) / BINS)
        assert state.counts[m] == inside.sum()
        if inside.any():
            accuracy = (likeliest == labels)[inside].double().mean().item()
            assert state.accuracy[m] == pytest.approx(accuracy)
            assert state.confidence[m] == pytest.approx(confidence[inside].mean().item())
            error += inside.double().mean().item() * abs(accuracy - confidence[inside].mean().item())
    assert state.voxels == 3000
    assert state.ece == pytest.approx(error)
    assert state.nll == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item())
    one_hot = torch.nn.functional.one_hot(labels, 4)
    assert state.brier == pytest.approx(((probabilities - one_hot) ** 2).sum(dim=1).mean().item())


@pytest.mark.parametrize("factor", [1.0, 3.0, 0.4])
def test_the_temperature_undoes_what_the_logits_were_multiplied_by(factor):
    cases = [calibrated_voxels(seed) for seed in range(4)]
    result = calibrate([Voxels(case.logits * np.float32(factor), case.labels) for case in cases])
    assert result.temperature == pytest.approx(factor, rel=0.02)
    assert result.halves == pytest.approx((factor, factor), rel=0.03)
    assert result.after.ece < 0.005
    if factor == 1:
        assert result.before.ece < 0.005
    else:
        assert result.before.ece > 0.05
        assert result.after.nll < result.before.nll


def test_no_case_is_judged_with_a_temperature_that_it_helped_to_find():
    """Two halves that want different temperatures: each is measured with the other's."""
    calm, loud = calibrated_voxels(0), calibrated_voxels(1)
    loud = Voxels(loud.logits * 4, loud.labels)
    result = calibrate([calm, loud])
    expected = Reliability()
    expected.add(calm, fit_temperature([loud]))
    expected.add(loud, fit_temperature([calm]))
    assert result.after.nll == expected.nll
    assert result.after.ece == expected.ece
    assert result.halves == pytest.approx((1, 4), rel=0.03)


def test_what_cannot_be_fitted_is_refused():
    case, empty = calibrated_voxels(0, 1000), Voxels(np.zeros((0, 4), np.float32), np.zeros(0, int))
    with pytest.raises(InputError, match="and has 1"):
        calibrate([case, empty])
    never_wrong = Voxels(case.logits, case.logits.argmax(axis=1))
    with pytest.raises(InputError, match=r"between 0\.05 and 20 fits: the best is at 0\.05"):
        calibrate([never_wrong, never_wrong])


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (4.0, 1.5, 0.9)], ids=str)
def test_the_region_is_all_within_5_mm(spacing):
    mask = np.zeros((9, 20, 24), bool)
    mask[3:5, 2:9, 10] = mask[8, 19, 23] = True
    points = np.argwhere(np.ones_like(mask)) * spacing
    distances = np.linalg.norm(points[:, None] - (np.argwhere(mask) * spacing)[None], axis=2).min(axis=1)
    np.testing.assert_array_equal(near_foreground(mask, spacing), (distances <= 5).reshape(mask.shape))
    assert not near_foreground(np.zeros_like(mask), spacing).any()


# The bundle


def test_keys_are_changed_and_all_else_stays(tmp_path):
    bundle = write_bundle(tmp_path / "model", METADATA, weights())
    before = json.loads((bundle.path / METADATA_FILE).read_text())
    state = (bundle.path / WEIGHTS_FILE).read_bytes()
    inference = {"mirror_axes": [], "temperature": 1.25}
    changed = change_metadata(bundle, inference=inference)
    after = json.loads((bundle.path / METADATA_FILE).read_text())
    assert after == {**before, "schema_version": 2, "inference": inference}
    assert list(after) == list(before)
    assert changed.metadata.inference == read_bundle(bundle.path).metadata.inference == inference
    assert (bundle.path / WEIGHTS_FILE).read_bytes() == state
    assert sorted(path.name for path in bundle.path.iterdir()) == [METADATA_FILE, WEIGHTS_FILE]


def test_a_bundle_that_cannot_be_changed_stays_as_it_was(tmp_path, monkeypatch):
    bundle = write_bundle(tmp_path / "model", METADATA, weights())
    before = (bundle.path / METADATA_FILE).read_bytes()
    with pytest.raises(BundleError, match=r"inference\.temperature is -1, less than"):
        change_metadata(bundle, inference={"mirror_axes": [], "temperature": -1})
    zipped = shutil.make_archive(str(tmp_path / "model"), "zip", bundle.path)
    with pytest.raises(BundleError, match=r"model\.zip is no folder"):
        change_metadata(read_bundle(zipped), version="2.0.0")

    def fails(path, target):
        raise OSError(errno.EIO, "disk failure", str(path))

    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(OutputError, match="disk failure"):
        change_metadata(bundle, version="2.0.0")
    assert (bundle.path / METADATA_FILE).read_bytes() == before
    assert sorted(path.name for path in bundle.path.iterdir()) == [METADATA_FILE, WEIGHTS_FILE]


def test_a_read_only_file_system_is_said_with_the_file_that_was_meant(tmp_path, monkeypatch):
    """There, even deleting a temporary file that was never made is an error."""
    bundle = write_bundle(tmp_path / "model", METADATA, weights())

    def refuses(path, *_, **__):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    calibration = calibrate([calibrated_voxels(0, n=1000), calibrated_voxels(1, n=1000)])
    for name in ("write_text", "replace", "unlink"):
        monkeypatch.setattr(Path, name, refuses)
    with pytest.raises(OutputError) as error:
        change_metadata(bundle, version="2.0.0")
    assert error.value.message == f"{bundle.path / METADATA_FILE} cannot be written: Read-only file system."
    assert "folder of your own" in error.value.hint
    with pytest.raises(OutputError, match=r"plot\.png cannot be written: Read-only file system"):
        write_plot(tmp_path / "plot.png", calibration, "A model")


# The real model


@pytest.fixture(scope="module")
def source(data) -> Path:
    return data / "nnUNet_raw/Dataset004_Hippocampus"


@pytest.fixture(scope="module")
def names(source) -> list[str]:
    """Four cases that training left out."""
    return sorted(json.loads((source / "splits_final.json").read_text())[0]["val"])[:4]


@pytest.fixture
def old_model(tmp_path) -> Path:
    """The bundled model as version 1 of the schema has it: without temperature."""
    model = write_crop_model(tmp_path / "hippocampus-mr").path
    document = json.loads((model / METADATA_FILE).read_text(encoding="utf-8"))
    document["inference"].pop("temperature", None)
    document.pop("expected_extent_mm", None)
    document["schema_version"] = 1
    (model / METADATA_FILE).write_text(json.dumps(document, indent=2, ensure_ascii=False), encoding="utf-8")
    return model


def test_the_temperature_changes_probabilities_and_no_label(old_model, source, names):
    volume = read_volume(source / "imagesTr" / f"{names[0]}_0000.nii.gz")
    plain_bundle = read_bundle(old_model)
    plain = Predictor(plain_bundle, "cpu").segment(volume, probabilities=True)
    inference = {**plain_bundle.metadata.inference, "temperature": 2.5}
    soft = Predictor(change_metadata(plain_bundle, inference=inference), "cpu").segment(volume, probabilities=True)
    np.testing.assert_array_equal(soft.labels, plain.labels)
    assert (plain.provenance["temperature"], soft.provenance["temperature"]) == ("1", "2.5")

    # Where nothing was rounded to zero, p ** (1 / T), made to sum to one, is the softmax of the logits over T.
    known = plain.probabilities.min(axis=0) > 1e-5
    assert known.sum() > 1000
    powers = plain.probabilities[:, known].astype(np.float64) ** (1 / 2.5)
    np.testing.assert_allclose(soft.probabilities[:, known], powers / powers.sum(axis=0), atol=2e-3)
    assert soft.max_foreground_probability == pytest.approx(soft.probabilities[1:].max(), abs=1e-3)
    assert soft.max_foreground_probability < plain.max_foreground_probability


def test_logits_survive_half_precision(old_model, source, names):
    """The voxels' logits, taken at the high temperature, give the probabilities of temperature 1 back."""
    predictor = Predictor(read_bundle(old_model), "cpu")
    case = find_cases(source / "imagesTr", source / "labelsTr", 1, source / "splits_final.json")[0]
    assert case.name == names[0]
    direct, _ = read_voxels(predictor, case)
    predictor.temperature = LOGIT_TEMPERATURE
    voxels, _ = read_voxels(predictor, case)
    np.testing.assert_array_equal(voxels.labels, direct.labels)
    both = [torch.from_numpy(each.logits).softmax(dim=1).numpy() for each in (voxels, direct)]
    np.testing.assert_allclose(*both, atol=1e-3)
    assert np.ptp(voxels.logits, axis=1).max() < 66  # none was rounded to zero


def test_the_command_calibrates_the_model_on_cases_left_out(old_model, source, names, tmp_path):
    split = tmp_path / "splits.json"
    split.write_text(json.dumps([{"train": [], "val": []}, {"train": [], "val": names}]))
    before = json.loads((old_model / METADATA_FILE).read_text(encoding="utf-8"))
    state = (old_model / WEIGHTS_FILE).read_bytes()
    arguments = ("calibrate", old_model, source / "imagesTr", source / "labelsTr", "--split", split, "--fold", 1)
    plot = tmp_path / "reliability.png"

    result = usema(*arguments, "--device", "cpu", "--plot", plot)
    assert result.exit_code == 0, result.output
    assert "expected calibration error" in result.output
    after = json.loads((old_model / METADATA_FILE).read_text(encoding="utf-8"))
    found = after["metrics"].pop("calibration")
    temperature = after["inference"].pop("temperature")
    assert f"inference.temperature none -> {temperature}" in result.output
    before["metrics"].pop("calibration", None)
    assert after == {**before, "schema_version": 2}
    assert (old_model / WEIGHTS_FILE).read_bytes() == state
    assert (found["cases"], found["left_out"]) == (4, False)  # of a split that is not the training's
    assert "5 mm" in found["region"]
    assert 1 < temperature < 5  # networks are too sure of themselves
    assert found["ece_with_temperature"] < found["ece"]
    assert found["nll_with_temperature"] < found["nll"]
    assert sitk.ReadImage(str(plot)).GetSize() > (800, 500)

    text = (old_model / METADATA_FILE).read_bytes()
    refused = usema(*arguments, "--dry-run", "--plot", plot)
    assert refused.exit_code == 1
    assert "reliability.png exists" in refused.output
    again = usema(*arguments, "--device", "cpu", "--dry-run")
    assert f"Would change in {old_model}: inference.temperature {temperature} -> {temperature}" in again.output
    assert (old_model / METADATA_FILE).read_bytes() == text


# Bad input


@pytest.fixture
def folders(source, names, tmp_path) -> tuple[Path, Path, Path]:
    """A tiny bundle, and images and labels of two cases."""
    images, labels = tmp_path / "images", tmp_path / "labels"
    images.mkdir()
    labels.mkdir()
    for name in names[:2]:
        shutil.copy(source / "imagesTr" / f"{name}_0000.nii.gz", images)
        shutil.copy(source / "labelsTr" / f"{name}.nii.gz", labels)
    return write_tiny_bundle(tmp_path / "tiny").path, images, labels


def other_label(model, images, labels):
    path = min(labels.iterdir())
    volume = load_volume(path)
    volume.array[0, 0, 0] = 7
    sitk.WriteImage(volume.to_image(), str(path))


def other_grid(model, images, labels):
    path = min(labels.iterdir())
    image = sitk.ReadImage(str(path))
    image.SetSpacing((1.0, 1.0, 1.2))
    sitk.WriteImage(image, str(path))


def splits(content):
    def write(model, images, labels):
        (labels.parent / "splits.json").write_text(json.dumps(content))

    return write


BAD = {
    "no labels": (lambda model, images, labels: [path.unlink() for path in labels.iterdir()], "holds no label maps"),
    "no folder": (lambda model, images, labels: shutil.rmtree(labels), "labels is not a folder"),
    "no image": (lambda model, images, labels: min(images.iterdir()).unlink(), "has no image hippocampus_.*_0000"),
    "one case": (lambda model, images, labels: min(labels.iterdir()).unlink(), "and has 1"),
    "another label": (other_label, "has the label 7, and the model 'hippocampus-mr' knows 0 to 2"),
    "another grid": (other_grid, "lie on different grids"),
    "no split": (splits({"val": 3}), "is not a list of folds"),
    "no such fold": (splits([{"train": [], "val": ["a"]}]), "has 1 folds, and no fold 3"),
    "an empty fold": (splits([{"train": [], "val": []}] * 4), "Fold 3 of .* has no validation cases"),
    "unknown cases": (splits([{"train": [], "val": ["x", "y"]}] * 4), "has no labels of x, y"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_refused_by_name_and_the_bundle_stays(what, folders):
    model, images, labels = folders
    spoil, message = BAD[what]
    spoil(*folders)
    before = (model / METADATA_FILE).read_bytes()
    split = labels.parent / "splits.json"
    options = ("--split", split, "--fold", 3) if split.exists() else ()
    result = usema("calibrate", model, images, labels, "--device", "cpu", *options)
    assert result.exit_code == 1
    assert re.search(message, result.output), result.output
    assert (model / METADATA_FILE).read_bytes() == before


def test_a_model_by_its_name_is_measured_and_not_changed_and_its_copy_is(folders, old_model, tmp_path, monkeypatch):
    _, images, labels = folders
    installed = install_file(change_metadata(read_bundle(old_model), name="mine").path).path
    before = {path.name: path.read_bytes() for path in installed.iterdir()}
    cases = ("--images", images, "--labels", labels)
    for command in (("calibrate", "mine", images, labels), ("card", "mine", *cases), ("card", "mine")):
        result = usema(*command)
        assert result.exit_code == 1
        assert f"Copy {installed} to a folder of your own" in result.output
    measured = usema("calibrate", "mine", images, labels, "--device", "cpu", "--dry-run")
    assert f"Would change in {installed}" in measured.output
    assert {path.name: path.read_bytes() for path in installed.iterdir()} == before
    assert usema("models", "verify").exit_code == 0

    monkeypatch.chdir(tmp_path)
    shutil.copytree(installed, "mine")
    copied = usema("calibrate", "./mine", images, labels, "--device", "cpu")
    assert "Changed in mine: inference.temperature" in copied.output
