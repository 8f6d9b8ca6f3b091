"""Training on the paper's data: what is asked for first, and what nnU-Net is told."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from paper_commands import paper, refused
from usema.cli import main
from usema.errors import DeviceError
from usema.training import run


def test_training_asks_for_the_data_set_first(tmp_path):
    output = refused("train", "endoscopy", "--raw", tmp_path)
    assert "paper_data.py prepare endoscopy --download FOLDER" in output


def test_more_gpus_than_the_batch_are_refused(raw):
    assert "3 GPUs cannot share a batch of 2" in refused(
        "train", "endoscopy", "--raw", raw, "--gpus", 3, "--device", "cpu"
    )


def test_gpus_that_are_not_there_are_refused(raw, tmp_path):
    with pytest.raises(DeviceError, match="2 GPUs were asked for; 0 can be used here"):
        run.train_dataset(
            raw / "Dataset704_Endovis17",
            tmp_path,
            configuration="2d",
            trainer="nnUNetTrainerUSEMA",
            device="cpu",
            gpus=2,
        )


@pytest.fixture
def two_gpus(monkeypatch) -> list[list[str]]:
    """A machine that says it has two GPUs; the list gets the arguments of each of nnU-Net's commands."""
    commands = []

    def note(code, arguments, environment):
        commands.append(arguments)
        if code == run._PLAN:  # leaves the files of cases that nnU-Net would leave
            (dataset,) = Path(environment["nnUNet_raw"]).glob(f"Dataset{arguments[1]}_*")
            folder = Path(environment["nnUNet_preprocessed"]) / dataset.name / "nnUNetPlans_2d"
            folder.mkdir(parents=True)
            for label in (dataset / "labelsTr").iterdir():
                np.savez(folder / f"{label.stem}.npz", data=0)
                (folder / f"{label.stem}.pkl").write_bytes(b".")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(run, "_run", note)
    return commands


def test_several_gpus_are_nnunets_own_distributed_training(two_gpus, raw, tmp_path, monkeypatch):
    """What stands in for two GPUs ends where nnU-Net's command line has understood the arguments."""
    from nnunetv2.run import run_training

    paper("train", "endoscopy", "--raw", raw, "--runs", tmp_path, "--gpus", 2)
    plan, training = two_gpus
    assert plan[:5] == ["-d", "704", "-c", "2d", "--verify_dataset_integrity"]
    understood = {}
    signature = inspect.signature(run_training.run_training)

    def record(*arguments, **options):
        understood.update(signature.bind(*arguments, **options).arguments)

    monkeypatch.setattr(run_training, "run_training", record)
    monkeypatch.setattr(torch, "set_num_interop_threads", lambda threads: None)  # possible once per process
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_train", *training])
    threads = torch.get_num_threads()
    run_training.run_training_entry()
    torch.set_num_threads(threads)
    assert understood["dataset_name_or_id"] == "Dataset704_Endovis17"
    assert (understood["configuration"], understood["fold"]) == ("2d", "all")
    assert understood["trainer_class_name"] == "nnUNetTrainerUSEMA"
    assert understood["num_gpus"] == 2


def test_several_gpus_do_not_share_a_time_budget(two_gpus, raw, tmp_path):
    assert "Use --iterations instead of --minutes" in refused(
        "train", raw / "Dataset704_Endovis17", "--runs", tmp_path, "--gpus", 2, "--minutes", 1, command=main
    )
    assert not two_gpus
