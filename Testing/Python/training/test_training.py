"""Training inside nnU-Net on real cases, for as short as it goes: train, resume, export, segment."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import SimpleITK as sitk
import torch
from click.testing import CliRunner
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from trainings import CASES, in_this_process, make_dataset, plan_only, step
from usema.cli import main
from usema.errors import InputError
from usema.models.bundle import read_bundle
from usema.networks import build
from usema.quality.labelled_cases import describe_cases, names_sha256
from usema.resources import bundled_models
from usema.training import further_2d, neighbours, robust, robust_2d, trainers
from usema.training import run as training
from usema.training.export import export_bundle
from usema.training.run import train_dataset
from usema.training.starting import check_start
from usema.training.trainers import nnUNetTrainerUSEMA, nnUNetTrainerUSEMASmall
from usema.volumes.volume import load_volume, read_volume

pytestmark = pytest.mark.slow(2)  # real trainings


def epochs_logged(results: Path) -> list[int]:
    logs = sorted((results / "fold_0").glob("training_log_*.txt"))
    return [int(number) for log in logs for number in re.findall(r": Epoch (\d+)", log.read_text())]


IN_2D = {"configuration": "2d", "trainer": "nnUNetTrainerUSEMASmall", "device": "cpu"}


@pytest.fixture(scope="module")
def planned(data, tmp_path_factory):
    """A data set, and where nnU-Net would put what it trains on it; in batches of 4: the plan's 32 take long."""
    folder = tmp_path_factory.mktemp("training")
    dataset = make_dataset(data, folder / "raw")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_run", plan_only)
        results = train_dataset(dataset, folder / "runs", **IN_2D)
    path = folder / "runs/preprocessed" / dataset.name / "nnUNetPlans.json"
    plans = json.loads(path.read_text())
    plans["configurations"]["2d"]["batch_size"] = 4
    path.write_text(json.dumps(plans))
    return dataset, results


@pytest.fixture(scope="module")
def trained(planned):
    """One epoch in 2D, in processes of nnU-Net's own, then the same command with a larger budget."""
    dataset, results = planned
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_n_proc_DA", "1")
        patch.setenv("USEMA_THREADS", "1")
        patch.setenv("nnUNet_def_n_proc", "1")  # of its validation
        train_dataset(dataset, results.parents[2], iterations=6, **IN_2D)
        first = epochs_logged(results)
        spent = float(re.findall(r"Epoch time: ([\d.]+)", next((results / "fold_0").glob("*.txt")).read_text())[-1])
        patch.setattr(training, "_run", in_this_process)
        patch.setenv("nnUNet_n_proc_DA", "0")  # no process for samples
        begin = nnUNetTrainerUSEMA.initialize

        def begin_short(trainer) -> None:
            trainer.num_iterations_per_epoch = 6  # as before, in place of the recipe's 50
            begin(trainer)

        patch.setattr(nnUNetTrainerUSEMA, "initialize", begin_short)
        train_dataset(dataset, results.parents[2], minutes=(spent + 0.2) / 60, **IN_2D)
    return dataset, results, first


def test_training_follows_its_time_budget_and_resumes(trained):
    _, results, first = trained
    assert first == [0]
    assert epochs_logged(results) == [0, 1]
    assert (results / "fold_0/validation/summary.json").is_file()
    assert (results / "fold_0/progress.png").is_file()


def test_the_picture_of_the_progress_is_drawn_first_and_last_and_seldom_between(monkeypatch):
    now, drawn = 1000.0, []
    monkeypatch.setattr(trainers.time, "monotonic", lambda: now)
    trainer = SimpleNamespace(current_epoch=0, num_epochs=6)
    draw = nnUNetTrainerUSEMA._seldom(trainer, lambda folder: drawn.append(trainer.current_epoch))
    for trainer.current_epoch in range(6):
        draw("results")
        now += 0.4 * trainers.SECONDS_BETWEEN_PICTURES
    assert drawn == [0, 3, 5]


