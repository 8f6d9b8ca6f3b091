"""A worker in place of the engine that answers at once with two smooth organs, for who measures all around the engine.

python Testing/Benchmarks/given_result.py      # then as `usema.serving.worker`: requests on stdin
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[2] / "USEMASegmentation"))

MIDDLES = {1: -0.4, 2: 0.4}  # of the organs from left to right, by label


def depths(size: tuple[int, int, int], middle: float):
    """(y, x) float32 for each plane: 1 in the middle of an organ, 0 on its surface."""
    z, y, x = (np.linspace(-1, 1, length, dtype=np.float32) for length in size)
    for height in z:
        yield 1 - (height / 0.8) ** 2 - (y[:, None] / 0.7) ** 2 - ((x - middle) / 0.35) ** 2


def organs(size: tuple[int, int, int]) -> np.ndarray:
    """(z, y, x) uint8: the labels."""
    labels = np.zeros(size, np.uint8)
    for value, middle in MIDDLES.items():
        for plane, depth in zip(labels, depths(size, middle), strict=True):
            plane[depth > 0] = value
    return labels


def margins(size: tuple[int, int, int]) -> str:
    """As a model keeps them that doubts a few voxels at each surface."""
    from usema.volumes.margins import BACKGROUND, LOWEST, Margins, PlacedMargins

    of, most = {}, np.full(size, LOWEST, np.int8)
    for value, middle in MIDDLES.items():
        array = np.empty(size, np.int8)
        for plane, depth in zip(array, depths(size, middle), strict=True):
            plane[...] = np.clip(np.floor(depth * 1000), LOWEST, 127)
        np.maximum(most, array, out=most)
        of[value] = PlacedMargins(array, (0, 0, 0)).trimmed()
    of[BACKGROUND] = PlacedMargins(~most, (0, 0, 0)).trimmed()
    return Margins(size, of).to_text()


def answer(request: dict) -> dict:
    """The result, as the worker gives it."""
    from usema.models.bundle import read_bundle

    folder, size = Path(request["output"]), np.load(request["inputs"][0]["array"], mmap_mode="r").shape
    np.save(folder / "labels.npy", organs(size))
    (folder / "margins.txt").write_text(margins(size))
    return {
        "event": "result",
        "labels": str(folder / "labels.npy"),
        "margins": str(folder / "margins.txt"),
        "names": request["labels"] or ["Anterior hippocampus", "Posterior hippocampus"],
        "probabilities": None,
        "geometry": request["inputs"][0]["geometry"],
        "provenance": {"model": read_bundle(request["model"]).metadata.name, "device": "none", "attention": "none"},
        "warnings": [],
        "max_foreground_probability": 1.0,
        "seconds": 0.0,
    }


def main() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        answers = [{"event": "hello", "devices": ["cpu"], "device": "cpu", "gpu": None, "attention": "none"}]
        if request["command"] == "quit":
            return
        if request["command"] == "segment":
            answers = [{"event": "progress", "done": n, "total": 1, "seconds_left": None} for n in (0, 1)]
            answers.append(answer(request))
        for one in answers:
            print(json.dumps({"id": request["id"], **one}), flush=True)


if __name__ == "__main__":
    main()
