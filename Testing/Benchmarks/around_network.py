"""What a run spends beside its network: processor seconds and memory, with 20 and with 100 classes.

    python Testing/Benchmarks/around_network.py                            # 200 x 256 x 256 voxels: a few minutes
    python Testing/Benchmarks/around_network.py --size 400 512 512 --write # the size that counts

A synthetic volume of blobs goes the whole way, from the volume to labels on its grid, through a small U-Net, whose
logits are those of organs: one class is well ahead nearly everywhere. ``--zoom 2`` lets the network see voxels of twice
the size, so that its logits are resampled. Each run has a process of its own. --write appends to
results/around_network.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from own_process import found_by, peak_bytes

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "USEMASegmentation"), str(ROOT / "Testing/Python/helpers")]
RESULTS = Path(__file__).with_name("results") / "around_network.md"
HEADER = """# What a run spends beside its network

Made by `Testing/Benchmarks/around_network.py`, which says what is run. Processor seconds of one thread. "Network" is
the network alone, which computes logits of 64 x 64 x 64 voxels at a time by PyTorch; "collecting" cuts tiles and adds
their logits; "beside" is all but the network. "Peak" is the largest resident memory of the process in GiB.

| date | voxels | network's | classes | kept | network | preparing | collecting | labels | rest | beside | peak |
|---|---|---|---|---|---|---|---|---|---|---|---|
"""
BLOBS, TILE = 300, [64, 64, 64]
SMALL = {
    "features": [16, 32, 64],
    "kernels": [[3, 3, 3]] * 3,
    "strides": [[1, 1, 1], *[[2, 2, 2]] * 2],
    "convs": [2, 2, 2],
    "decoder_convs": [2, 2],
}


def blobs(size: tuple[int, int, int], classes: int) -> np.ndarray:
    """int16 with the values 1 to ``classes`` - 1 in balls on zeros, each voxel with a little noise."""
    rng = np.random.default_rng(0)
    volume = np.zeros(size, np.int16)
    for number in range(BLOBS):
        radius = int(min(size) * rng.uniform(0.03, 0.12))
        first = [int(rng.integers(0, length - 2 * radius)) for length in size]
        ball = np.mgrid[tuple(slice(-radius, radius) for _ in size)]
        inside = (ball.astype(np.float32) ** 2).sum(axis=0) < radius**2
        box = tuple(slice(f, f + 2 * radius) for f in first)
        volume[box][inside] = 1 + number % (classes - 1)
    return volume


def network_of(classes: int, spent: dict[str, float]):
    """A small U-Net, and beside it what makes a voxel's value its class; ``spent`` receives the seconds of each."""
    import torch
    from usema.networks import build

    class Organs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.config, self.deep_supervision = None, False
            torch.manual_seed(0)
            config = {"in_channels": 1, "num_classes": classes, **SMALL}
            self.unet = build({"name": "PlainConvUNet", "config": config})
            self.values = torch.arange(classes, dtype=torch.float32).reshape(1, -1, 1, 1, 1)

        def forward(self, x):
            begun = time.process_time()
            logits = self.unet(x)
            between = time.process_time()
            # Ten above the others: what a trained network would have said, in no part of the time that is measured.
            logits.mul_(1e-2).add_((x - self.values).abs_().neg_().add_(1).clamp_min_(0), alpha=10)
            spent["network"] += between - begun
            spent["untold"] += time.process_time() - between
            return logits

    return Organs().eval().requires_grad_(False)


def run(size: tuple[int, int, int], classes: int, zoom: float, margins: bool) -> dict:
    """One run: seconds by what they were spent on, and the peak in GiB."""
    from bundles import METADATA, plan, write_tiny_bundle
    from usema.inference import running
    from usema.inference.allocator import keeping_freed_memory
    from usema.inference.predictor import Predictor
    from usema.volumes.geometry import Geometry
    from usema.volumes.volume import Volume

    running.time = SimpleNamespace(monotonic=time.process_time)  # other programs compute here, too
    alone = {"network": 0.0, "untold": 0.0}
    preprocessing = {**plan(), "normalization": ["NoNormalization"], "patch_size": TILE, "spacing": [zoom] * 3}
    any_label = METADATA["labels"][0]
    labels = [{**any_label, "value": value, "name": f"organ {value}"} for value in range(1, classes)]
    architecture = {"name": "PlainConvUNet", "config": {"in_channels": 1, "num_classes": classes, **SMALL}}
    with tempfile.TemporaryDirectory() as folder:
        bundle = write_tiny_bundle(
            Path(folder) / "model",
            labels=labels,
            architecture=architecture,
            preprocessing=preprocessing,
        )
        predictor = Predictor(bundle, "cpu")
    part = predictor.parts[0]
    part.network, part._engine = network_of(classes, alone), None
    array = blobs(size, classes)
    volume = Volume(array, Geometry(size[::-1], (1.0,) * 3, (0.0,) * 3, (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)))
    spent: dict[str, float] = {}
    find = predictor._find
    predictor._find = lambda volumes, wishes, wanted: find(volumes, replace(wishes, spent=spent), wanted)
    begun = time.process_time()
    with keeping_freed_memory():  # as the command and the worker do
        found = predictor.segment(volume, margins=margins)
    total = time.process_time() - begun - alone["untold"]
    wrong = float((found.labels != array).mean())
    spent["collecting"] = spent.pop("network") - sum(alone.values())
    spent["network"] = alone["network"]
    spent["rest"] = total - sum(spent.values())
    return {**spent, "total": total, "peak": peak_bytes() / 2**30, "wrong": wrong}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=3, default=(200, 256, 256), help="voxels, first axis first")
    parser.add_argument("--classes", type=int, nargs="+", default=(20, 100))
    parser.add_argument("--zoom", type=float, default=1.0, help="mm of the network's voxels; the volume's have 1")
    parser.add_argument("--margins", action="store_true", help="keep how sure the network was, as the panel does")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.once:
        print(json.dumps(run(tuple(arguments.size), arguments.classes[0], arguments.zoom, arguments.margins)))
        return
    rows = []
    for classes in arguments.classes:
        options = ["--classes", classes, "--zoom", arguments.zoom, "--size", *arguments.size]
        found = found_by(__file__, "--once", *options, *(["--margins"] if arguments.margins else []))
        seconds = [f"{found[name]:.1f}" for name in ("network", "preparing", "collecting", "labels", "rest")]
        beside = f"{1 - found['network'] / found['total']:.0%}"
        about = [str(date.today()), "x".join(map(str, arguments.size)), f"{arguments.zoom:g} mm", str(classes)]
        kept = "margins" if arguments.margins else "labels"
        rows.append(f"| {' | '.join([*about, kept, *seconds, beside, format(found['peak'], '.2f')])} |\n")
        print(rows[-1], f"labels off: {found['wrong']:.1e}", flush=True)
    if arguments.write:
        if not RESULTS.exists():
            RESULTS.write_text(HEADER, encoding="utf-8")
        with RESULTS.open("a", encoding="utf-8") as results:
            results.writelines(rows)


if __name__ == "__main__":
    main()