def test_an_export_is_a_bundle_that_segments(trained, tmp_path):
    dataset, results, _ = trained
    run = CliRunner().invoke(main, ["export", str(results), "-o", str(tmp_path / "bundle"), "--dataset", str(dataset)])
    assert run.exit_code == 0, run.output
    metadata = read_bundle(tmp_path / "bundle").metadata
    assert metadata.orientation == "RAS"
    assert metadata.expected_spacing_mm == {"min": [1.0] * 3, "max": [1.0] * 3}
    assert metadata.training["iterations"] == 12
    assert metadata.training["cases"] == 4
    names = [f"hippocampus_{case}" for case in CASES]
    hashes = [metadata.training[key] for key in ("cases_sha256", "validation_cases_sha256")]
    assert hashes == [names_sha256(names[:4]), names_sha256(names[4:])]
    split = dataset / "splits_final.json"
    assert describe_cases(metadata, dataset / "imagesTr", split, 0)[1]
    assert metadata.expected_extent_mm["min"] == [34.0, 47.0, 28.0]
    assert set(metadata.metrics["validation"]["dice"]) == {"Anterior", "Posterior"}
    assert metadata.inference["mirror_axes"] == []

    image = dataset / "imagesTr/hippocampus_011_0000.nii.gz"
    arguments = ["segment", str(image), "-o", str(tmp_path / "a.nii.gz"), "--model", str(tmp_path / "bundle")]
    run = CliRunner().invoke(main, arguments)
    assert run.exit_code == 0, run.output
    assert load_volume(tmp_path / "a.nii.gz").geometry.same_grid(read_volume(image).geometry)


def test_the_exported_weights_are_those_of_the_checkpoint(trained, tmp_path):
    _, results, _ = trained
    bundle = export_bundle(results, tmp_path / "bundle")
    from safetensors.torch import load_file

    trained_weights = load_file(results / "fold_0/checkpoint_final.safetensors")
    network = build(bundle.metadata.architecture)
    network.load_state_dict(bundle.load_weights())
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, trained_weights[name], rtol=1e-3, atol=1e-6)  # kept in half precision


def test_only_the_final_checkpoint_is_exported_with_the_figures_that_nnunet_measured_on_it(trained, tmp_path):
    kinds = ("final", "best")
    final, best = (export_bundle(trained[1], tmp_path / kind, checkpoint=kind).metadata for kind in kinds)
    assert final.metrics["validation"]["cases"] == 2
    assert best.metrics == {}
    assert [each.training["checkpoint"] for each in (final, best)] == [
        "final",
        "best on patches of the validation cases",
    ]


def test_nnunets_own_predictor_finds_the_trainers(trained):
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(trained[1]), (0,))
    assert type(predictor.network).__name__ == "USEMA"


NEIGHBOURS = [name for name in vars(neighbours) if re.match("nnUNetTrainer(MLLA|AttentionMamba)", name)]
OWN = {**vars(robust), **vars(robust_2d), **vars(further_2d)}
ROBUST = sorted(name for name in OWN if name.startswith("nnUNetTrainerUSEMARobust"))


@pytest.fixture(scope="module")
def steps(planned) -> dict[str, dict]:
    """A step of each trainer."""
    trainers = {**vars(neighbours), **OWN}
    settings = {"USEMA_ITERATIONS": "101", "USEMA_THREADS": "1"}
    return {name: step(planned[1], trainers[name], **settings) for name in NEIGHBOURS + ROBUST}


def test_every_trainer_takes_a_step(steps):
    assert sorted(NEIGHBOURS) == sorted(training.PLAIN_LABELS_ONLY)
    assert len(ROBUST) == 9
    for name, told in steps.items():
        assert math.isfinite(told["loss"]), name
        assert told["moved"] > 0.5, name
        assert told["epochs"] == 3, name
        # A neighbour's further outputs are for training alone.
        assert told["outputs"] == (1 if name in NEIGHBOURS else 3), name


