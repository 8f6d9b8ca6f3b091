"""The models for two-dimensional images: how they were trained, what they reach, and whether SEMA pays in 2D.

    python Testing/Benchmarks/images2d.py [--models fetal-head-us ...] [--networks usema plain] [--runs FOLDER]
        [--iterations N] [--bundles FOLDER]

Each data set of shared/data/images2d is trained inside nnU-Net on the `train` part of its split, USEMA beside nnU-Net's
plain U-Net, with the same plan, recipe, iterations, augmentation and seed. Nothing is chosen by looking at the
validation images but what README.md says: the last weights are used, averaged over the last iterations. A run that was
interrupted goes on at its last checkpoint.

Two tables come out of it in Testing/Benchmarks/results/images2d. Networks are compared by nnU-Net's own predictions of
the validation images, mirrored and at the size that the network sees. The bundle (USEMA's alone; some
are trained on from there, see FURTHER) is measured as users have it: by the engine, on the images as they
were given, and again after each change of images2d_measure.py. Results are kept as JSON; what is there is not done
again.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import sys
from datetime import date
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "USEMASegmentation"))

from accuracy import EPOCH, interval, size  # noqa: E402
from images2d_data import DATA_SETS, DataSet, given, plan, prepare  # noqa: E402
from images2d_measure import CHANGES, Case, cases, dice, f1, matched_objects  # noqa: E402

RESULTS = Path(__file__).parent / "results/images2d"
ITERATIONS = {"fetal-head-us": 2600, "lungs-cxr": 1100, "nuclei-fluo": 1000}
# How the published models are trained on, each step from the weights of the one before: endings of trainers' names,
# and iterations.
FURTHER = {
    "fetal-head-us": (("Finish", 600),),
    "lungs-cxr": (("Finish", 400),),
    "nuclei-fluo": (("Objects", 350),),
}
CHANGED = 24  # images that are measured again after each change
NETWORKS = {"usema": "USEMA, SEMA at the bottleneck", "plain": "nnU-Net's plain U-Net"}
MEASURES = {"dice": "Dice", "hc_error_mm": "circumference, mean absolute error / mm", "f1": "F1 at IoU 0.5"}


def train(data: DataSet, network: str, iterations: int, runs: Path) -> tuple[str, Path]:
    """The trainer's name and the results folder, which has the predictions of the validation images."""
    plan(data, prepare(data, runs), runs)
    trainer = data.trainer
    if network == "plain":
        import images2d_trainers

        images2d_trainers.link()
        trainer = trainer.replace("USEMARobust2D", "ControlPlain2D")
    return trainer, trained(data, trainer, iterations, runs)


def trained(data: DataSet, trainer: str, iterations: int, runs: Path, start=None) -> Path:
    from usema.training.run import results_folder, train_dataset

    raw = prepare(data, runs)
    results = results_folder(raw, runs, "2d", trainer)
    last = "fold_0/validation/summary.json" if start is None else "fold_0/checkpoint_final.safetensors"
    if not (results / last).is_file():
        options = {"configuration": "2d", "trainer": trainer, "device": "cpu", "iterations": iterations}
        train_dataset(raw, runs, start=start, **options)
    return results


# Networks beside each other


def compared(data: DataSet, network: str, iterations: int, runs: Path) -> dict:
    """What the table of networks needs."""
    from images2d_trainers import trainer_class

    trainer, results = train(data, network, iterations, runs)
    log = "".join(path.read_text() for path in sorted((results / "fold_0").glob("training_log_*.txt")))
    parameters, macs = size(trainer_class(trainer), results / "plans.json", "2d", data.labels)
    return {
        "network": network,
        "trainer": trainer,
        "iterations": iterations,
        "parameters": parameters,
        "macs": macs,
        "seconds_per_epoch": statistics.median(map(float, re.findall(r"Epoch time: ([\d.]+)", log))),
        "date": date.today().isoformat(),
        "scores": predicted_scores(data, results / "fold_0/validation", runs),
    }


def predicted_scores(data: DataSet, predictions: Path, runs: Path) -> list[dict]:
    """nnU-Net's predictions of the validation images, as small as they are, beside what was drawn, reduced likewise."""
    from usema.measure import Scale, measure
    from usema.measure.objects import split_objects

    scores = []
    for case in cases(data):
        found = np.asarray(Image.open(predictions / f"{case.name}.png"))
        if "boundary" in data.labels:
            objects = split_objects(found == 1, found == 2, "watershed", 25)
            scores.append(object_scores(case, objects))
            continue
        drawn = np.asarray(Image.open(runs / "raw" / data.name / "labelsTr" / f"{case.name}.png"))
        score = {"case": case.name, "dice": round(dice(found == 1, drawn == 1), 4)}
        if case.pixel_mm:
            pixel = case.pixel_mm * max(case.image.shape) / max(found.shape)
            score |= head_error(
                case, measure(["head_circumference"], found[None], None, Scale(pixel, pixel, True))[0][0]
            )
        scores.append(score)
    return scores


