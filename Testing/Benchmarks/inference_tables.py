"""The tables that inference.py makes of what it kept in a folder, as Markdown."""

from __future__ import annotations

import itertools
import json
import statistics
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
PEERS = ("nnunet", "monai")
ENGINES = ("usema", "openvino", "fast", *PEERS)
# How many times as fast as the better peer "exact", by OpenVINO, and "fast" are meant to be.
GOALS = {"bundled": (2.4, 4.0), "plain": (1.5, 3.0), "residual": (1.5, 3.0), "imported": (1.5, 3.0)}
GOALS_OF_HEADS = {"bundled": (3.0, 6.0)}  # many small tiles


def memory_table(volumes: list[str], networks: list[str], folder: Path) -> str:
    """Peaks, and what share of nnU-Net's and MONAI's ours are, as Markdown."""
    rows = ["| volume | network | engine | peak GiB | of nnU-Net's | of MONAI's |", "|---" * 6 + "|"]
    for volume, network in itertools.product(volumes, networks):
        kept = {engine: folder / f"{volume}-{network}-{engine}-0.json" for engine in ENGINES}
        if not all(path.exists() for path in kept.values()):
            continue
        found = {engine: json.loads(path.read_text()) for engine, path in kept.items()}
        for engine, run in found.items():
            peak = run["peak_gib"]
            shares = (f"{peak / found[other]['peak_gib']:.2f}" for other in ("nnunet", "monai"))
            rows.append(f"| {volume}, {run['shape']} | {network} | {engine} | {peak:.2f} | {' | '.join(shares)} |")
    return "\n".join(rows) + "\n"


def kept_rounds(volume: str, network: str, folder: Path) -> dict[str, list[dict]]:
    """What each engine took in the rounds in which all of them ran; empty if there is none."""
    numbers = sorted(int(path.stem.rsplit("-", 1)[1]) for path in folder.glob(f"{volume}-{network}-floor-*.json"))
    return {
        engine: [json.loads((folder / f"{volume}-{network}-{engine}-{n}.json").read_text()) for n in numbers]
        for engine in ((*ENGINES, "floor") if numbers else ())
    }


def gains(rounds: dict[str, list[dict]], engine: str) -> list[float]:
    """How many times as fast as the better of nnU-Net and MONAI, round by round."""
    peers = zip(*(rounds[peer] for peer in PEERS), strict=True)
    better = (min(run["processor"] for run in runs) for runs in peers)
    return [peer / run["processor"] for peer, run in zip(better, rounds[engine], strict=True)]


def costs_of_fast() -> str:
    """What the cards of the models in this repository say of the Dice of the speed "fast", in a sentence each."""
    from usema.models.bundle import read_bundle

    told = []
    for path in sorted([*(ROOT / "Resources/Models").iterdir(), *(ROOT / "Resources/Releases").glob("*.usema")]):
        metadata = read_bundle(path).metadata
        if fast := metadata.metrics.get("speeds", {}).get("fast"):
            told.append(
                f"{metadata.name} {fast['difference']:+.4f} ({fast['low']:+.4f} to {fast['high']:+.4f}; worst case "
                f"{fast['worst']:+.4f}) in {fast['cases']} cases with {fast['tiles']:.2f} of the tiles"
            )
    return "Dice of fast against exact, of validation cases, from the cards: " + "; ".join(told) + "."


def promises(rows: list[tuple[str, str]], folder: Path) -> str:
    """Goals and what was found, for each volume and network."""
    lines = [
        "| volume | network | rounds | exact: goal | found (range) | fast: goal | found (range) | floor |",
        "|---" * 8 + "|",
    ]
    for volume, network in rows:
        if rounds := kept_rounds(volume, network, folder):
            goals = (GOALS_OF_HEADS if volume == "head" else GOALS).get(network, GOALS[network])
            cells = [f"{volume}, {rounds['usema'][0]['shape']}", network, str(len(rounds["usema"]))]
            for goal, engine in zip(goals, ("openvino", "fast"), strict=True):
                found = gains(rounds, engine)
                cells += [f"{goal}", f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"]
            lines.append(f"| {' | '.join(cells)} | {statistics.median(gains(rounds, 'floor')):.2f} |")
    explained = 'Times as fast as the better of nnU-Net and MONAI; "floor" is a matrix product\'s own rate.'
    return "\n".join([explained, "", *lines, "", costs_of_fast()]) + "\n"


def table(volume: str, network: str, folder: Path) -> str:
    """What is kept of a volume and a network, as Markdown; of the rounds in which every engine ran."""
    rounds = kept_rounds(volume, network, folder)
    if not rounds:
        return ""
    base = [run["processor"] for run in rounds["usema"]]

    def median(engine: str, key: str) -> float:
        return statistics.median(run[key] for run in rounds[engine])

    def whole(engine: str) -> str:
        if any("whole" not in run for run in rounds[engine]):  # a process for all engines
            return " | "
        return f"{median(engine, 'whole'):.1f} | {median(engine, 'peak_gib'):.2f}"

    def ratio(engine: str) -> float:
        return statistics.median(run["processor"] / one for run, one in zip(rounds[engine], base, strict=True))

    def gain(engine: str) -> float:
        return statistics.median(gains(rounds, engine))

    rows = [
        f"### {volume}, {rounds['usema'][0]['shape']}; network {network}; rounds: {len(base)}\n",
        "| engine | processor s | ratio | gain | clock s | whole process, processor s | peak GiB | "
        "labels that differ | by |",
        "|---" * 9 + "|",
    ]
    labels = {engine: np.load(folder / f"{volume}-{network}-{engine}.npy") for engine in ENGINES}
    for engine in ENGINES:
        differing = (labels[engine] != labels["usema"]).mean()
        rows.append(
            f"| {engine} | {median(engine, 'processor'):.1f} | {ratio(engine):.2f} | {gain(engine):.2f} | "
            f"{median(engine, 'clock'):.1f} | {whole(engine)} | {differing:.1e} | "
            f"{rounds[engine][-1]['by']} |"
        )
    rows.append(
        f"| floor: matrix product | {median('floor', 'processor'):.1f} | {ratio('floor'):.2f} | {gain('floor'):.2f} | "
        "| | | | |"
    )
    return "\n".join(rows) + "\n"
