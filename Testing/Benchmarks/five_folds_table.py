"""The table of five_folds.py: one recipe's figures over the cases of all folds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from accuracy import METRICS, interval

WORST = 5
SIZES = ("small", "medium", "large")
MEASURES = {"ece": "expected calibration error", "nll": "negative log-likelihood", "brier": "Brier score"}


def write_table(folder: Path) -> None:
    """Makes README.md of the figures that lie in the folder."""
    rows = sorted((json.loads(path.read_text()) for path in folder.glob("fold-*.json")), key=lambda row: row["fold"])
    cases = [{**case, "fold": row["fold"]} for row in rows for case in row["cases"]]
    atlas = {case: dice for row in rows for case, dice in row["atlas"].items()}
    whole, their_whole = cases, atlas
    if len(by_label(cases)) > 1:
        whole = [*cases, *averaged(cases)]
        their_whole = {case: [*dice, float(np.mean(dice))] for case, dice in atlas.items()}
    text = [heading(rows), figures(whole, their_whole), groups(whole), worst(cases)]
    kept = folder / "calibration.json"
    if kept.is_file():
        text.append(calibrated(json.loads(kept.read_text())))
    (folder / "README.md").write_text("\n\n".join(text) + "\n")


def averaged(cases: list[dict]) -> list[dict]:
    """Each case over its segments: means of what is measured, sums of what is in ml."""
    found = []
    for name in dict.fromkeys(case["case"] for case in cases):
        its = [case for case in cases if case["case"] == name]
        means = {metric: float(column(its, metric).mean()) for metric in METRICS}
        sums = {measure: float(column(its, measure).sum()) for measure in its[0] if measure.endswith("_ml")}
        found.append({"case": name, "label": "mean", "fold": its[0]["fold"], **means, **sums})
    return found


def heading(rows: list[dict]) -> str:
    first, dates = rows[0], sorted({row["date"] for row in rows})
    training, folds = first["training"], " ".join(str(row["fold"]) for row in rows)
    command = f"--dataset {training['dataset']} --trainer {training['trainer']} --iterations {training['iterations']}"
    if first["spacing"]:
        command += f" --spacing {' '.join(f'{side:g}' for side in first['spacing'])}"
    if first.get("checkpoint", "final") != "final":
        command += f" --checkpoint {first['checkpoint']}"
    return f"""# {training["dataset"]}, {training["trainer"]}, {training["iterations"]} iterations

Made by `python Testing/Benchmarks/five_folds.py {command} --folds {folds}` on {first["machine"]};
{" to ".join(dict.fromkeys((dates[0], dates[-1])))}.
{len({case["case"] for row in rows for case in row["cases"]})} cases, each segmented by a network that did not see it. \
Training took {training["minutes"]} minutes in the first
fold, on a machine that may have been busy with other work. The surface Dice counts voxels of the surfaces (MONAI)
within {first["tolerance_mm"]:.2f} mm. In brackets: 95 % interval by bootstrap over the cases; it does not hold how
another seed would do."""


def figures(cases: list[dict], atlas: dict[str, list[float]]) -> str:
    lines = []
    for place, (label, some) in enumerate(by_label(cases).items()):
        for metric, title in METRICS.items():
            last = (max if metric == "hausdorff95_mm" else min)(some, key=lambda case: case[metric])
            values, digits = column(some, metric), 2 if metric == "hausdorff95_mm" else 3
            middle, end = (f"{value:.{digits}f}" for value in (np.median(values), last[metric]))
            lines.append((label, len(some), title, interval(values, digits), middle, f"{end} ({last['case']})"))
        theirs = np.array([atlas[case["case"]][place] for case in some])
        gain = column(some, "dice") - theirs
        for title, values in (("Dice of the atlas", theirs), ("Dice minus the atlas's", gain)):
            lines.append((label, len(some), title, interval(values, 3), f"{np.median(values):.3f}", ""))
    return markdown(("segment", "cases", "", "mean", "median", "worst case"), lines)


def groups(cases: list[dict]) -> str:
    """By fold, and by size in thirds."""
    lines = []
    for label, some in by_label(cases).items():
        parts = {f"fold {fold}": [case for case in some if case["fold"] == fold] for fold in folds_of(some)}
        by_size = sorted(some, key=lambda case: case["reference_ml"])
        thirds = np.array_split(by_size, len(SIZES)) if len(some) >= len(SIZES) else ()
        for size, part in zip(SIZES, thirds, strict=False):
            parts[f"{size}, {part[0]['reference_ml']:.1f} to {part[-1]['reference_ml']:.1f} ml"] = list(part)
        for name, part in parts.items():
            volumes = [column(part, measure).mean() for measure in ("reference_ml", "predicted_ml")]
            dice = interval(column(part, "dice"), 3) if len(part) > 1 else f"{part[0]['dice']:.3f}"
            lines.append((label, name, len(part), dice, *(f"{volume:.1f}" for volume in volumes)))
    return markdown(("segment", "group", "cases", "Dice", "mean volume / ml", "mean volume found / ml"), lines)


def worst(cases: list[dict]) -> str:
    measures = ("reference_ml", "missing_ml", "added_ml")
    lines = [
        (case["case"], case["label"], f"{case['dice']:.3f}", *(f"{case[measure]:.1f}" for measure in measures))
        for case in sorted(cases, key=lambda case: case["dice"])[:WORST]
    ]
    names = ("case", "segment", "Dice", "reference / ml", "missing / ml", "found wrongly / ml")
    return "The worst:\n\n" + markdown(names, lines)


def calibrated(measured: dict) -> str:
    lines = [(title, *(f"{value:.4f}" for value in measured[name])) for name, title in MEASURES.items()]
    temperatures = ", ".join(f"{value:.2f}" for value in measured["of_the_other_folds"].values())
    asked = (f"with {measured['asked']:.2f}",) if "asked" in measured else ()
    return (
        f"Calibration, {measured['region']}. Each fold has the temperature that the others ask for "
        f"({temperatures}); all together ask for {measured['temperature']:.2f}.\n\n"
        + markdown(("", "without temperature", "with that of the other folds", *asked), lines)
    )


def by_label(cases: list[dict]) -> dict[str, list[dict]]:
    names = dict.fromkeys(case["label"] for case in cases)
    return {name: [case for case in cases if case["label"] == name] for name in names}


def folds_of(cases: list[dict]) -> list[int]:
    return sorted({case["fold"] for case in cases})


def column(cases: list[dict], measure: str) -> np.ndarray:
    return np.array([case[measure] for case in cases])


def markdown(names: tuple[str, ...], lines: list[tuple]) -> str:
    rows = [names, ("---",) * len(names), *lines]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)
