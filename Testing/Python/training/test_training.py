"""Training inside nnU-Net on real cases, for as short as it goes: train, resume, export, segment."""

from __future__ import annotations

import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from usema.cli import main
from usema.errors import BundleError, InputError
from usema.models.bundle import read_bundle
from usema.networks import build
from usema.resources import bundled_models
from usema.training import controls, neighbours, robust
from usema.training import run as training
from usema.training.cpu_bfloat16 import spare_narrow_convolutions
from usema.training.export import export_bundle
from usema.training.run import train_dataset
from usema.volumes.volume import load_volume, read_volume

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


def test_only_the_final_checkpoint_is_exported_with_the_figures_that_nnunet_measured_on_it(trained, tmp_path):
    kinds = ("final", "best")
    final, best = (export_bundle(trained[1], tmp_path / kind, checkpoint=kind).metadata for kind in kinds)
    assert final.metrics["validation"]["cases"] == 2
    assert best.metrics == {}
    assert [each.training["checkpoint"] for each in (final, best)] == [
        "final",
        "best on patches of the validation cases",
    ]


def test_nnunets_own_command_line_finds_the_trainers(trained):
    code = (
        "from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor; import torch; "
        "p = nnUNetPredictor(device=torch.device('cpu'), allow_tqdm=False); "
        f"p.initialize_from_trained_model_folder({str(trained[1])!r}, (0,)); print(type(p.network).__name__)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout.split()[-1:] == ["USEMA"], run.stderr


# One step of every trainer on a real slice, in a process of its own, because nnU-Net reads its folders when imported.
STEP = """
import json, sys
from pathlib import Path
import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from usema.training import controls, neighbours, robust

trainers = {**vars(controls), **vars(neighbours), **vars(robust)}
preprocessed = Path(sys.argv[1])
plans = json.loads((preprocessed / "nnUNetPlans.json").read_text())
dataset = json.loads((preprocessed / "dataset.json").read_text())
case = np.load(next((preprocessed / "nnUNetPlans_2d").glob("*.npz")))
window = np.s_[:, 10:12, :48, :32]  # two slices
image, labels = (torch.from_numpy(case[name][window].astype("f4")).movedim(1, 0) for name in ("data", "seg"))
for name in sys.argv[2:]:
    trainer = trainers[name](plans=plans, configuration="2d", fold=0, dataset_json=dataset, device=torch.device("cpu"))
    trainer.initialize()
    trainer.lr_scheduler.step(0)
    scales = trainer._get_deep_supervision_scales()
    target = labels.clamp(0)
    if scales:
        target = [torch.nn.functional.interpolate(target, scale_factor=tuple(scale)) for scale in scales]
    before = {key: value.clone() for key, value in trainer.network.state_dict().items()}
    loss = float(trainer.train_step({"data": image, "target": target})["loss"])
    moved = sum(not value.equal(before[key]) for key, value in trainer.network.state_dict().items())
    trainer.network.eval()
    output = trainer.network(image)
    *_, mirrored = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    transforms = trainer.get_training_transforms((56, 40), (-1, 1), scales, mirrored, False)
    # nnU-Net's own U-Net, a control, is never exported.
    described = trainer._description() if hasattr(trainer.bare_network(), "config") else {}
    print(json.dumps({
        "trainer": name,
        "loss": loss,
        "moved": moved / len(before),
        "epochs": trainer.num_epochs,
        "outputs": len(output) if isinstance(output, list) else 1,
        "transforms": [type(transform).__name__ for transform in transforms.transforms],
        **{key: json.loads(value) for key, value in described.items()},
    }))
"""


def take_steps(results: Path, *trainers: str, **variables: str) -> dict[str, dict]:
    runs = results.parents[2]
    preprocessed = runs / "preprocessed" / results.parent.name
    folders = {"nnUNet_raw": runs, "nnUNet_preprocessed": preprocessed.parent, "nnUNet_results": runs / "steps"}
    environment = {**os.environ, **{name: str(path) for name, path in folders.items()}, **variables}
    run = subprocess.run(
        [sys.executable, "-c", STEP, str(preprocessed), *trainers],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    rows = [json.loads(line) for line in run.stdout.splitlines() if line.startswith('{"trainer"')]
    return {row["trainer"]: row for row in rows}


CONTROLS = [name for name in vars(controls) if name.startswith("nnUNetTrainerControl")]
NEIGHBOURS = [name for name in vars(neighbours) if re.match("nnUNetTrainer(MLLA|AttentionMamba)", name)]
ROBUST = [name for name in vars(robust) if name.startswith("nnUNetTrainerUSEMARobust")]


def test_every_trainer_takes_a_step(trained):
    assert len(CONTROLS) == 7
    assert len(NEIGHBOURS) == 6
    assert len(ROBUST) == 3
    steps = take_steps(trained[1], *CONTROLS, *NEIGHBOURS, *ROBUST, USEMA_ITERATIONS="101", USEMA_THREADS="1")
    assert list(steps) == CONTROLS + NEIGHBOURS + ROBUST
    for name, step in steps.items():
        assert math.isfinite(step["loss"]), name
        assert step["moved"] > 0.5, name
        assert step["epochs"] == 3, name
        # Training on a control compares the decoder's levels; a neighbour's further outputs are for training alone.
        assert step["outputs"] == (1 if name in NEIGHBOURS else 3), name


@pytest.mark.parametrize("axes", [2, 3])
def test_in_bfloat16_a_stride_that_leaves_one_column_computes_in_float32(axes):
    """Random memory went into these results on a CPU with matrix units."""
    convolution = (torch.nn.Conv2d, torch.nn.Conv3d)[axes - 2](256, 256, 3, stride=2, padding=1)
    narrow = torch.randn(2, 256, *(5,) * (axes - 1), 2, generator=torch.Generator().manual_seed(0))
    expected = convolution(narrow)
    expected.sum().backward()
    gradient, convolution.weight.grad = convolution.weight.grad, None
    spare_narrow_convolutions(convolution)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(convolution(narrow), expected)
        convolution(narrow).sum().backward()
        assert convolution(torch.cat((narrow, narrow), dim=-1)).dtype == torch.bfloat16
    torch.testing.assert_close(convolution.weight.grad, gradient)


def test_the_robust_recipe_fills_the_surroundings_and_leaves_the_image_alone():
    random.seed(0)
    torch.manual_seed(0)
    image, labels = torch.full((1, 20, 24, 16), 5.0), torch.full((1, 20, 24, 16), robust.OUTSIDE)
    inside = np.s_[:, 4:16, 3:20, 2:14]
    labels[inside] = 1
    filled = robust.Surroundings()(image=image.clone(), segmentation=labels.clone())
    assert filled["segmentation"].equal(labels)
    assert (filled["image"][inside] == 5).all()
    outside = filled["image"][labels == robust.OUTSIDE]
    assert outside.isfinite().all()
    assert outside.std() > 0.1
    assert (outside == 5).sum() == 0


def test_the_robust_recipe_averages_neighbouring_slices():
    random.seed(0)
    image = torch.randn(1, 20, 24, 16, generator=torch.Generator().manual_seed(0))
    for _ in range(5):
        thick = robust.ThickSlices()(image=image.clone())["image"]
        repeated = [(thick.diff(dim=axis) == 0).float().mean().item() for axis in (1, 2, 3)]
        assert sorted(share > 0.4 for share in repeated) == [False, False, True]
        assert thick.shape == image.shape
        assert thick.mean().item() == pytest.approx(image.mean().item(), abs=1e-5)


def test_the_robust_recipe_moves_image_and_labels_together():
    random.seed(0)
    labels = torch.randint(0, 3, (1, 20, 24, 16), generator=torch.Generator().manual_seed(0)).float()
    for _ in range(5):
        moved = robust.Shift()(image=10 + labels, segmentation=labels)
        stays = moved["segmentation"] != robust.OUTSIDE
        assert 0 < stays.sum() < labels.numel()
        assert (moved["image"][~stays] == 0).all()
        box = [slice(hits.amin(), hits.amax() + 1) for hits in stays[0].nonzero().T]
        assert stays[0][tuple(box)].all()
        # What is left of the labels lay at the opposite end of each axis.
        source = [
            slice(0, part.stop - part.start) if part.start else slice(side - part.stop, side)
            for part, side in zip(box, labels.shape[1:], strict=True)
        ]
        assert moved["segmentation"][0][tuple(box)].equal(labels[0][tuple(source)])
        assert moved["image"][0][tuple(box)].equal(10 + labels[0][tuple(source)])


def test_each_robust_recipe_mirrors_what_its_labels_allow(trained):
    steps = take_steps(trained[1], *ROBUST)
    assert [("MirrorTransform" in step["transforms"]) for step in steps.values()] == [False, True, True]
    assert {name: step["inference"]["mirror_axes"] for name, step in steps.items()} == {
        "nnUNetTrainerUSEMARobust": [],
        "nnUNetTrainerUSEMARobustBothSides": [1],  # of (y, x)
        "nnUNetTrainerUSEMARobustMirrored": [0, 1],
    }


def test_attention_mambas_own_recipe_augments_in_space_alone(trained):
    name = "nnUNetTrainerAttentionMamba"
    transforms = take_steps(trained[1], name, USEMA_THREADS="1")[name]["transforms"]
    assert "SpatialTransform" in transforms
    assert "MirrorTransform" in transforms
    assert "RandomTransform" not in transforms


def test_a_training_starts_from_a_bundle_of_the_same_network_only(trained, tmp_path):
    bundle = export_bundle(trained[1], tmp_path / "bundle").path
    name = "nnUNetTrainerUSEMASmall"
    from_bundle = take_steps(trained[1], name, USEMA_START=str(bundle))[name]
    from_nothing = take_steps(trained[1], name)[name]
    assert from_bundle["loss"] < from_nothing["loss"] - 0.1
    assert from_bundle["training"]["started_from"] == "hippocampus 0.1.0"
    assert "started_from" not in from_nothing["training"]
    with pytest.raises(AssertionError, match="cannot start this training: its network is another one"):
        take_steps(trained[1], "nnUNetTrainerControlAllStages", USEMA_START=str(bundled_models()["hippocampus-mr"]))


def test_a_plan_takes_the_spacing_that_was_asked_for_and_no_other_one_later(data, tmp_path, monkeypatch):
    nnunet = training._run

    def plan_only(code, arguments, environment):
        if code == training._PLAN:
            nnunet(code, [*arguments, "-npfp", "1", "-np", "1"], environment)

    monkeypatch.setattr(training, "_run", plan_only)
    dataset = make_dataset(data, tmp_path / "raw")
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


@pytest.mark.parametrize("spacing", ["0", "-1", "thick"])
def test_a_spacing_that_no_voxel_has_is_refused(spacing):
    result = CliRunner().invoke(main, ["train", "Dataset004_Hippocampus", "--spacing", "1", "1", spacing])
    assert result.exit_code == 2
    assert "'--spacing'" in result.output


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


def test_labels_with_gaps_are_refused(trained, tmp_path):
    copy = tmp_path / "results"
    shutil.copytree(trained[1], copy)
    description = json.loads((copy / "dataset.json").read_text())
    description["labels"]["Posterior"] = 3
    (copy / "dataset.json").write_text(json.dumps(description))
    with pytest.raises(BundleError, match=r"the labels have the values \[1, 3\]"):
        export_bundle(copy, tmp_path / "bundle")
