"""The fair experiment: networks that differ in one thing, trained and evaluated alike, in one table.

    python Testing/Benchmarks/accuracy.py [--dataset NAME] [--configuration 2d] [--iterations 600] [--seeds 0]
        [--folds 0] [--networks plain residual ...] [--spacing 3 3 3] [--device auto] [--runs FOLDER] [--keep-weights]

Every network is trained inside nnU-Net on one fold or several, with the same plan, recipe, iterations, augmentation
and seed (the rows whose names end in "paper's recipe" excepted), and its predictions of the fold's validation cases are
compared with the references. Nothing is chosen by looking at those cases: the last weights are used.

A run that was interrupted goes on at its last checkpoint. A finished one leaves its scores, case by case, in
Testing/Benchmarks/results/accuracy/, and is not trained again; the table is made anew from all that lie there. It
gives mean Dice, surface Dice and 95 % Hausdorff distance per label, with 95 % intervals by bootstrap over the cases of
all folds (seeds are averaged first), and the paired difference of the Dice to nnU-Net's plain U-Net, of the seeds that
both were trained with.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shutil
import statistics
import sys
from datetime import date
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "USEMASegmentation"))
DATA = ROOT.parent / "shared/data/nnUNet_raw"
RESULTS = Path(__file__).parent / "results"
# The surface Dice counts voxels of the surfaces (MONAI); published values mostly weigh them by area.
METRICS = {"dice": "Dice", "surface_dice": "surface Dice", "hausdorff95_mm": "HD95 / mm"}
BASELINE = "plain"
EPOCH = 50  # iterations in an epoch of the common recipe, AdamWInShortEpochs

UNSEEDED = (
    "¹ Trained before the seed reached nnU-Net's loader processes: it holds for the weights alone, patches and "
    "augmentations cannot be drawn again, and the processes' augmentations were partly copies of each other."
)

# name -> (trainer, title)
NETWORKS = {
    "plain": ("nnUNetTrainerControlPlain", "nnU-Net's plain U-Net"),
    "residual": ("nnUNetTrainerControlResidual", "residual, no attention"),
    "bottleneck": ("nnUNetTrainerControlBottleneck", "USEMA, bottleneck only"),
    "skip-full": ("nnUNetTrainerUSEMASmall", "USEMA, all stages but full resolution"),
    "all": ("nnUNetTrainerControlAllStages", "USEMA, all stages"),
    "window-only": ("nnUNetTrainerControlWindowOnly", "all stages, windows without the mean"),
    "mean-only": ("nnUNetTrainerControlMeanOnly", "all stages, the mean without windows"),
    "no-value": ("nnUNetTrainerControlNoValueProjection", "all stages, no value projection"),
    "mlla": ("nnUNetTrainerMLLAUNetSmall", "MLLA-UNet (T), half width"),
    "mlla-paper": ("nnUNetTrainerMLLAUNetHalf", "MLLA-UNet (T), half width, paper's recipe"),
    "attention-mamba": ("nnUNetTrainerAttentionMambaSmall", "Attention-Mamba, half width"),
    "attention-mamba-paper": ("nnUNetTrainerAttentionMambaHalf", "Attention-Mamba, half width, paper's recipe"),
}


def run(network: str, seed: int, fold: int, options: argparse.Namespace) -> dict:
    """Train one network, predict the fold's validation cases, and give what the table needs."""
    import accuracy_trainers
    from usema.quality.evaluation import evaluate_folders
    from usema.training.run import results_folder, train_dataset

    accuracy_trainers.link()
    trainer = NETWORKS[network][0]
    runs = options.runs / f"{options.iterations}-iterations-seed-{seed}"
    share_preprocessed(options.runs, runs)
    results = results_folder(options.dataset, runs, options.configuration, trainer)
    predictions = results / f"fold_{fold}" / "validation"
    if not (predictions / "summary.json").is_file():
        train_dataset(
            options.dataset,
            runs,
            configuration=options.configuration,
            trainer=trainer,
            fold=str(fold),
            device=options.device,
            iterations=options.iterations,
            spacing=options.spacing,
            seed=seed,
        )
    labels = json.loads((results / "dataset.json").read_text())["labels"]
    names = {value: name for name, value in labels.items() if name != "background"}
    references = links(options.dataset / "labelsTr", predictions, predictions.parent / "references")
    scores = evaluate_folders(predictions, references, names)
    parameters, macs = size(vars(accuracy_trainers)[trainer], results / "plans.json", options.configuration, labels)
    log = "".join(path.read_text() for path in sorted(predictions.parent.glob("training_log_*.txt")))
    if not options.keep_weights:
        shutil.rmtree(predictions.parent)
    return {
        "network": network,
        "trainer": trainer,
        "dataset": options.dataset.name,
        "configuration": options.configuration,
        "iterations": options.iterations,
        "spacing": options.spacing,
        "seed": seed,
        "fold": fold,
        "seeded_workers": True,  # before, the seed did not reach nnU-Net's loader processes
        "parameters": parameters,
        "macs": macs,
        "seconds_per_epoch": statistics.median(map(float, re.findall(r"Epoch time: ([\d.]+)", log))),
        "date": date.today().isoformat(),
        "machine": f"{os.cpu_count()} CPU cores, {options.device}, {os.environ.get('USEMA_THREADS', 'all')} threads",
        "scores": [
            [score.case, score.name, *(round(getattr(score, metric), 4) for metric in METRICS)] for score in scores
        ],
    }


