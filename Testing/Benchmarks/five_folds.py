"""A recipe on every case of a data set: trained once for each fold, measured on the cases that the fold left out.

    python Testing/Benchmarks/five_folds.py --dataset Dataset051_SarcomaMR --trainer nnUNetTrainerUSEMARobustMirrored
        --iterations 2250 --spacing 3 3 3 [--folds 0 1 2 3 4] [--card CARD.json] [--runs FOLDER]
        [--temperature 3.12]

Trains as `usema train` does (a run that was interrupted goes on at its last checkpoint), exports each fold as
a bundle, and measures it as users have it: by the engine, as `usema card` does. Figures go to
Testing/Benchmarks/results/five_folds, fold by fold; what is there is not done again, and the table is made anew. It has
mean Dice, surface Dice and 95 % Hausdorff distance over all cases with 95 % bootstrap intervals over the cases, beside
an atlas of the same folds that never looks at the image; the cases by size, the worst ones with what is wrong in them,
and calibration: each fold's probabilities with the temperature of the other folds. Where the data set's own split has
fewer than five folds, the cases that it never leaves out are dealt to the others.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from datetime import date
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "USEMASegmentation"), str(ROOT / "Testing/Python/helpers")]

from accuracy import METRICS  # noqa: E402
from atlas import DATA, atlas_dice  # noqa: E402
from five_folds_table import write_table  # noqa: E402

RESULTS = Path(__file__).parent / "results/five_folds"
CONFIGURATION, FOLDS = "3d_fullres", 5
PARTS = ("logits", "labels")  # of voxels


def run(fold: int, options: argparse.Namespace) -> dict:
    """Train one fold, and measure its bundle."""
    from usema.quality.card.measure import measure
    from usema.quality.card.results import read_results
    from usema.quality.card.text import write_card
    from usema.quality.labelled_cases import describe_cases, find_cases, read_folds

    model = trained(fold, options)
    split = options.runs / "preprocessed" / options.dataset.name / "splits_final.json"
    images, channels = options.dataset / "imagesTr", len(model.metadata.channels)
    cases = find_cases(images, options.dataset / "labelsTr", channels, split, fold)
    described, left_out = describe_cases(model.metadata, images, split, fold)
    assert left_out, f"{model.path} was trained on cases of fold {fold}"
    model = measure(model, cases, cases_from=described, left_out=left_out, device=options.device, progress=print)
    write_card(model)
    keep_voxels(model, cases, options, fold)
    measured, atlas = read_results(model), atlas_dice(options.dataset, read_folds(split)[fold])
    return {
        "fold": fold,
        "training": model.metadata.training,
        "spacing": options.spacing,
        "checkpoint": options.checkpoint,
        "tolerance_mm": measured.tolerance_mm,
        "machine": f"{os.cpu_count()} CPU cores, {options.device}",
        "date": date.today().isoformat(),
        "atlas": {name: np.round(dice, 4).tolist() for name, dice in atlas.items()},
        "cases": [
            {
                "case": case.case,
                "label": label.label,
                **{metric: round(getattr(label, metric), 4) for metric in METRICS},
                **{size: round(getattr(label, size), 3) for size in ("reference_ml", "predicted_ml")},
                "missing_ml": round(sum(label.missing_ml.values()), 3),
                "added_ml": round(sum(label.added_ml.values()), 3),
            }
            for case in measured.cases
            for label in case.labels
        ],
    }


def with_five_folds(dataset: Path, runs: Path) -> Path:
    """The data set, or links to it beside a split that leaves every case out once."""
    path = dataset / "splits_final.json"
    if not path.is_file() or len(json.loads(path.read_text())) >= FOLDS:  # without one, nnU-Net deals five
        return dataset
    linked = runs / "raw" / dataset.name
    linked.mkdir(parents=True, exist_ok=True)
    for name in ("imagesTr", "labelsTr", "dataset.json"):
        if not (linked / name).exists():
            (linked / name).symlink_to((dataset / name).resolve())
    (linked / path.name).write_text(json.dumps(completed(json.loads(path.read_text())), indent=1))
    return linked


def completed(folds: list[dict[str, list[str]]]) -> list[dict[str, list[str]]]:
    """Five folds, those given first: the cases that none of them leaves out are dealt to the others."""
    every = sorted({case for fold in folds for part in fold.values() for case in part})
    left = sorted(set(every).difference(*(fold["val"] for fold in folds)))
    dealt = np.array_split(np.random.default_rng(0).permutation(left), FOLDS - len(folds))
    return [
        *folds,
        *({"train": sorted(set(every) - set(val)), "val": sorted(val)} for val in map(np.ndarray.tolist, dealt)),
    ]


def trained(fold: int, options: argparse.Namespace):
    """The bundle of a fold."""
    from usema.training.export import export_bundle
    from usema.training.run import results_folder, train_dataset

    results = results_folder(options.dataset, options.runs, CONFIGURATION, options.trainer)
    if not (results / f"fold_{fold}/validation/summary.json").is_file():
        train_dataset(
            options.dataset,
            options.runs,
            configuration=CONFIGURATION,
            trainer=options.trainer,
            fold=str(fold),
            device=options.device,
            iterations=options.iterations,
            spacing=options.spacing,
        )
    bundle = options.runs / "bundles" / f"fold-{fold}"
    return export_bundle(
        results,
        bundle,
        card=options.card,
        dataset=options.dataset,
        fold=str(fold),
        checkpoint=options.checkpoint,
        overwrite=True,
        report=print,
    )


def keep_voxels(model, cases: list, options: argparse.Namespace, fold: int) -> None:
    """Logits and reference labels near the foreground: what a temperature is fitted on."""
    from usema.inference.predictor import Predictor
    from usema.quality.calibration_voxels import LOGIT_TEMPERATURE, read_voxels

    predictor = Predictor(model, options.device)
    predictor.temperature = LOGIT_TEMPERATURE
    found = [read_voxels(predictor, case)[0] for case in cases]
    pairs = {
        f"{part}-{case.name}": getattr(one, part) for case, one in zip(cases, found, strict=True) for part in PARTS
    }
    np.savez_compressed(voxels_file(options, fold), **pairs)


def voxels_file(options: argparse.Namespace, fold: int) -> Path:
    return options.runs / "bundles" / f"voxels-{fold}.npz"


def calibration(options: argparse.Namespace) -> dict | None:
    """Errors over all cases: without a temperature, with that of the other folds, and with the one that was asked for.

    None without the voxels of all folds.
    """
    from usema.quality.calibration import Reliability, Voxels, fit_temperature
    from usema.quality.calibration_voxels import REGION

    files = {fold: voxels_file(options, fold) for fold in options.folds}
    if len(files) < 2 or not all(path.is_file() for path in files.values()):
        return None
    voxels = {}
    for fold, path in files.items():
        kept = np.load(path)
        names = [name.removeprefix("labels-") for name in kept.files if name.startswith("labels-")]
        voxels[fold] = [Voxels(*(kept[f"{part}-{name}"] for part in PARTS)) for name in names]
    before, after, asked, temperatures = Reliability(), Reliability(), Reliability(), {}
    for fold, cases in voxels.items():
        others = [case for other in voxels if other != fold for case in voxels[other]]
        temperatures[fold] = fit_temperature(others)
        for case in cases:
            before.add(case)
            after.add(case, temperatures[fold])
            if options.temperature:
                asked.add(case, options.temperature)
    every = fit_temperature([case for cases in voxels.values() for case in cases])
    states = (before, after, asked) if options.temperature else (before, after)
    errors = {name: [round(getattr(state, name), 4) for state in states] for name in ("ece", "nll", "brier")}
    found = {"region": REGION, "temperature": every, "of_the_other_folds": temperatures, **errors}
    return {**found, "asked": options.temperature} if options.temperature else found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=DATA.joinpath, required=True, help=f"path, or name in {DATA}")
    parser.add_argument("--trainer", required=True, help="a class of usema.training")
    parser.add_argument("--iterations", type=int, required=True)
    parser.add_argument("--spacing", type=float, nargs=3, help="of the voxels that the network sees, in mm, z y x")
    parser.add_argument("--folds", type=int, nargs="+", default=[*range(FOLDS)])
    parser.add_argument("--card", type=Path, help="JSON for `usema export --card`")
    parser.add_argument("--checkpoint", choices=("final", "best"), default="final", help="as of `usema export`")
    parser.add_argument("--temperature", type=float, help="that of a published model: its errors on all cases, too")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--runs", type=Path, default=Path("five-folds-runs"), help="work folder: data, checkpoints")
    options = parser.parse_args()

    options.dataset = with_five_folds(options.dataset, options.runs)
    folder = RESULTS / f"{options.dataset.name}-{options.trainer}-{options.iterations}"
    folder.mkdir(parents=True, exist_ok=True)
    for fold in options.folds:
        row = folder / f"fold-{fold}.json"
        if not row.is_file():
            row.write_text(json.dumps(run(fold, options), indent=1) + "\n")
        write_table(folder)
    if found := calibration(options):
        (folder / "calibration.json").write_text(json.dumps(found, indent=1) + "\n")
        write_table(folder)
    print((folder / "README.md").read_text())


if __name__ == "__main__":
    main()
