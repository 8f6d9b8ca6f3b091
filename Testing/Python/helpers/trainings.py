"""A small data set of real hippocampi, planned by nnU-Net within seconds, and single steps of trainers.

All in this process: each further one loads PyTorch and nnU-Net again, which takes longer than what it is there for.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from usema.training import run

CASES = ("003", "004", "007", "008", "011", "015")


def make_dataset(data: Path, folder: Path, cases: Sequence[str] = CASES, **description) -> Path:
    """Real cases, with these changes of dataset.json, under a split that validates on the last two."""
    source = data / "nnUNet_raw/Dataset004_Hippocampus"
    dataset = folder / "Dataset004_Hippocampus"
    for part, ending in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
        (dataset / part).mkdir(parents=True)
        for case in cases:
            shutil.copyfile(
                source / part / f"hippocampus_{case}{ending}", dataset / part / f"hippocampus_{case}{ending}"
            )
    described = json.loads((source / "dataset.json").read_text()) | {"numTraining": len(cases)} | description
    (dataset / "dataset.json").write_text(json.dumps(described))
    names = [f"hippocampus_{case}" for case in cases]
    (dataset / "splits_final.json").write_text(json.dumps([{"train": names[:-2], "val": names[-2:]}]))
    return dataset


@contextmanager
def folders_of_nnunet(**folders: Path | str):
    """nnU-Net asks the environment for its folders when it is imported; here they are changed where it keeps them."""
    with pytest.MonkeyPatch.context() as patch:
        for module in [module for name, module in sys.modules.items() if name.split(".")[0] == "nnunetv2"]:
            for name, folder in folders.items():
                if name in vars(module):
                    patch.setattr(module, name, str(folder))
        yield


def in_this_process(code: str, arguments: list[str], environment: dict[str, str]) -> None:
    """In place of ``usema.training.run._run``: nnU-Net's own command, with threads where it starts processes."""
    importlib.import_module("nnunetv2.experiment_planning.plan_and_preprocess_entrypoints")
    fingerprint = importlib.import_module("nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor")
    extractor = fingerprint.DatasetFingerprintExtractor
    planners = importlib.import_module("nnunetv2.experiment_planning.experiment_planners.default_experiment_planner")
    planner = planners.ExperimentPlanner
    loggers = importlib.import_module("nnunetv2.training.logging.nnunet_logger")
    names = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    threads = torch.get_num_threads()
    with folders_of_nnunet(**{name: environment[name] for name in names}), pytest.MonkeyPatch.context() as patch:
        patch.setattr(multiprocessing, "get_context", lambda method: SimpleNamespace(Pool=ThreadPool))
        patch.setattr(sys, "argv", ["nnU-Net", *arguments])
        patch.setattr(extractor, "__init__", _of_few_samples(extractor))
        patch.setattr(planner, "static_estimate_VRAM_usage", _without_weights(planner.static_estimate_VRAM_usage))
        patch.setattr(
            loggers.nnUNetLogger, "plot_progress_png", lambda *_: None
        )  # a second for curves that nobody sees
        for name in environment.keys() - os.environ.keys():
            patch.setenv(name, environment[name])
        exec(code, {})
    torch.set_num_threads(threads)


def _of_few_samples(extractor: type) -> Callable[..., None]:
    """An ``__init__``. nnU-Net draws a hundred million intensities from however few voxels there are, in most of the
    time that planning takes."""
    made = extractor.__init__

    def make(self, *arguments, **options):
        made(self, *arguments, **options)
        self.num_foreground_voxels_for_intensitystats = 1e5

    return make


def _without_weights(estimate: Callable[..., int]) -> Callable[..., int]:
    """nnU-Net draws weights for each network whose size it asks for."""

    def estimated(*arguments, **options) -> int:
        with torch.device("meta"):
            return estimate(*arguments, **options)

    return staticmethod(estimated)


def plan_only(code: str, *rest) -> None:
    """In place of ``usema.training.run._run``: plans, and trains nothing."""
    if code == run._PLAN:
        in_this_process(code, *rest)


def step(results: Path, trainer: type, **variables: str) -> dict:
    """What a trainer says after a step on two slices of a real case.

    Args:
        results: where nnU-Net would put what it trains on a data set that is planned.
        variables: of the environment. With USEMA_MINUTES no step is taken: the learning rates are told as after one
            epoch of a minute, and then after nine.
    """
    runs = results.parents[2]
    preprocessed = runs / "preprocessed" / results.parent.name
    plans, dataset = (json.loads((preprocessed / name).read_text()) for name in ("nnUNetPlans.json", "dataset.json"))
    threads = torch.get_num_threads()
    try:
        with (
            folders_of_nnunet(nnUNet_preprocessed=preprocessed.parent, nnUNet_results=runs / "steps"),
            pytest.MonkeyPatch.context() as patch,
        ):
            for name, value in variables.items():
                patch.setenv(name, value)
            made = trainer(plans=plans, configuration="2d", fold=0, dataset_json=dataset, device=torch.device("cpu"))
            made.initialize()
            made.lr_scheduler.step(0)
            return {"rates": _rates(made)} if made.budget_seconds is not None else _step(made, preprocessed)
    finally:
        torch.set_num_threads(threads)


def _rates(trainer) -> list[tuple[int, float]]:
    rates = []
    for done in (1, 9):
        log = trainer.logger.my_fantastic_logging
        log["epoch_start_timestamps"] = [60.0 * epoch for epoch in range(done)]
        log["epoch_end_timestamps"] = [60.0 * epoch + 60 for epoch in range(done)]
        trainer.current_epoch = done
        trainer.on_epoch_start()
        trainer.lr_scheduler.step(done)
        rates.append((trainer.num_epochs, trainer.optimizer.param_groups[0]["lr"] / trainer.initial_lr))
    return rates


def _step(trainer, preprocessed: Path) -> dict:
    case = np.load(next((preprocessed / "nnUNetPlans_2d").glob("*.npz")))
    window = np.s_[:, 10:12, :48, :32]  # two slices
    image, labels = (torch.from_numpy(case[name][window].astype("f4")).movedim(1, 0) for name in ("data", "seg"))
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
    return {
        "loss": loss,
        "moved": moved / len(before),
        "epochs": trainer.num_epochs,
        "outputs": len(output) if isinstance(output, list) else 1,
        "transforms": [type(transform).__name__ for transform in transforms.transforms],
        **{key: json.loads(value) for key, value in described.items()},
    }