def object_scores(case: Case, objects: np.ndarray) -> dict:
    hits = matched_objects(objects, case.drawn)
    return {
        "case": case.name,
        "dice": round(dice(objects > 0, case.drawn > 0), 4),
        "f1": round(f1(*hits), 4),
        "objects": list(hits),
    }


def head_error(case: Case, measurements: list) -> dict:
    """The signed error of the circumference; a head that was not found counts with its whole circumference."""
    found = next((one.value for one in measurements if one.name == "Head circumference"), 0.0)
    return {"hc_error_mm": round(found - case.published_mm, 3)}


# The bundle as users have it


def exported(name: str, data: DataSet, iterations: int, runs: Path, bundles: Path):
    """The bundle that is published; the training goes on for it as FURTHER says."""
    from usema.training.export import export_bundle

    bundles.mkdir(parents=True, exist_ok=True)
    _, results = train(data, "usema", iterations, runs)
    card = ROOT / f"Resources/Cards/{name}.json"
    for step, (ending, more) in enumerate(FURTHER[name], 1):
        early = runs / f"{name}.json"
        early.write_text(json.dumps(json.loads(card.read_text()) | {"version": f"0.0.{step}"}))
        start = export_bundle(results, runs / name, card=early, overwrite=True)
        results = trained(data, f"{data.trainer}{ending}", more, runs, start)
    return export_bundle(results, bundles / name, card=card, overwrite=True)


