"""What the speed "fast" costs in Dice and saves in tiles, and a first look likewise, on a model's validation cases.

    python Testing/Benchmarks/speeds.py MODEL IMAGES LABELS --split splits_final.json [--fold 0] [--most N] [--compiled]
        [--write]

Prints, for each speed, the mean Dice of all labels and cases, the paired difference to exact, the worst case, the tiles
run, and processor seconds, which do not depend on who else computes here. --write appends it to results/speeds.md.

Small cases are PyTorch's work. With --compiled, OpenVINO computes every tile, as it does most of a large volume; on a
processor that has bfloat16, that is where fast differs from exact.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from datetime import date
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "USEMASegmentation"))


def dice(found: np.ndarray, expected: np.ndarray, values: list[int]) -> list[float]:
    """Of each label; NaN where neither has it."""
    scores = []
    for value in values:
        a, b = found == value, expected == value
        scores.append(2 * (a & b).sum() / total if (total := a.sum() + b.sum()) else float("nan"))
    return scores


def main() -> None:
    from usema.inference.predictor import Predictor
    from usema.models.bundle import read_bundle
    from usema.store.library import find_model
    from usema.volumes.volume import load_volume, read_volume

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("images", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--split", type=Path, required=True, help="nnU-Net's; the validation cases of a fold are taken")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--most", type=int, help="only so many cases, the first")
    parser.add_argument("--compiled", action="store_true", help="let OpenVINO compute every tile")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()

    predictor = Predictor(read_bundle(find_model(arguments.model)), "cpu")
    values = [label.value for label in predictor.metadata.labels]
    cases = json.loads(arguments.split.read_text("utf-8"))[arguments.fold]["val"][: arguments.most]
    speeds = {"exact": {}, "fast": {"speed": "fast"}, "first look": {"overlap": 0.0}}
    scores, tiles, seconds = ({name: [] for name in speeds} for _ in range(3))
    computed_by: dict[str, str] = {}
    for case in cases:
        volume = read_volume(arguments.images / f"{case}_0000.nii.gz")
        expected = load_volume(arguments.labels / f"{case}.nii.gz").array
        for name, options in speeds.items():
            if arguments.compiled:
                by = [str(part.try_engine(fast=name == "fast")) for part in predictor.parts]
                computed_by[name] = "; ".join(dict.fromkeys(by))
            totals, begun = [0], time.process_time()
            result = predictor.segment(
                volume, progress=lambda done, total, left, to=totals: to.append(total), **options
            )
            seconds[name].append(time.process_time() - begun)
            tiles[name].append(totals[-1])
            computed_by.setdefault(name, predictor.backend)
            scores[name].append(float(np.nanmean(dice(result.labels, expected, values))))

    lines = ["| speed | Dice | difference to exact | worst case | tiles | processor seconds | by |", "|---" * 7 + "|"]
    for name in speeds:
        difference = np.array(scores[name]) - np.array(scores["exact"])
        lines.append(
            f"| {name} | {np.mean(scores[name]):.4f} | {difference.mean():+.4f} | {difference.min():+.4f} | "
            f"{sum(tiles[name])} | {sum(seconds[name]):.1f} | {computed_by[name]} |"
        )
    several = sum(count > 1 for count in tiles["exact"])
    text = (
        f"## {date.today()}, {arguments.model}, {len(cases)} cases, {several} of them with more than one tile\n\n"
        f"`python Testing/Benchmarks/speeds.py {arguments.model} IMAGES LABELS --split {arguments.split.name}"
        f"{' --compiled' * arguments.compiled}`\n\n" + "\n".join(lines) + "\n"
    )
    print(text)
    if arguments.write:
        with (ROOT / "Testing/Benchmarks/results/speeds.md").open("a", encoding="utf-8") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    main()
