"""How far to carry what a user changed on a slice, and whether leaving slices out tells when not to, on hippocampi.

    python Testing/Benchmarks/corrections_reach.py run --work FOLDER [--cases 8]   # again: goes on where it stopped
    python Testing/Benchmarks/corrections_reach.py report --work FOLDER            # writes results/corrections_reach.md

The simulated user is that of corrections.py. Nothing is learned. A reach in slices grows with their thickness, one in
voxels of the network does not. Checked: nothing is carried where the corrected slices come out worse when each is left
out and the others are carried to it.
"""

from __future__ import annotations

import json
from datetime import date

import corrections as simulated
import numpy as np
from usema.adaptation.adapting import _Adaptation
from usema.adaptation.corrections import Corrections
from usema.adaptation.judging import CARRIED, UNCHANGED, lost_when_left_out
from usema.adaptation.wish import Wish

REACHES = {"1.5 slices": (1.5, True), "1.5 voxels": (1.5, False), "1 voxel": (1.0, False)}
SETS = ("as it is", "thick slices")


def measure(predictor, volume, reference: np.ndarray, own: np.ndarray, count: int) -> dict | None:
    """Dice on the slices that were not corrected, and by reach what the others lose of it when each is left out."""
    chosen = simulated.worst_slices(own, reference, count)
    if len(chosen) < count:
        return None
    values = tuple(int(one) for one in np.unique(reference) if one)
    pasted, rest = own.copy(), np.ones(len(own), bool)
    pasted[chosen], rest[chosen] = reference[chosen], False

    def score(labels: np.ndarray) -> float:
        return float(np.nanmean(simulated.dice(labels[rest], reference[rest], values)))

    corrections = Corrections(pasted, tuple((0, index) for index in chosen))
    one = _Adaptation(predictor, [volume], corrections, Wish(way=CARRIED), None, None, None)
    one._lessons = one._collect()
    (before, _), outputs = one._before(), one._part.outputs
    positions = one._lessons[0].places.positions[one._lessons[0].shown[0].axis]
    thick = 1 / abs(positions[1] - positions[0])
    row = {"paste": score(pasted), "right": one._dice(before), "reaches": {}}
    for name, (reach, grows) in REACHES.items():
        one._reach = reach * (max(1.0, thick) if grows else 1.0)
        lost = lost_when_left_out(one._lessons, before, outputs, one._reach)
        row["reaches"][name] = {
            "dice": score(one._segment(CARRIED, None, None, before, None).labels),
            "lost": (lost[UNCHANGED], lost[CARRIED]),
        }
    return row


def run(options) -> None:
    options.work.mkdir(parents=True, exist_ok=True)
    path = options.work / "reach.jsonl"
    done = {tuple(json.loads(line)["what"]) for line in path.read_text().splitlines()} if path.exists() else set()
    for kind, case, load in simulated.cases_of("hippocampus", options.cases, None, options.data, options.work):
        for count in simulated.COUNTS:
            what = (kind, case, count)
            if what in done or not kind.endswith(SETS):
                continue
            row = measure(*load(), count)
            with path.open("a") as file:
                file.write(json.dumps({"what": what, "row": row}) + "\n")
            print(*what, flush=True)


def report(options) -> None:
    rows = [json.loads(line) for line in (options.work / "reach.jsonl").read_text().splitlines()]
    told = [f"{name} | worse | {name}, checked | worse" for name in REACHES]
    text = [
        "# How far corrections are carried",
        "",
        f"Made by `Testing/Benchmarks/corrections_reach.py` on {date.today()}; its head says what is what. Mean Dice "
        "on the slices that were not corrected. Worse: cases whose Dice is more than "
        f"{simulated.WORSE} below that of leaving the other slices alone.",
        "",
        f"| set | slices | cases | left alone | {' | '.join(told)} |",
        "|---" * (4 + 4 * len(REACHES)) + "|",
    ]
    for kind, count in dict.fromkeys((one["what"][0], one["what"][2]) for one in rows):
        own = [one["row"] for one in rows if (one["what"][0], one["what"][2]) == (kind, count) and one["row"]]
        alone = np.array([row["paste"] for row in own])
        cells = []
        for name in REACHES:
            carried = np.array([row["reaches"][name]["dice"] for row in own])
            helps = [row["reaches"][name]["lost"][1] <= row["reaches"][name]["lost"][0] for row in own]
            for found in (carried, np.where(helps, carried, alone)):
                cells += [f"{found.mean():.3f}", str(int((found < alone - simulated.WORSE).sum()))]
        text.append(f"| {kind} | {count} | {len(own)} | {alone.mean():.3f} | {' | '.join(cells)} |")
    (simulated.RESULTS / "corrections_reach.md").write_text("\n".join(text) + "\n")
    print("\n".join(text))


def main() -> None:
    simulated.start(__doc__, run, report, lambda running: running.add_argument("--cases", type=int, default=8))


if __name__ == "__main__":
    main()
