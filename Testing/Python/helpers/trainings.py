"""A small data set of real hippocampi, trainings of it that take seconds, and single steps of trainers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

CASES = ("003", "004", "007", "008", "011", "015")


def make_dataset(data: Path, folder: Path, **description) -> Path:
    """Six cases, with these changes of dataset.json, under a split that validates on the last two."""
    source = data / "nnUNet_raw/Dataset004_Hippocampus"
    dataset = folder / "Dataset004_Hippocampus"
    for part, ending in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
        (dataset / part).mkdir(parents=True)
        for case in CASES:
            shutil.copyfile(
                source / part / f"hippocampus_{case}{ending}", dataset / part / f"hippocampus_{case}{ending}"
            )
    described = json.loads((source / "dataset.json").read_text()) | {"numTraining": len(CASES)} | description
    (dataset / "dataset.json").write_text(json.dumps(described))
    names = [f"hippocampus_{case}" for case in CASES]
    (dataset / "splits_final.json").write_text(json.dumps([{"train": names[:4], "val": names[4:]}]))
    return dataset


# One step of every trainer on a real slice, in a process of its own, because nnU-Net reads its folders when imported.
STEP = """
import json, sys
from pathlib import Path
import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from usema.training import neighbours, robust, robust_2d, trainers as usual

trainers = {**vars(usual), **vars(neighbours), **vars(robust), **vars(robust_2d)}
if sys.argv[2]:
    sys.path.append(sys.argv[2])
    import accuracy_trainers
    trainers |= vars(accuracy_trainers)
preprocessed = Path(sys.argv[1])
plans = json.loads((preprocessed / "nnUNetPlans.json").read_text())
dataset = json.loads((preprocessed / "dataset.json").read_text())
case = np.load(next((preprocessed / "nnUNetPlans_2d").glob("*.npz")))
window = np.s_[:, 10:12, :48, :32]  # two slices
image, labels = (torch.from_numpy(case[name][window].astype("f4")).movedim(1, 0) for name in ("data", "seg"))
for name in sys.argv[3:]:
    trainer = trainers[name](plans=plans, configuration="2d", fold=0, dataset_json=dataset, device=torch.device("cpu"))
    trainer.initialize()
    trainer.lr_scheduler.step(0)
    scales = trainer._get_deep_supervision_scales()
    target = labels.clamp(0)
    if scales:
        target = [torch.nn.functional.interpolate(target, scale_factor=tuple(scale)) for scale in scales]
    if trainer.budget_seconds is not None:
        # As after one epoch of a minute, and then after nine.
        rates = []
        for done in (1, 9):
            log = trainer.logger.my_fantastic_logging
            log["epoch_start_timestamps"] = [60.0 * epoch for epoch in range(done)]
            log["epoch_end_timestamps"] = [60.0 * epoch + 60 for epoch in range(done)]
            trainer.current_epoch = done
            trainer.on_epoch_start()
            trainer.lr_scheduler.step(done)
            rates.append([trainer.num_epochs, trainer.optimizer.param_groups[0]["lr"] / trainer.initial_lr])
        print(json.dumps({"trainer": name, "rates": rates}))
        continue
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


def take_steps(results: Path, *trainers: str, folder: Path | str = "", **variables: str) -> dict[str, dict]:
    """What the trainers say after a step each, by name; in ``folder`` lie those of the accuracy experiment."""
    runs = results.parents[2]
    preprocessed = runs / "preprocessed" / results.parent.name
    folders = {"nnUNet_raw": runs, "nnUNet_preprocessed": preprocessed.parent, "nnUNet_results": runs / "steps"}
    environment = {**os.environ, **{name: str(path) for name, path in folders.items()}, **variables}
    run = subprocess.run(
        [sys.executable, "-c", STEP, str(preprocessed), str(folder), *trainers],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    rows = [json.loads(line) for line in run.stdout.splitlines() if line.startswith('{"trainer"')]
    return {row["trainer"]: row for row in rows}