def test_the_learning_rate_falls_to_nothing_when_the_time_budget_ends(planned):
    """Ten minutes, after one epoch of a minute: ten epochs, whatever the recipe's own number is."""
    settings = {"USEMA_MINUTES": "10", "USEMA_THREADS": "1"}
    small = step(planned[1], nnUNetTrainerUSEMASmall, **settings)["rates"]
    mamba = step(planned[1], neighbours.nnUNetTrainerAttentionMamba, **settings)["rates"]
    for done, (epochs, rate) in zip((1, 9), small, strict=True):
        assert (epochs, rate) == (10, pytest.approx((1 - done / 10) ** 0.9))
    for done, (epochs, rate) in zip((1, 9), mamba, strict=True):
        cosine = (1 + math.cos(math.pi * 3 * done / 10)) / 2
        assert (epochs, rate) == (10, pytest.approx((1e-5 + (5e-4 - 1e-5) * cosine) / 5e-4))


def test_a_trainer_of_plain_labels_is_refused_for_regions_before_anything_is_planned(data, tmp_path):
    regions = {"labels": {"background": 0, "whole": [1, 2], "posterior": [2]}, "regions_class_order": [1, 2]}
    dataset = make_dataset(data, tmp_path / "raw", **regions)
    with pytest.raises(InputError, match="has regions, which the loss of nnUNetTrainerMLLAUNet does not know"):
        train_dataset(dataset, tmp_path / "runs", configuration="2d", trainer="nnUNetTrainerMLLAUNet", device="cpu")
    assert not (tmp_path / "runs").exists()


def test_each_robust_recipe_mirrors_what_its_labels_allow(steps):
    mirrored = {name: steps[name]["inference"]["mirror_axes"] for name in ROBUST}
    assert {name: "MirrorTransform" in steps[name]["transforms"] for name in ROBUST} == {
        name: bool(axes) for name, axes in mirrored.items()
    }
    assert mirrored == {
        "nnUNetTrainerUSEMARobust": [],
        "nnUNetTrainerUSEMARobust2D": [0, 1],
        "nnUNetTrainerUSEMARobust2DFinish": [0, 1],
        "nnUNetTrainerUSEMARobust2DObjects": [0, 1],
        "nnUNetTrainerUSEMARobust2DUpright": [1],
        "nnUNetTrainerUSEMARobust2DUprightDevices": [1],
        "nnUNetTrainerUSEMARobust2DUprightFinish": [1],
        "nnUNetTrainerUSEMARobustBothSides": [1],  # of (y, x)
        "nnUNetTrainerUSEMARobustMirrored": [0, 1],
    }


def test_attention_mambas_own_recipe_augments_in_space_alone(steps):
    transforms = steps["nnUNetTrainerAttentionMamba"]["transforms"]
    assert "SpatialTransform" in transforms
    assert "MirrorTransform" in transforms
    assert "RandomTransform" not in transforms


def test_a_training_starts_from_a_bundle_of_the_same_network_only(trained, tmp_path):
    bundle = export_bundle(trained[1], tmp_path / "bundle").path
    from_bundle = step(trained[1], nnUNetTrainerUSEMASmall, USEMA_START=str(bundle))
    from_nothing = step(trained[1], nnUNetTrainerUSEMASmall)
    assert from_bundle["loss"] < from_nothing["loss"] - 0.1
    assert from_bundle["training"]["started_from"] == "hippocampus 0.1.0"
    assert "started_from" not in from_nothing["training"]
    with pytest.raises(InputError, match=r"its network is another one. Of \S+, it has .+, and \w+USEMASmall ") as error:
        step(trained[1], nnUNetTrainerUSEMASmall, USEMA_START=str(bundled_models()["hippocampus-mr"]))
    assert "--trainer nnUNetTrainerUSEMARobustBothSides" in error.value.hint


