"""All that a GPU has to show, in one command and under 8 minutes: right kernels, their speed, and whole volumes.

    python Testing/Benchmarks/gpu.py             # on a GPU; writes results/gpu_DATE.md and sema_kernel_DATE.md
    python Testing/Benchmarks/gpu.py --cpu-smoke # anywhere: shows that this script runs, measures nothing

1. The kernels' own tests, compiled here (Triton) and ahead of time (PTX), against the definition; ends where one fails.
2. ``sema_kernel.py``: the time of every layer beside that of a plain copy of the same bytes, and beside the other ways
   of ``sema_competitors.py``.
3. A whole volume, seconds on the clock: our sliding window, also with its launches recorded as a CUDA graph, nnU-Net's
   predictor and MONAI's on the same weights, float16, in a process each, as in ``inference.py``.
4. ``gpu_volumes.py``: how long a tile takes by how many are computed at a time, and what the engine chooses; from a
   volume to labels, resampled by the CPU and by the GPU, beside public figures of another engine and card.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).with_name("results")
GRAPH = "usema, graph"
ENGINES = ("usema", GRAPH, "nnunet", "monai")
# Runs one engine, several rounds, in a process that imports before it measures; what is printed last is seconds.
ONE = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import numpy as np, torch
from inference import infer
from gpu_volumes import Graphed
_, _, engine, network, device, rounds, folder = sys.argv
data = np.load(Path(folder) / "data.npy")
seconds, how = [], {"made_of": Graphed} if "graph" in engine else {}
for _ in range(int(rounds)):
    labels, _, clock, _ = infer(engine, network, data, Path(folder), device, **how)
    seconds.append(clock)
np.save(Path(folder) / f"{network}-{engine}.npy", labels)
peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else float("nan")
print(*seconds, peak)
"""


def whole_volumes(folder: Path, networks: list[str], device: str, part: int | None, rounds: int) -> list[str]:
    """Rows of a table."""
    import numpy as np

    sys.path.insert(0, str(Path(__file__).parent))
    from inference import DATA, VOLUMES, prepare

    prepare(DATA / VOLUMES["ct"], part, folder / "data.npy")
    rows = ["| network | engine | seconds | ratio | peak GiB of the GPU | labels that differ |", "|---" * 6 + "|"]
    for network in networks:
        base, labels = 0.0, None
        for engine in ENGINES:
            command = [sys.executable, "-c", ONE, str(Path(__file__).parent), engine, network, device, str(rounds)]
            run = subprocess.run([*command, str(folder)], stdout=subprocess.PIPE, text=True, check=False)
            if run.returncode:
                rows.append(f"| {network} | {engine} | failed | | | |")
                continue
            *seconds, peak = map(float, run.stdout.splitlines()[-1].split())
            found, median = np.load(folder / f"{network}-{engine}.npy"), statistics.median(seconds)
            if engine == ENGINES[0]:
                base, labels = median, found
            differing = "" if labels is None else f"{(found != labels).mean():.1e}"
            ratio = f"{median / base:.2f}" if base else ""
            rows.append(f"| {network} | {engine} | {median:.2f} | {ratio} | {peak:.2f} | {differing} |")
            print(rows[-1], flush=True)
    return rows


def tables(folder: Path, device: str, small: bool, rounds: int) -> str:
    """All that is told of whole volumes, as Markdown."""
    networks = ["bundled"] if small else ["bundled", "plain", "usema"]
    volumes = whole_volumes(folder, networks, device, 44 if small else None, 1 if small else rounds)
    from gpu_volumes import SIZES, SMALL, batches, journeys

    parts = {
        "The sliding window": volumes,
        "Tiles at a time": batches(networks, folder, device, *([2] if small else [])),
        "From volume to labels": journeys("bundled" if small else "plain", folder, device, SMALL if small else SIZES),
    }
    return "\n".join(f"## {title}\n\n" + "\n".join(rows) + "\n" for title, rows in parts.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu-smoke", action="store_true", help="only show that this script runs")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    import tempfile

    import torch

    if not torch.cuda.is_available() and not arguments.cpu_smoke:
        sys.exit("No NVIDIA GPU here: nothing was proved or measured. --cpu-smoke shows that this script runs.")
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        kernel = [sys.executable, str(Path(__file__).with_name("sema_kernel.py"))]
        if arguments.cpu_smoke:
            subprocess.run([*kernel, "--cpu-smoke", "--out", temporary], check=True)
            tables(folder, "cpu", True, 1)
            print("This script runs. Nothing was measured.")
            return
        # The proof takes about two minutes, whole volumes one; the layers have what is left.
        subprocess.run([*kernel, "--proof", "--minutes", "3"], check=True)
        found = tables(folder, "cuda", False, arguments.rounds)
    minutes = (time.monotonic() - begun) / 60
    title = f"# Whole volumes on a GPU\n\n{date.today()}, {torch.cuda.get_device_name()}, torch {torch.__version__}, "
    title += f"{os.cpu_count()} cores; `python Testing/Benchmarks/gpu.py`, {minutes:.1f} minutes in all.\n\n"
    (RESULTS / f"gpu_{date.today()}.md").write_text(title + found, encoding="utf-8")
    print(title)


if __name__ == "__main__":
    main()
