"""Training inside nnU-Net on real cases, for as short as it goes: train, resume, export, segment."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from usema.bundle import read_bundle
from usema.cli import main
from usema.errors import BundleError, InputError
from usema.networks import build
from usema.training.export import export_bundle
from usema.training.run import train_dataset
from usema.volume import load_volume, read_volume

CASES = ("003", "004", "007", "008", "011", "015")


def make_dataset(data: Path, folder: Path) -> Path:
    source = data / "nnUNet_raw/Dataset004_Hippocampus"
    dataset = folder / "Dataset004_Hippocampus"
    for part, ending in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
        (dataset / part).mkdir(parents=True)
        for case in CASES:
            shutil.copyfile(
                source / part / f"hippocampus_{case}{ending}", dataset / part / f"hippocampus_{case}{ending}"
            )
    description = json.loads((source / "dataset.json").read_text())
    (dataset / "dataset.json").write_text(json.dumps(description | {"numTraining": len(CASES)}))
    names = [f"hippocampus_{case}" for case in CASES]
    (dataset / "splits_final.json").write_text(json.dumps([{"train": names[:4], "val": names[4:]}]))
    return dataset


def epochs_logged(results: Path) -> list[int]:
    logs = sorted((results / "fold_0").glob("training_log_*.txt"))
    return [int(number) for log in logs for number in re.findall(r": Epoch (\d+)", log.read_text())]


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """One epoch in 2D, then the same command with a larger budget."""
    folder = tmp_path_factory.mktemp("training")
    dataset = make_dataset(data, folder / "raw")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_n_proc_DA", "1")
        patch.setenv("USEMA_THREADS", "1")
        options = {"configuration": "2d", "trainer": "nnUNetTrainerUSEMASmall", "device": "cpu"}
        results = train_dataset(dataset, folder / "runs", minutes=0.01, **options)
        first = epochs_logged(results)
        spent = float(re.findall(r"Epoch time: ([\d.]+)", next((results / "fold_0").glob("*.txt")).read_text())[-1])
        train_dataset(dataset, folder / "runs", minutes=(spent + 0.5) / 60, **options)
    return dataset, results, first


def test_training_follows_its_time_budget_and_resumes(trained):
    _, results, first = trained
    assert first == [0]
    assert epochs_logged(results) == [0, 1]
    assert (results / "fold_0/validation/summary.json").is_file()


def test_an_export_is_a_bundle_that_segments(trained, tmp_path):
    dataset, results, _ = trained
    run = CliRunner().invoke(main, ["export", str(results), "-o", str(tmp_path / "bundle"), "--dataset", str(dataset)])
    assert run.exit_code == 0, run.output
    metadata = read_bundle(tmp_path / "bundle").metadata
    assert metadata.orientation == "RAS"
    assert metadata.expected_spacing_mm == {"min": [1.0] * 3, "max": [1.0] * 3}
    assert metadata.training["iterations"] == 100
    assert metadata.training["cases"] == 4
    assert set(metadata.metrics["validation"]["dice"]) == {"Anterior", "Posterior"}
    assert metadata.inference["mirror_axes"] == []

    image = dataset / "imagesTr/hippocampus_011_0000.nii.gz"
    arguments = ["segment", str(image), "-o", str(tmp_path / "a.nii.gz"), "--model", str(tmp_path / "bundle")]
    assert CliRunner().invoke(main, arguments).exit_code == 0
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


def test_nnunets_own_command_line_finds_the_trainers(trained):
    code = (
        "from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor; import torch; "
        "p = nnUNetPredictor(device=torch.device('cpu'), allow_tqdm=False); "
        f"p.initialize_from_trained_model_folder({str(trained[1])!r}, (0,)); print(type(p.network).__name__)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout.split()[-1:] == ["USEMA"], run.stderr


def test_a_folder_that_is_no_dataset_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match="'liver' is not the name of an nnU-Net dataset"):
        train_dataset(tmp_path / "liver", tmp_path / "runs", configuration="2d", trainer="nnUNetTrainerUSEMA")
    (tmp_path / "Dataset009_Liver").mkdir()
    with pytest.raises(InputError, match=r"has no dataset.json"):
        train_dataset(
            tmp_path / "Dataset009_Liver", tmp_path / "runs", configuration="2d", trainer="nnUNetTrainerUSEMA"
        )


def test_results_without_our_weights_are_refused(trained, tmp_path):
    with pytest.raises(InputError, match=r"checkpoint_final.safetensors is missing"):
        export_bundle(trained[1], tmp_path / "bundle", fold="3")


def test_regions_are_refused(trained, tmp_path):
    copy = tmp_path / "results"
    shutil.copytree(trained[1], copy)
    description = json.loads((copy / "dataset.json").read_text())
    description["labels"]["Posterior"] = 3
    (copy / "dataset.json").write_text(json.dumps(description))
    with pytest.raises(BundleError, match="'Posterior': 3"):
        export_bundle(copy, tmp_path / "bundle")
