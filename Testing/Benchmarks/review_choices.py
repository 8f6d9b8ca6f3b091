"""Choices in reviewing that could have been made otherwise, each measured on cases that the model was not trained on.

    python Testing/Benchmarks/review_choices.py [--cases 26] [--strokes-cases 6]

* Threshold: the mean Dice over positions of the slider, and each case's own best one. Is one better than 0?
* Doubtful regions: do they find more of the errors if places where a mirrored copy of the volume gives other
  probabilities count as well?
* Refine: do fresh logits around the strokes, with tiles that overlap by three quarters and mirrored copies, lead to
  better corrections than the margins that were kept?

The answers go to results/review_choices_*.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
from review import RESULTS, ROOT, STROKES, ArrayPort, cases_of, covered, dice, draw, first, pooled, true_errors
from usema.inference.predictor import Predictor
from usema.models.bundle import read_bundle
from usema.quality import review_regions
from usema.resources import bundled_models
from usema.volumes.margins import STEP
from USEMASegmentationLib.Review import Refine
from USEMASegmentationLib.Review.Threshold import gaps

LOGITS = (-2.0, -1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0, 2.0)
WEIGHTS = (0.0, 0.5, 1.0)


def by_position(margins, labels, reference, value: int) -> list[float]:
    """The Dice of a label at each position of its slider."""
    own = margins.of[value]
    gap = gaps(margins, value, {}, own.box)
    outside, found = (labels == value).copy(), []
    outside[own.box] = False
    for logits in LOGITS:
        mask = outside.copy()
        mask[own.box] = gap >= -round(logits / STEP)
        found.append(dice(mask, reference == value, [1]))
    return found


def with_disagreement(margins, disagreement: np.ndarray, weight: float, spacing) -> list:
    """The regions if disagreement counts so much beside doubt."""
    doubt, labels, box = review_regions.doubts(margins)
    more = (doubt + np.float32(weight) * disagreement[box], labels, box)
    with patch.object(review_regions, "doubts", lambda _: more):
        return review_regions.find(margins, spacing)


def fresh(port: ArrayPort, margins) -> None:
    """`Refine.refine`, but other margins than those of the result tell what shall be."""
    box = Refine._around(Refine.Strokes.of(port).mask.box, port)
    now, kept = port.labels[box].copy(), port.margins
    answers = iter([lambda *_: now, Refine.labels_of])  # what is there, and what shall be
    port.margins = margins
    with patch.object(Refine, "labels_of", lambda *logits: next(answers)(*logits)):
        Refine.refine(port)
    port.margins = kept


def strokes(case, result, better, ways) -> dict[str, list[float]]:
    """The Dice after strokes of a simulated user, with the margins that were kept and with fresh ones."""
    _, volume, reference = case
    spacing, values = volume.geometry.spacing_zyx, [label.value for label in result.model_labels]
    rows = {}
    for way in ways:
        rng = np.random.default_rng(0)
        port = ArrayPort(volume.array, spacing, result.labels.astype(np.int32), result.margins)
        row = [dice(port.labels, reference, values)]
        for _ in range(max(STROKES)):
            place = draw(port.labels, reference, rng)
            if place:
                port.labels[place] = reference[place]
                Refine.refine(port) if way == "kept" else fresh(port, better.margins)
            row.append(dice(port.labels, reference, values))
        rows[way] = [row[0], *(row[count] for count in STROKES)]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, default=bundled_models()["hippocampus-mr"])
    parser.add_argument("--dataset", default="Dataset004_Hippocampus")
    parser.add_argument("--cases", type=int)
    parser.add_argument("--strokes-cases", type=int, default=6)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    options = parser.parse_args()
    bundle = read_bundle(options.model)
    names = sorted(case["case"] for case in json.loads((bundle.path / "card" / "cases.json").read_text())["cases"])
    predictor, dataset = Predictor(bundle, "cpu"), options.data / "nnUNet_raw" / options.dataset
    positions, lists, drawn, seconds = {}, [], {"kept": [], "fresh": []}, {"plain": 0.0, "fresh": 0.0}
    for number, case in enumerate(cases_of(dataset, names[: options.cases])):
        name, volume, reference = case
        started = time.process_time()
        plain = predictor.segment(volume, margins=True, probabilities=True)
        between = time.process_time()
        better = predictor.segment(volume, margins=True, probabilities=True, overlap=0.75, mirror=True)
        seconds["plain"] += between - started
        seconds["fresh"] += time.process_time() - between
        for label in plain.model_labels:
            row = by_position(plain.margins, plain.labels, reference, label.value)
            positions.setdefault(label.name, []).append(row)
        spacing = volume.geometry.spacing_zyx
        errors = true_errors(plain.labels, reference, spacing)
        if errors.any():
            mirrored = predictor.segment(volume, probabilities=True, mirror=True)
            # the mean of two copies differs from the first one by half of what these differ
            apart = np.abs(plain.probabilities.astype(np.float32) - mirrored.probabilities).sum(axis=0)
            row = {"error_ml": errors.sum() * float(np.prod(spacing)) / 1000}
            for weight in WEIGHTS:
                regions = with_disagreement(plain.margins, apart, weight, spacing)
                row[weight] = first(covered([one.box for one in regions], errors))
            lists.append(row)
        if number < options.strokes_cases:
            for way, row in strokes(case, plain, better, drawn).items():
                drawn[way].append(row)
        print(name, flush=True)
    text = report(bundle.metadata.name, positions, lists, drawn, seconds)
    (RESULTS / f"review_choices_{bundle.metadata.name}.md").write_text(text)
    print(text)


def report(model: str, positions: dict, lists: list, drawn: dict, seconds: dict) -> str:
    count = len(next(iter(positions.values())))
    lines = [
        f"# Choices in reviewing, measured: {model}",
        "",
        f"Made by `Testing/Benchmarks/review_choices.py` on {datetime.date.today()}; {count} cases that the model was "
        "not trained on.",
        "",
        "## Is another position of the threshold better than 0?",
        "",
        "| mean Dice at | " + " | ".join(f"{one:+g}" for one in LOGITS) + " | each case's own best |",
        "|---|" + "---|" * (len(LOGITS) + 1),
    ]
    for label, rows in positions.items():
        means = " | ".join(f"{one:.4f}" for one in np.mean(rows, axis=0))
        lines.append(f"| {label} | {means} | {np.mean(np.max(rows, axis=1)):.4f} |")
    lines += [
        "",
        "## Do regions find more errors if disagreement with a mirrored copy counts?",
        "",
        "| share of the error volume in the | first 1 | first 3 | first 5 | first 10 |",
        "|---|---|---|---|---|",
    ]
    for weight in WEIGHTS:
        shares = " | ".join(f"{share:.1%}" for share in pooled(lists, weight))
        lines.append(f"| {f'doubt + {weight:g} x disagreement' if weight else 'doubt alone'} | {shares} |")
    rows = len(drawn["kept"])
    lines += [
        "",
        f"## Do fresh logits refine better? {rows} cases",
        "",
        "| mean Dice after strokes | 0 | " + " | ".join(map(str, STROKES)) + " |",
        "|---|---|" + "---|" * len(STROKES),
    ]
    for way, name in (("kept", "kept margins"), ("fresh", "fresh logits, overlap 0.75, mirrored")):
        lines.append(f"| {name} | " + " | ".join(f"{one:.4f}" for one in np.mean(drawn[way], axis=0)) + " |")
    lines += [
        "",
        f"The whole volume took {seconds['plain'] / count:.1f} s of processor time with the usual tiles and "
        f"{seconds['fresh'] / count:.1f} s with the others, on one thread.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
