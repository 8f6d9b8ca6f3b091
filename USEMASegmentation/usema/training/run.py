"""Plans, preprocesses and trains with nnU-Net's own command line, in one call that can be repeated to resume."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import torch

from ..errors import DeviceError, InputError, UsemaError
from ..inference.device import choose_device
from ..models.bundle import Bundle
from ..quality.labelled_cases import read_folds
from .plugin import check_trainer, link_trainers
from .preprocessed import Preprocessed
from .raw_dataset import cases_of, labels_of, read_json
from .raw_files import check_files
from .starting import check_start, plan_like, spacing_of

PLANS = "nnUNetPlans"
# Trainers whose paper's loss is of one label a voxel.
PLAIN_LABELS_ONLY = ("nnUNetTrainerMLLAUNet", "nnUNetTrainerAttentionMamba")
_PLAN = "from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import plan_and_preprocess_entry as f; f()"
_TRAIN = "from nnunetv2.run.run_training import run_training_entry as f; f()"
# Runs such a line, and keeps what a trainer has to tell the user: else it would stand in a traceback.
_TELLING = """import json, sys
from usema.errors import UsemaError
path, code = sys.argv[1:3]
del sys.argv[1:3]
try:
    exec(code, {})
except UsemaError as error:
    with open(path, "w", encoding="utf-8") as file:
        json.dump([error.message, error.hint], file)
    sys.exit(1)