def test_a_plan_takes_the_spacing_that_was_asked_for_and_no_other_one_later(data, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_run", plan_only)
    dataset = make_dataset(data, tmp_path / "raw", CASES[:3])
    request = {"configuration": "3d_fullres", "trainer": "nnUNetTrainerUSEMASmall", "device": "cpu"}
    train_dataset(dataset, tmp_path / "runs", spacing=(2.0, 1.5, 1.0), **request)
    preprocessed = tmp_path / "runs/preprocessed" / dataset.name
    plans = json.loads((preprocessed / "nnUNetPlans.json").read_text())
    planned = plans["configurations"]["3d_fullres"]["spacing"]
    assert [planned[axis] for axis in plans["transpose_backward"]] == [2.0, 1.5, 1.0]
    with pytest.raises(InputError, match=r"of \[2.0, 1.5, 1.0\] mm, not of \[2.0, 1.5, 1.5\] mm"):
        train_dataset(dataset, tmp_path / "runs", spacing=(2.0, 1.5, 1.5), **request)

    # The second configuration is planned with the first, whose voxels stay what they were.
    flat = {**request, "configuration": "2d"}
    with pytest.raises(InputError, match=r"\[2.0, 1.5, 1.0\] mm is for 3d_fullres, not for 2d"):
        train_dataset(dataset, tmp_path / "runs", spacing=(2.0, 1.5, 1.0), **flat)
    assert not (preprocessed / "nnUNetPlans_2d").exists()
    train_dataset(dataset, tmp_path / "runs", **flat)
    assert (preprocessed / "nnUNetPlans_2d").is_dir()
    assert json.loads((preprocessed / "nnUNetPlans.json").read_text())["configurations"] == plans["configurations"]


HIPPOCAMPUS = {"background": 0, "Anterior hippocampus": 1, "Posterior hippocampus": 2}
FURTHER = {"configuration": "3d_fullres", "trainer": "nnUNetTrainerUSEMARobustBothSides", "device": "cpu"}


def test_a_training_that_goes_on_is_planned_as_its_start_was_whatever_the_voxels_of_the_cases(
    data, tmp_path, monkeypatch
):
    """Smaller crops with slices of 3 mm: nnU-Net's own plan has another network, which could not take the weights."""
    monkeypatch.setattr(training, "_run", plan_only)
    dataset = make_dataset(data, tmp_path / "raw", CASES[:3], labels=HIPPOCAMPUS)
    for path in dataset.glob("*Tr/*.nii.gz"):
        image = sitk.ReadImage(str(path))[3:-3, 6:-6, 6:-6:3]
        sitk.WriteImage(image, str(path))
    start = read_bundle(bundled_models()["hippocampus-mr"])
    train_dataset(dataset, tmp_path / "runs", start=start, **FURTHER)
    plans = json.loads((tmp_path / "runs/preprocessed" / dataset.name / "nnUNetPlans.json").read_text())
    planned = plans["configurations"]["3d_fullres"]
    assert planned["spacing"] == start.metadata.preprocessing["spacing"]
    assert planned["patch_size"] == start.metadata.preprocessing["patch_size"]
    arguments = planned["architecture"]["arch_kwargs"]
    network = robust.nnUNetTrainerUSEMARobustBothSides.build_network_architecture("", arguments, (), 1, 3)
    assert json.loads(json.dumps(network.config.to_dict())) == start.metadata.architecture["config"]


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        (
            {"labels": {"background": 0, "Tumour": 1}},
            {},
            "has 1 label(s), Tumour, and the model 'hippocampus-mr' has 2",
        ),
        ({"channel_names": {"0": "T1", "1": "T2"}}, {}, "has 2 channel(s), and the model 'hippocampus-mr' takes 1"),
        ({}, {"configuration": "2d"}, "2d trains another network than that of the model 'hippocampus-mr', which is 3D"),
        ({}, {"axes": "LPS"}, "is stored along the axes LPS, and the model 'hippocampus-mr' was trained along RAS"),
        ({}, {"split": False}, "The data set has 3 case(s), and nnU-Net makes 5 folds"),
        ({}, {"beside": True}, "has several data sets of the number 004: Dataset004_"),
    ],
)
def test_what_a_start_cannot_learn_is_refused_before_anything_is_planned(data, tmp_path, changes, options, words):
    dataset = make_dataset(data, tmp_path / "raw", CASES[:3], **{"labels": HIPPOCAMPUS, **changes})
    if "axes" in options:
        path = next((dataset / "imagesTr").iterdir())
        sitk.WriteImage(sitk.DICOMOrient(sitk.ReadImage(str(path)), options["axes"]), str(path))
    if "split" in options:
        (dataset / "splits_final.json").unlink()
    if "beside" in options:
        (dataset.parent / f"{dataset.name}_2").mkdir()
    asked = {**FURTHER, "configuration": options.get("configuration", FURTHER["configuration"])}
    with pytest.raises(InputError, match=re.escape(words)):
        train_dataset(dataset, tmp_path / "runs", start=read_bundle(bundled_models()["hippocampus-mr"]), **asked)
    assert not (tmp_path / "runs").exists()