def share_preprocessed(runs: Path, one: Path) -> None:
    """Preprocess once for all budgets and seeds."""
    (runs / "preprocessed").mkdir(parents=True, exist_ok=True)
    one.mkdir(exist_ok=True)
    if not (one / "preprocessed").exists():
        (one / "preprocessed").symlink_to("../preprocessed", target_is_directory=True)


def links(labels: Path, predictions: Path, folder: Path) -> Path:
    """A folder with the references of the predicted cases alone."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path in predictions.glob("*.nii.gz"):
        (folder / path.name).symlink_to(labels.resolve() / path.name)
    return folder


def size(trainer: type, plans: Path, configuration: str, labels: dict) -> tuple[int, int]:
    """Parameters, and MACs of one patch, of a trainer's network."""
    from usema.networks.cost import cost

    plan = json.loads(plans.read_text())["configurations"][configuration]
    architecture = plan["architecture"]

    def make():
        return trainer.build_network_architecture(
            architecture["network_class_name"],
            architecture["arch_kwargs"],
            architecture["_kw_requires_import"],
            1,
            len(labels),
            False,
        )

    return cost(make, (1, 1, *plan["patch_size"]))


# The table


def table(rows: list[dict]) -> str:
    """Markdown, one line per network and label."""
    by_network: dict[str, list[dict]] = {}
    for name in NETWORKS:
        if found := [row for row in rows if row["network"] == name]:
            by_network[name] = found
    labels = list(dict.fromkeys(score[1] for score in rows[0]["scores"]))
    values = {name: per_case(found) for name, found in by_network.items()}
    lines = [
        "| network | seeds | parameters / M | MACs / G | s per iteration | label | "
        + " | ".join(METRICS.values())
        + " | Dice minus plain |",
        "|---" * (7 + len(METRICS)) + "|",
    ]
    for name, found in by_network.items():
        seeds = len({row["seed"] for row in found})
        title = NETWORKS[name][1] + ("" if all(row.get("seeded_workers") for row in found) else " ¹")
        seconds = statistics.median(row["seconds_per_epoch"] for row in found) / EPOCH
        cells = f"{title} | {seeds} | {found[0]['parameters'] / 1e6:.2f} | "
        cells += f"{found[0]['macs'] / 1e9:.2f} | {seconds:.2f}"
        for label in (*labels, "mean") if len(labels) > 1 else labels:
            measured = values[name][label]
            metrics = [interval(measured[:, column], 3 if column < 2 else 2) for column in range(len(METRICS))]
            alone = name == BASELINE or BASELINE not in by_network
            difference = "" if alone else paired(by_network, name, label)
            lines.append(f"| {cells} | {label} | {' | '.join(metrics)} | {difference} |")
            cells = " | | | | "
    if any("¹" in line for line in lines):
        lines += ["", UNSEEDED]
    return "\n".join(lines)