"""
_FOLDS = 5  # that nnU-Net makes


def train_dataset(
    dataset: Path,
    runs: Path,
    *,
    configuration: str,
    trainer: str,
    fold: str = "0",
    device: str = "auto",
    gpus: int = 1,
    minutes: float | None = None,
    iterations: int | None = None,
    start: Bundle | None = None,
    spacing: tuple[float, float, float] | None = None,
    seed: int = 0,
    report: Callable[[str], None] = print,
) -> Path:
    """Train on a dataset in nnU-Net's raw layout; a run that was interrupted goes on where its last checkpoint is.

    Args:
        dataset: a folder named DatasetNNN_Name with imagesTr, labelsTr and dataset.json; its splits_final.json, if
            there is one, gives the folds.
        runs: folder for preprocessed data, checkpoints and logs; made if need be.
        configuration: "2d" or "3d_fullres".
        trainer: class name, nnUNetTrainerUSEMA or any other of this room.
        gpus: with more than 1, nnU-Net's distributed training: it spreads the plan's batch over the first GPUs.
        minutes: time budget, all resumed runs together.
        iterations: budget in iterations, rounded up to whole epochs if there are several. Without either, the
            trainer's number of epochs.
        start: a bundle, whose weights to start from; its network, patch and spacing take the place of those that
            nnU-Net would plan.
        spacing: of the voxels that a 3D network sees, in mm, z y x; by default that of ``start``, or else the data
            set's median. The first planning decides it for a folder of runs.
        report: called with a sentence on which cases are checked, and which are trained on.

    Returns:
        the results folder, which `usema export` takes.

    Raises:
        InputError: the folder is not such a dataset, a file of it is not whole or has labels or channels that
            dataset.json does not, or it is not the one that the training began with; there is no such trainer or fold;
            the trainer's recipe does not know its kind of labels; it has too few cases for folds, or is none for the
            network of ``start``; it is planned for another spacing, a spacing is asked for in 2D, or a time budget is
            to be shared by several GPUs.
        DeviceError: there are not so many GPUs.
        UsemaError: nnU-Net ended with an error; its own output says which.
    """
    dataset = dataset.resolve()
    cases = _check_dataset(dataset, trainer)
    kind = choose_device(device).type
    _check_gpus(gpus, kind, minutes)
    if start is not None:
        check_start(start, dataset, configuration, report)
        if spacing is None and configuration == "3d_fullres":
            spacing = tuple(spacing_of(start))
    link_trainers()
    check_trainer(trainer)
    runs = runs.resolve()
    preprocessed = Preprocessed(dataset, cases, runs, PLANS)
    _check_folds(fold, cases, [folder / "splits_final.json" for folder in (dataset, preprocessed.folder)])
    complete = preprocessed.is_complete(configuration)
    spacing = _spacing_to_plan(preprocessed.folder / f"{PLANS}.json", configuration, spacing)
    if not complete:
        report(f"Checking the files of {len(cases)} cases.")
        check_files(dataset)
    processes = str(min(8, os.cpu_count() or 1, len(cases)))  # 8 are nnU-Net's own
    environment = {
        "nnUNet_def_n_proc": processes,
        **os.environ,
        "nnUNet_raw": str(dataset.parent),
        "nnUNet_preprocessed": str(runs / "preprocessed"),
        "nnUNet_results": str(runs / "results"),
        "USEMA_SEED": str(seed),
        "PYTHONUNBUFFERED": "1",
    }
    budget = {"USEMA_MINUTES": minutes, "USEMA_ITERATIONS": iterations, "USEMA_START": start and start.path.resolve()}
    environment |= {name: str(value) for name, value in budget.items() if value is not None}
    for folder in ("preprocessed", "results"):
        (runs / folder).mkdir(parents=True, exist_ok=True)

    if not complete:
        number = dataset.name[7:10]
        options = ["-overwrite_target_spacing", *map(str, spacing)] if spacing else []
        options += ["-npfp", processes, "-np", processes]
        _run(_PLAN, ["-d", number, "-c", configuration, "--verify_dataset_integrity", *options], environment)
        preprocessed.finish(configuration)
    if start is not None:
        plan_like(start, preprocessed.folder / f"{PLANS}.json", configuration)
    split = preprocessed.folder / "splits_final.json"
    if (dataset / split.name).is_file():
        shutil.copy(dataset / split.name, split)
    _check_split(split, fold, cases, report)

    results = results_folder(dataset, runs, configuration, trainer)
    arguments = [dataset.name, configuration, fold, "-tr", trainer, "-device", kind, "-num_gpus", str(gpus)]
    if any((results / f"fold_{fold}").glob("checkpoint_*.pth")):
        arguments.append("--c")
    _run(_TRAIN, arguments, environment)
    return results


def results_folder(dataset: Path, runs: Path, configuration: str, trainer: str) -> Path:
    """Where nnU-Net puts what it trained."""
    return runs / "results" / dataset.name / f"{trainer}__{PLANS}__{configuration}"


def _check_dataset(dataset: Path, trainer: str) -> dict[str, list[int]]:
    """The cases of a data set that this trainer can learn."""
    name = dataset.name
    if not dataset.is_dir():
        raise InputError(f"There is no folder {dataset}.", "Give that of a data set, with imagesTr and labelsTr in it.")
    if not (name.startswith("Dataset") and name[7:10].isdigit() and name[10:11] == "_"):
        raise InputError(f"'{name}' is not the name of an nnU-Net dataset.", "Name the folder like Dataset004_Name.")
    same_number = sorted(path.name for path in dataset.parent.glob(f"{name[:11]}*") if path.is_dir())
    if len(same_number) > 1:
        raise InputError(
            f"{dataset.parent} has several data sets of the number {name[7:10]}: {', '.join(same_number)}.",
            "nnU-Net knows them by their numbers: give each its own.",
        )
    cases = cases_of(dataset)
    path = dataset / "dataset.json"
    labels = labels_of(read_json(path), path)
    for there, what in ((labels.region_order, "regions"), (labels.ignored, "a label to ignore")):
        if there and trainer in PLAIN_LABELS_ONLY:
            raise InputError(
                f"{path} has {what}, which the loss of {trainer} does not know.", "Train a trainer with nnU-Net's loss."
            )
    return cases


def _check_split(path: Path, fold: str, cases: Collection[str], report: Callable[[str], None]) -> None:
    """Says which cases are trained on, and refuses a split that names others than there are."""
    if fold == "all" or not path.is_file():
        return  # all cases; or nnU-Net makes a split of all
    folds = read_folds(path)
    if int(fold) >= len(folds):
        report(f"Fold {fold} is none of the {len(folds)} that {path.name} has: nnU-Net draws the cases to validate on.")
        return
    chosen = folds[int(fold)]
    named = {*chosen["train"], *chosen["val"]}
    if unknown := sorted(named - set(cases)):
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise InputError(
            f"{path} names {unknown[0]}{more}, of which the data set has no labels.",
            "Correct the data set's splits_final.json, or remove it.",
        )
    left = len(set(cases) - named)
    unused = f" {left} of the {len(cases)} cases are in neither." if left else ""
    report(f"Fold {fold}: {len(chosen['train'])} cases to train on, {len(chosen['val'])} to validate on.{unused}")


def _check_folds(fold: str, cases: Collection[str], splits: Sequence[Path]) -> None:
    if fold != "all" and not (fold.isascii() and fold.isdigit()):
        raise InputError(f"'{fold}' is no fold.", f"Give a number from 0 to {_FOLDS - 1}, or 'all' to hold none back.")
    if fold != "all" and len(cases) < _FOLDS and not any(split.is_file() for split in splits):
        raise InputError(
            f"The data set has {len(cases)} case(s), and nnU-Net makes {_FOLDS} folds: at least {_FOLDS} are needed.",
            "Add cases, name which are held back in its splits_final.json, or hold none back: --fold all.",
        )


def _spacing_to_plan(plans: Path, configuration: str, asked: Sequence[float] | None) -> Sequence[float] | None:
    """The spacing to plan with, z y x; None is nnU-Net's own choice. A plan that is there keeps the one it has."""
    if asked and configuration != "3d_fullres":
        raise InputError(f"A spacing of {list(asked)} mm is for 3d_fullres, not for {configuration}.", "Leave it out.")
    if not plans.is_file():
        return asked
    document = json.loads(plans.read_text(encoding="utf-8"))
    if "3d_fullres" not in document["configurations"]:  # the data are slices, and nnU-Net will say so
        return None
    spacing = document["configurations"]["3d_fullres"]["spacing"]
    planned = [spacing[axis] for axis in document["transpose_backward"]]
    if asked and list(asked) != planned:
        raise InputError(
            f"{plans} is planned for voxels of {planned} mm, not of {list(asked)} mm.",
            "Choose another folder for the runs.",
        )
    return planned


def _check_gpus(gpus: int, kind: str, minutes: float | None) -> None:
    present = torch.cuda.device_count() if kind == "cuda" else 0
    if gpus > max(present, 1):
        raise DeviceError(f"{gpus} GPUs were asked for; {present} can be used here.", "Ask for fewer, or for one.")
    if gpus > 1 and minutes is not None:
        # Each process looks at its own clock, and one would wait for ever for another that has stopped.
        raise InputError("Several GPUs cannot share a time budget.", "Use --iterations instead of --minutes.")


def _run(code: str, arguments: list[str], environment: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder) / "error.json"
        command = [sys.executable, "-c", _TELLING, str(said), code, *arguments]
        status = subprocess.run(command, env=environment, check=False).returncode
        if said.is_file():
            raise InputError(*json.loads(said.read_text(encoding="utf-8")))
    if status:
        raise UsemaError(
            f"nnU-Net ended with exit code {status}.", "Its last lines above say why; run the command again to resume."
        )
