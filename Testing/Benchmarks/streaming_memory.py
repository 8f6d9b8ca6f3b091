"""Peak main memory of sliding-window inference over a large volume with many classes.

    python Testing/Benchmarks/streaming_memory.py                       # 512 x 512 x 700 voxels, 20 classes: minutes
    python Testing/Benchmarks/streaming_memory.py --size 128 128 160    # seconds

A synthetic volume runs through a network of one convolution, and each slab of logits becomes labels as it comes, as
in the predictor. What counts is the memory: how large a real network is adds the same to any size of volume. The
result goes as a row to results/streaming_memory.md.
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from own_process import peak_bytes

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "USEMASegmentation"))

from usema.inference.sliding_window import predict_logits  # noqa: E402

RESULTS = Path(__file__).with_name("results") / "streaming_memory.md"
HEADER = """# Peak main memory of sliding-window inference

Made by `Testing/Benchmarks/streaming_memory.py`. "Peak" is the largest resident memory of the whole process: Python and
torch, the volume as float32, the logits held, and the labels. "All logits" is what the logits of the whole volume would
take as float32.

| date | machine | size | classes | tile | overlap | batch | minutes | peak GiB | all logits GiB | command |
|---|---|---|---|---|---|---|---|---|---|---|
"""


def make_volume(size: tuple[int, int, int]) -> np.ndarray:
    """(1, *size) of noise, plane by plane so that nothing larger than the volume is ever held."""
    rng = np.random.default_rng(0)
    volume = np.empty((1, *size), np.float32)
    for plane in volume[0]:
        rng.standard_normal(out=plane, dtype=np.float32)
    return volume


def measure(size: tuple[int, int, int], classes: int, tile: tuple[int, int, int], overlap: float, batch: int) -> None:
    torch.manual_seed(0)
    network = torch.nn.Conv3d(1, classes, 3, padding=1)
    volume = make_volume(size)
    labels = np.empty(size, np.uint8)
    shown = time.monotonic()

    def progress(done: int, total: int, seconds_left: float | None) -> None:
        nonlocal shown
        if time.monotonic() > shown + 10:
            shown = time.monotonic()
            print(
                f"{done} of {total} tiles, {seconds_left:.0f} s left, peak {peak_bytes() / 2**30:.2f} GiB",
                flush=True,
            )

    started = time.monotonic()
    for start, logits in predict_logits(
        network,
        volume,
        patch_size=tile,
        num_classes=classes,
        overlap=overlap,
        batch_size=batch,
        progress=progress,
        report=print,
    ):
        labels[start : start + logits.shape[1]] = logits.argmax(0).numpy()
    minutes = (time.monotonic() - started) / 60
    assert len(np.unique(labels)) == classes, "some class is nowhere the largest: not all of the network was used"

    by = " x ".join
    row = [
        datetime.date.today().isoformat(),
        f"{os.cpu_count()} cores, no GPU",
        by(map(str, size)),
        str(classes),
        by(map(str, tile)),
        str(overlap),
        str(batch),
        f"{minutes:.1f}",
        f"{peak_bytes() / 2**30:.2f}",
        f"{4 * classes * np.prod(size, dtype=float) / 2**30:.1f}",
        f"`{' '.join(['streaming_memory.py', *sys.argv[1:]])}`",
    ]
    line = f"| {' | '.join(row)} |"
    print(line)
    if not RESULTS.exists():
        RESULTS.write_text(HEADER)
    with RESULTS.open("a") as results:
        results.write(line + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs=3, default=(700, 512, 512), help="voxels, first axis first")
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--tile", type=int, nargs=3, default=(128, 128, 128))
    parser.add_argument("--overlap", type=float, default=0.5)
    parser.add_argument("--batch", type=int, default=1)
    options = parser.parse_args()
    measure(tuple(options.size), options.classes, tuple(options.tile), options.overlap, options.batch)


if __name__ == "__main__":
    main()