def per_case(rows: list[dict]) -> dict[str, np.ndarray]:
    """Label, or "mean" of the labels -> (cases, metrics), averaged over seeds, cases in one order for all networks."""
    scores = sorted(score for row in rows for score in row["scores"])
    averaged = {}
    for label in dict.fromkeys(score[1] for score in rows[0]["scores"]):
        each = {case: [s[2:] for s in scores if s[:2] == [case, label]] for case in dict.fromkeys(s[0] for s in scores)}
        averaged[label] = np.array([np.mean(seeds, axis=0) for seeds in each.values()])
    return averaged | {"mean": np.mean(list(averaged.values()), axis=0)}


def in_common(rows: list[dict]) -> list[dict]:
    """Those of the folds that every network was trained on."""
    networks = {row["network"] for row in rows}
    folds = {fold_of(row) for row in rows}
    common = [fold for fold in folds if {row["network"] for row in rows if fold_of(row) == fold} == networks]
    return [row for row in rows if fold_of(row) in common]


def fold_of(row: dict) -> int:
    return row.get("fold", 0)


def interval(values: np.ndarray, digits: int) -> str:
    """The mean and its 95 % interval by bootstrap over the cases."""
    from scipy.stats import bootstrap

    values = values[np.isfinite(values)]
    found = bootstrap((values,), np.mean, rng=np.random.default_rng(0), method="percentile").confidence_interval
    return f"{values.mean():.{digits}f} ({found.low:.{digits}f} to {found.high:.{digits}f})"


def paired(by_network: dict[str, list[dict]], name: str, label: str) -> str:
    """The difference of the Dice to the plain U-Net, of the seeds that both have; empty if they share none."""
    pair = [by_network[name], by_network[BASELINE]]
    shared = set.intersection(*({row["seed"] for row in rows} for rows in pair))
    if not shared:
        return ""
    ours, theirs = (per_case([row for row in rows if row["seed"] in shared])[label][:, 0] for rows in pair)
    return interval(ours - theirs, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--dataset", type=DATA.joinpath, default="Dataset004_Hippocampus", help=f"path, or name in {DATA}"
    )
    parser.add_argument("--configuration", choices=("2d", "3d_fullres"), default="2d")
    parser.add_argument("--iterations", type=int, default=600)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--folds", type=int, nargs="+", default=[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--spacing", type=float, nargs=3, help="of the voxels of a 3D plan, in mm, z y x")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--runs", type=Path, default=Path("accuracy-runs"), help="work folder: data, checkpoints, logs")
    parser.add_argument("--keep-weights", action="store_true", help="keep the runs of finished networks")
    options = parser.parse_args()

    name = f"{options.dataset.name}-{options.configuration}-{options.iterations}"
    folder = RESULTS / "accuracy" / name
    folder.mkdir(parents=True, exist_ok=True)
    for seed, fold, network in itertools.product(options.seeds, options.folds, options.networks):
        row = folder / (f"{network}-seed-{seed}" + (f"-fold-{fold}" if fold else "") + ".json")
        if not row.is_file():
            row.write_text(json.dumps(run(network, seed, fold, options)) + "\n")
        write_table(folder)
    print((folder / "README.md").read_text())


def write_table(folder: Path) -> None:
    rows = in_common([json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))])
    if not rows:
        return  # no fold yet that all networks were trained on
    folds = sorted({fold_of(row) for row in rows})
    first = rows[0]
    budget = f"--dataset {first['dataset']} --configuration {first['configuration']} --iterations {first['iterations']}"
    if first.get("spacing"):
        budget += f" --spacing {' '.join(f'{side:g}' for side in first['spacing'])}"
    if folds != [0]:
        budget += f" --folds {' '.join(map(str, folds))}"
    dates = sorted(row["date"] for row in rows)
    when = " to ".join(dict.fromkeys((dates[0], dates[-1])))
    cases = len({score[0] for row in rows for score in row["scores"]})
    text = f"""# {first["dataset"]}, {first["configuration"]}, {first["iterations"]} iterations

Made by `python Testing/Benchmarks/accuracy.py {budget}` on {first["machine"]}; {when}.
{cases} validation cases{f" of {len(folds)} folds" if len(folds) > 1 else ""}. The surface Dice counts voxels of the \
surfaces (MONAI), within 1 mm. In brackets: 95 %
interval by bootstrap over the cases; it does not hold how another seed would do. Seconds are the median epoch's, on a
machine that may have been busy with other work.

{table(rows)}
"""
    (folder / "README.md").write_text(text)


if __name__ == "__main__":
    main()