def test_what_a_start_asks_of_the_cases_stands_in_their_headers(data, tmp_path):
    dataset = make_dataset(data, tmp_path / "raw", CASES[:3], labels=HIPPOCAMPUS)
    for path in (dataset / "imagesTr").iterdir():
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    check_start(read_bundle(bundled_models()["hippocampus-mr"]), dataset, "3d_fullres", report=print)


def test_labels_of_another_order_are_told_and_the_next_command_does_not_call_it_alike(data, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_run", lambda *_: None)
    monkeypatch.setattr(training.Preprocessed, "is_complete", lambda *_: True)
    monkeypatch.setattr(training, "plan_like", lambda *_: None)
    turned = {"background": 0, "Posterior hippocampus": 1, "Anterior hippocampus": 2}
    dataset = make_dataset(data, tmp_path / "raw", CASES[:3], labels=turned)
    (tmp_path / "runs/preprocessed" / dataset.name).mkdir(parents=True)
    arguments = ["train", str(dataset), "--start", "hippocampus-mr", "--runs", str(tmp_path / "runs")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "what comes out is another model, and is exported without --like" in result.output
    assert "--like '" not in result.output


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one_whole(tmp_path, monkeypatch):
    def full(trainer, filename: str) -> None:
        Path(filename).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nnUNetTrainerUSEMA.__bases__[0], "save_checkpoint", full)
    trainer = object.__new__(nnUNetTrainerUSEMA)
    trainer.local_rank, trainer.disable_checkpointing = 0, False
    path = tmp_path / "checkpoint_latest.pth"
    path.write_bytes(b"whole")
    (tmp_path / "checkpoint_latest.pth.part").write_bytes(b"left by a training that was killed")
    with pytest.raises(OSError, match="No space left"):
        trainer.save_checkpoint(str(path))
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [(path.name, b"whole")]


def test_what_a_trainer_refuses_is_told_without_a_traceback(tmp_path, capfd):
    code = "from usema.errors import InputError; raise InputError('Another network: ä.', 'Take the same one.')"
    with pytest.raises(InputError, match="Another network: ä") as error:
        training._run(code, [], {**os.environ})
    assert error.value.hint == "Take the same one."
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("spacing", ["0", "-1", "thick"])
def test_a_spacing_that_no_voxel_has_is_refused(spacing):
    result = CliRunner().invoke(main, ["train", "Dataset004_Hippocampus", "--spacing", "1", "1", spacing])
    assert result.exit_code == 2
    assert "'--spacing'" in result.output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"trainer": "nnUNetTrainerUSEMAsmall"}, "There is no trainer 'nnUNetTrainerUSEMAsmall'. Those of USEMA are "),
        ({"fold": "first"}, "'first' is no fold. Give a number from 0 to 4, or 'all'"),
    ],
)
def test_a_trainer_or_a_fold_that_is_none_is_refused_before_anything_is_planned(data, tmp_path, options, words):
    dataset = make_dataset(data, tmp_path / "raw", CASES[:3])
    with pytest.raises(InputError) as error:
        train_dataset(dataset, tmp_path / "runs", **{**FURTHER, **options})
    assert words in f"{error.value.message} {error.value.hint}"
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_is_no_dataset_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"There is no folder .*liver"):
        train_dataset(tmp_path / "liver", tmp_path / "runs", configuration="2d", trainer="nnUNetTrainerUSEMA")
    (tmp_path / "liver").mkdir()
    with pytest.raises(InputError, match="'liver' is not the name of an nnU-Net dataset"):
        train_dataset(tmp_path / "liver", tmp_path / "runs", configuration="2d", trainer="nnUNetTrainerUSEMA")
    (tmp_path / "Dataset009_Liver").mkdir()
    with pytest.raises(InputError, match=r"has no dataset.json"):
        train_dataset(
            tmp_path / "Dataset009_Liver", tmp_path / "runs", configuration="2d", trainer="nnUNetTrainerUSEMA"
        )
