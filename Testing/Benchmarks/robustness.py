"""How much of a model's Dice is left on what hospitals send: other orientations, intensities, spacings, fields of view.

    python Testing/Benchmarks/robustness.py [--model hippocampus-mr] [--cases 6] [--machine WORDS] [--write]
    python Testing/Benchmarks/robustness.py --model NAME --images DIR --labels DIR --split FILE [--write --into-model]

Segments each validation case of fold 0, and again after each change of robustness_cases.py (Testing/Python/helpers),
which says how results are compared. The drop is the case's mean Dice over the labels before the change less that after
it, each against its own reference; the mean over the cases, with its 95 % interval by bootstrap over them. "Of the
grid" is the drop of the unchanged result when it follows the change as the reference does: what the copy's voxels cost
a model that finds exactly the same. Seconds are the median of a case, whole: preprocessing, network, and labels on the
input's grid.

--write appends the table to results/robustness_<model>.md; with --into-model, metrics.robustness in the model's
model.json is replaced as well.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import median

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "USEMASegmentation"), str(ROOT / "Testing/Python/helpers")]

import torch  # noqa: E402
from robustness_cases import ALLOWED_DROP, FURTHER, REQUIRED, Changed, unmoved  # noqa: E402
from scipy.stats import bootstrap  # noqa: E402
from usema.inference.predictor import Predictor  # noqa: E402
from usema.models.bundle import read_bundle  # noqa: E402
from usema.models.bundle_writing import change_metadata  # noqa: E402
from usema.store.library import find_model  # noqa: E402
from usema.volumes.volume import Volume, load_volume, read_volume  # noqa: E402

DATA = ROOT.parent / "shared/data/nnUNet_raw/Dataset004_Hippocampus"
RESULTS = Path(__file__).parent / "results"
UNCHANGED = "unchanged"
CHANGES = {UNCHANGED: lambda image, reference, rng: Changed(image, unmoved), **REQUIRED, **FURTHER}


@dataclass(frozen=True, eq=False)
class Outcome:
    """One case after one change: Dice of each label, Dice of the unchanged result that followed, seconds."""

    dice: np.ndarray
    followed: np.ndarray
    seconds: float


def measure(predictor: Predictor, image: Volume, reference: np.ndarray, seed: int) -> dict[str, Outcome]:
    """One case after every change, by the change's name."""
    values = tuple(label.value for label in predictor.metadata.labels)
    outcomes, unchanged = {}, None
    for name, change in CHANGES.items():
        changed = change(image, reference, np.random.default_rng(seed))
        started = time.perf_counter()
        labels = predictor.segment(changed.image).labels
        seconds = time.perf_counter() - started
        unchanged = labels if unchanged is None else unchanged
        truth = changed.follow(reference)
        followed = changed.dice(changed.follow(unchanged), truth, values)
        outcomes[name] = Outcome(changed.dice(labels, truth, values), followed, seconds)
    return outcomes


def drop_rows(cases: list[dict[str, Outcome]]) -> list[dict]:
    """The mean drop of each change with its interval, as metrics.robustness has it."""
    rows = []
    for name in list(CHANGES)[1:]:
        drops = paired_drops(cases, name)
        low, high = interval(drops)
        drop = round(float(drops.mean()), 4) + 0.0  # no -0.0
        rows.append({"change": name, "cases": len(drops), "dice_drop": drop, "low": low, "high": high})
    return rows


def paired_drops(cases: list[dict[str, Outcome]], name: str, attribute: str = "dice") -> np.ndarray:
    """Of each case, mean over the labels; ``attribute`` is that of Outcome."""
    before = [np.nanmean(case[UNCHANGED].dice) for case in cases]
    after = [np.nanmean(getattr(case[name], attribute)) for case in cases]
    return np.subtract(before, after)


def interval(drops: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of the mean, by bootstrap over the cases."""
    found = bootstrap((drops,), np.mean, rng=np.random.default_rng(0), method="percentile").confidence_interval
    return round(float(found.low), 4), round(float(found.high), 4)


def table(cases: list[dict[str, Outcome]], labels: list[str]) -> str:
    """Markdown, one line per change. Labels that neither references nor results have (sides, in crops) are left out."""
    scores = {name: np.array([case[name].dice for case in cases]) for name in CHANGES}
    there = ~np.isnan(np.concatenate(list(scores.values()))).all(axis=0)
    labels = [label for label, found in zip(labels, there, strict=True) if found]
    heads = ["change", *(f"Dice {label}" for label in labels), "drop (95 % interval)", "of the grid"]
    heads += [f"cases that drop > {ALLOWED_DROP}", "seconds"]
    drops = {row["change"]: row for row in drop_rows(cases)}
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name in CHANGES:
        cells = [name, *(f"{score:.3f}" for score in np.nanmean(scores[name][:, there], axis=0))]
        if name in drops:
            row = drops[name]
            cells.append(f"{row['dice_drop']:.3f} ({row['low']:.3f} to {row['high']:.3f})")
            cells.append(f"{paired_drops(cases, name, 'followed').mean():.3f}")
            cells.append(f"{(paired_drops(cases, name) > ALLOWED_DROP).mean():.0%}")
        else:
            cells += ["", "", ""]
        cells.append(f"{median(case[name].seconds for case in cases):.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="hippocampus-mr", help="a name or a path")
    parser.add_argument("--images", type=Path, default=DATA / "imagesTr", help="<case>_0000.nii.gz")
    parser.add_argument("--labels", type=Path, default=DATA / "labelsTr", help="<case>.nii.gz")
    parser.add_argument("--split", type=Path, default=DATA / "splits_final.json", help="nnU-Net's; fold 0 is used")
    parser.add_argument("--cases", type=int, help="the first so many; default: all")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--machine", default="", help="in words, for the results")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--into-model", action="store_true", help="with --write: into model.json too")
    options = parser.parse_args()
    if options.into_model and not options.write:
        parser.error("--into-model goes with --write")
    names = json.loads(options.split.read_text())[0]["val"][: options.cases]
    if len(names) < 2:
        parser.error(f"an interval needs two cases or more, not {len(names)}")

    torch.set_num_threads(options.threads)
    bundle = read_bundle(find_model(options.model))
    predictor = Predictor(bundle, "cpu")
    cases = []
    for seed, name in enumerate(names):
        image = read_volume(options.images / f"{name}_0000.nii.gz")
        reference = load_volume(options.labels / f"{name}.nii.gz").array
        cases.append(measure(predictor, image, reference, seed))
        print(f"{seed + 1} of {len(names)}: {name}", file=sys.stderr, flush=True)

    about = bundle.metadata
    machine = options.machine or f"{os.cpu_count()} cores, cpu"
    title = f"{date.today()}, {machine}, {options.threads} threads, model {about.name} {about.version}"
    command = f"python Testing/Benchmarks/robustness.py --model {about.name} --cases {len(names)}"
    command += f" --threads {options.threads}"
    title += f", {len(names)} cases of {options.labels.resolve().parent.name}"
    text = f"## {title}\n\n`{command}`\n\n{table(cases, [one.name for one in about.labels])}\n"
    print(text)
    if options.write:
        with (RESULTS / f"robustness_{about.name}.md").open("a", encoding="utf-8") as file:
            file.write(text + "\n")
        if options.into_model:
            change_metadata(bundle, metrics={**about.metrics, "robustness": drop_rows(cases)})


if __name__ == "__main__":
    main()
