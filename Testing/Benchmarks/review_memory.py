"""Memory of the margins of a large volume, and the time that one position of the threshold's slider takes.

    python Testing/Benchmarks/review_memory.py                      # 512 x 512 x 700 voxels, 20 classes: minutes
    python Testing/Benchmarks/review_memory.py --size 128 128 160   # seconds

Logits of as many ellipsoids as there are labels are streamed a few slices at a time, as the sliding window gives them;
no network runs, and the logits are never held. The result goes as a row to results/review_memory.md.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from own_process import peak_bytes

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "USEMASegmentation"))

from usema.inference.logit_margins import MarginCollector  # noqa: E402
from usema.inference.outputs import Outputs  # noqa: E402
from usema.volumes.margins import Margins, PlacedMargins  # noqa: E402
from usema.volumes.masks import NOTHING  # noqa: E402

RESULTS = Path(__file__).with_name("results") / "review_memory.md"
HEADER = """# Memory of margins, and time of a position of the slider

Made by `Testing/Benchmarks/review_memory.py`. "Margins" is what all boxes take in memory, "text" what the scene keeps
of them, "peak" by how much the largest resident memory of the process grew from before the first slice to the end, text
included; "all probabilities" is what those of the whole volume would take as float16. "Position" is the median time of
one position of the slider over a box of 256 x 256 x 256 voxels: the comparison, into the voxels that the views show.

| date | machine | size | classes | margins MiB | text MiB | peak MiB | all probabilities MiB | minutes | position ms |
|---|---|---|---|---|---|---|---|---|---|
"""
MIB = 2**20


def slabs(size, classes: int, planes: int):
    """Logits (classes, planes, b, c): each label high in an ellipsoid of a size between an adrenal and a liver."""
    rng = np.random.default_rng(0)
    middles = rng.uniform(0.2, 0.8, (classes, 3)) * size
    radii = np.exp(rng.uniform(np.log(0.03), np.log(0.22), (classes, 1))) * np.array(size)
    axes = [
        ((np.arange(length) - middles[:, axis, None]) / radii[:, axis, None]) ** 2 for axis, length in enumerate(size)
    ]
    terms = [torch.from_numpy(8 * one).float() for one in axes]
    for start in range(0, size[0], planes):
        stop = min(start + planes, size[0])
        logits = 8 - terms[0][:, start:stop, None, None] - terms[1][:, None, :, None] - terms[2][:, None, None, :]
        logits[0] = 0
        yield start, logits


def position_ms() -> float:
    """The median of one position over a box of 256 voxels a side."""
    sys.path.insert(0, str(ROOT / "Testing/Host"))
    import slicer  # noqa: F401 the wheel, which the file below belongs to
    from USEMASegmentationLib.Review.Threshold import LiveThreshold

    array = np.random.default_rng(0).integers(-128, 128, (256, 256, 256)).astype(np.int8)
    margins = Margins(array.shape, {1: PlacedMargins(array, (0, 0, 0))})
    port = SimpleNamespace(
        margins=margins,
        thresholds={},
        spacing=(1, 1, 1),
        overlaps=True,
        edits=lambda: {1: SimpleNamespace(now=NOTHING, changed=NOTHING)},
        editable=lambda value, box: None,
    )
    live, shown, times = LiveThreshold.of(port, 1), np.zeros(array.shape, bool), []
    for steps in range(-64, 65, 4):
        started = time.perf_counter()
        live.mask(steps, out=shown)
        live.millilitres(steps)
        times.append(time.perf_counter() - started)
    return float(np.median(times)) * 1000


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, nargs=3, default=(700, 512, 512), help="slices, rows, columns")
    parser.add_argument("--classes", type=int, default=20, help="with background")
    parser.add_argument("--write", action="store_true", help="append the row to the results")
    options = parser.parse_args()
    size, started, before = tuple(options.size), time.monotonic(), peak_bytes()
    collector = MarginCollector(size, Outputs.classes(options.classes))
    with torch.inference_mode():
        planes = max(1, 2**22 // (options.classes * size[1] * size[2]))
        for start, logits in slabs(size, options.classes, planes):
            collector.add(start, logits)
    margins = collector.finish()
    held = sum(one.array.size for one in margins.of.values()) / MIB
    text = len(margins.to_text()) / MIB
    grown, minutes = (peak_bytes() - before) / MIB, (time.monotonic() - started) / 60
    assert not collector.left_out
    everything = options.classes * np.prod(size) * 2 / MIB
    row = [
        datetime.date.today(),
        f"{platform.machine()}, {torch.get_num_threads()} threads",
        " x ".join(map(str, size[::-1])),
        options.classes,
        *(f"{value:.0f}" for value in (held, text, grown, everything)),
        f"{minutes:.1f}",
        f"{position_ms():.1f}",
    ]
    line = "| " + " | ".join(map(str, row)) + " |\n"
    print(line)
    if options.write:
        RESULTS.parent.mkdir(exist_ok=True)
        if not RESULTS.exists():
            RESULTS.write_text(HEADER)
        with RESULTS.open("a") as stream:
            stream.write(line)


if __name__ == "__main__":
    main()