def segmented(predictor, case: Case):
    """What the engine finds in an image."""
    from usema.volumes.geometry import Geometry
    from usema.volumes.pictures import Picture

    rows, columns = case.image.shape
    pixel = case.pixel_mm or 1.0
    grid = Geometry((columns, rows, 1), (pixel, pixel, 1.0), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    return predictor.segment(Picture(case.image[None], grid, pixel_size_known=case.pixel_mm is not None))


def product_score(data: DataSet, predictor, case: Case) -> dict:
    result = segmented(predictor, case)
    if "boundary" in data.labels:
        return object_scores(case, result.image.objects[0])
    score = {"case": case.name, "dice": round(dice(result.labels[0] == 1, case.drawn == 1), 4)}
    return score | head_error(case, result.image.measurements[0]) if case.published_mm else score


def product(data: DataSet, bundle) -> dict:
    """The engine's results of the validation images, as they were given and changed; figures go into the bundle."""
    import torch
    from usema.inference.predictor import Predictor
    from usema.models.bundle_writing import change_metadata

    torch.set_num_threads(int(os.environ.get("USEMA_THREADS", "1")))
    predictor = Predictor(bundle, "cpu")
    every = list(cases(data))
    scores = {"as given": [product_score(data, predictor, case) for case in every]}
    for name, change in CHANGES.items():
        changed = (change(case, np.random.default_rng(seed)) for seed, case in enumerate(every[:CHANGED]))
        scores[name] = [product_score(data, predictor, case) for case in changed]
    change_metadata(
        bundle,
        metrics={
            **bundle.metadata.metrics,
            "measurements": measured_rows(scores["as given"]),
            "robustness": drop_rows(scores),
        },
    )
    return {
        "model": f"{bundle.metadata.name} {bundle.metadata.version}",
        "weights_sha256": bundle.metadata.weights["sha256"],
        "date": date.today().isoformat(),
        "scores": scores,
    }


def measured_rows(scores: list[dict]) -> dict[str, dict]:
    """What the model measures itself, as metrics.measurements of a model has it."""
    rows = {}
    for key, name in (("hc_error_mm", "Head circumference, absolute error / mm"), ("f1", "F1 of objects at IoU 0.5")):
        values = np.abs([score[key] for score in scores if key in score])
        if len(values):
            low, high = _bounds(values)
            rows[name] = {"cases": len(values), "mean": round(float(values.mean()), 4), "low": low, "high": high}
    return rows


def drop_rows(scores: dict[str, list[dict]]) -> list[dict]:
    """What each change costs of the Dice, as metrics.robustness of a model has it."""
    before, rows = np.array([score["dice"] for score in scores["as given"][:CHANGED]]), []
    for name in list(scores)[1:]:
        drops = before - [score["dice"] for score in scores[name]]
        low, high = _bounds(drops)
        drop = round(float(drops.mean()), 4) + 0.0
        rows.append({"change": name, "cases": len(drops), "dice_drop": drop, "low": low, "high": high})
    return rows


def _bounds(values: np.ndarray) -> tuple[float, float]:
    from scipy.stats import bootstrap

    found = bootstrap((values,), np.mean, rng=np.random.default_rng(0), method="percentile").confidence_interval
    return round(float(found.low), 4), round(float(found.high), 4)


# Tables


def means(scores: list[dict]) -> dict[str, str]:
    """Measure -> its mean over the images, with its interval."""
    found = {}
    for key in MEASURES:
        values = np.abs([score[key] for score in scores if key in score])
        if len(values):
            found[key] = interval(values, 2 if key.endswith("mm") else 4)
    return found


def table_of_networks(rows: list[dict]) -> str:
    measures = [key for key in MEASURES if key in rows[0]["scores"][0]]
    heads = [
        "network",
        "iterations",
        "parameters / M",
        "MACs / G",
        "s per iteration",
        *(MEASURES[key] for key in measures),
    ]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        cells = [
            NETWORKS[row["network"]],
            row["iterations"],
            f"{row['parameters'] / 1e6:.2f}",
            f"{row['macs'] / 1e9:.2f}",
        ]
        seconds = row["seconds_per_epoch"]  # null, by hand, where the computer had other work
        cells.append(f"{seconds / EPOCH:.2f}" if seconds else "not measured")
        lines.append(f"| {' | '.join(map(str, (*cells, *means(row['scores']).values())))} |")
    if len(rows) > 1:
        by_case = [
            np.array([score["dice"] for score in sorted(row["scores"], key=lambda s: s["case"])]) for row in rows
        ]
        lines += [
            "",
            f"Dice of USEMA less that of the plain U-Net, image by image: {interval(by_case[0] - by_case[1], 4)}.",
        ]
    return "\n".join(lines)


def table_of_changes(scores: dict[str, list[dict]]) -> str:
    measures = [key for key in MEASURES if key in scores["as given"][0]]
    lines = [f"| image | {' | '.join(MEASURES[key] for key in measures)} |", "|---" * (len(measures) + 1) + "|"]
    both = {"as given": scores["as given"], f"the first {CHANGED} of them": scores["as given"][:CHANGED]}
    for name, found in (both | dict(list(scores.items())[1:])).items():
        values = means(found)
        lines.append(f"| {name} | {' | '.join(values.get(key, '') for key in measures)} |")
    return "\n".join(lines)


def write_table(name: str) -> None:
    folder = RESULTS / name
    rows = [json.loads(path.read_text()) for key in NETWORKS if (path := folder / f"{key}.json").is_file()]
    text = f"# {name}\n\nMade by `python Testing/Benchmarks/images2d.py --models {name}`; {rows[0]['date']}.\n"
    text += f"{len(rows[0]['scores'])} validation images; in brackets: 95 % interval by bootstrap over them.\n\n"
    text += f"## Networks\n\nnnU-Net's predictions, at the size that the network sees.\n\n{table_of_networks(rows)}\n"
    if (folder / "product.json").is_file():
        measured = json.loads((folder / "product.json").read_text())
        text += (
            f"\n## {measured['model']}\n\nBy the engine, on the images as they were given, and after each change.\n\n"
        )
        text += f"{table_of_changes(measured['scores'])}\n"
        if "objects" in (first := measured["scores"]["as given"])[0]:
            hits = np.sum([score["objects"] for score in first], axis=0)
            text += f"\nAll objects of all images together: F1 {f1(*hits):.4f} ({hits[0]} found, {hits[1]} wrong, "
            text += f"{hits[2]} missed).\n"
    (folder / "README.md").write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=DATA_SETS, default=list(DATA_SETS))
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--iterations", type=int, help="default: those of the published models")
    parser.add_argument("--runs", type=Path, default=Path("images2d-runs"), help="work folder: data, checkpoints")
    parser.add_argument(
        "--bundles", type=Path, help="export USEMA's networks here, and measure them as users have them"
    )
    options = parser.parse_args()
    runs = options.runs.resolve()
    for name in options.models:
        data, folder = DATA_SETS[name], RESULTS / name
        folder.mkdir(parents=True, exist_ok=True)
        for network in options.networks:
            if not (row := folder / f"{network}.json").is_file():
                found = compared(data, network, options.iterations or ITERATIONS[name], runs)
                row.write_text(json.dumps(found) + "\n")
        if options.bundles and not (folder / "product.json").is_file():
            bundle = exported(name, data, options.iterations or ITERATIONS[name], runs, options.bundles)
            measured = product(data, bundle)
            given(data, prepare(data, runs), runs)
            (folder / "product.json").write_text(json.dumps(measured) + "\n")
        write_table(name)
        print((folder / "README.md").read_text())


if __name__ == "__main__":
    main()
