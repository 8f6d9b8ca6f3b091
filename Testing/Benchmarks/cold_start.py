"""What passes before the first progress, and until the sample is done: cold starts in processes of their own.

    python Testing/Benchmarks/cold_start.py [--rounds 5] [--machine WORDS] [--write]

Three ways, in turn, round by round, with the bundled model and the sample: the engine in a script of a few lines; the
worker of the panel, whose volume is in a file of voxels already; and ``usema segment --sample`` as a user gives it,
with its files and picture. Told are the median and the range, of processor seconds (user and system), which do not
depend on who else computes here, and of seconds on the clock, which do. The goals are 2 s to the first progress and
4 s for the sample as a whole process. --write appends to results/cold_start.md.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "USEMASegmentation"))
RESULTS = Path(__file__).with_name("results") / "cold_start.md"
MODEL = "hippocampus-mr"
ENGINE = f"""
from usema.inference.predictor import Predictor
from usema.models.bundle import read_bundle
from usema.resources import bundled_models, sample_volume
from usema.volumes.volume import read_volume
predictor = Predictor(read_bundle(bundled_models()[{MODEL!r}]), "cpu")
predictor.segment(read_volume(sample_volume()), progress=lambda done, total, left: print(done, flush=True))
"""
Found = dict[str, tuple[float, float]]  # what had happened -> processor seconds and seconds on the clock until then


def environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(ROOT / "USEMASegmentation"), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def started(*arguments: str, **how) -> tuple[subprocess.Popen, float]:
    clock = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment(), **how
    )
    return process, clock


def spent_by(process: subprocess.Popen) -> float:
    """Processor seconds of a process that runs, to a hundredth."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ended(process: subprocess.Popen, clock: float) -> tuple[float, float]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process.stdout.read()
    if code := process.wait():
        raise SystemExit(f"{process.args} ended with {code}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent, time.monotonic() - clock


def engine() -> Found:
    process, clock = started("-c", ENGINE)
    process.stdout.readline()
    first = spent_by(process), time.monotonic() - clock
    return {"first progress": first, "whole process": ended(process, clock)}


def worker(folder: Path) -> Found:
    from usema.resources import bundled_models, sample_volume
    from usema.volumes.volume import read_volume

    volume = read_volume(sample_volume())
    np.save(folder / "volume.npy", volume.array)
    inputs = [{"array": str(folder / "volume.npy"), "geometry": volume.geometry.to_dict()}]
    model = str(bundled_models()[MODEL])
    process, clock = started("-m", "usema.serving.worker", stdin=subprocess.PIPE)
    found: Found = {}

    def until(wanted: str, request: dict) -> None:
        process.stdin.write(json.dumps({"id": len(found), **request}).encode() + b"\n")
        process.stdin.flush()
        while (answer := json.loads(process.stdout.readline()))["event"] != wanted:
            if answer["event"] == "error":
                raise SystemExit(answer["message"])
            if answer["event"] == "progress":
                found.setdefault("first progress", (spent_by(process), time.monotonic() - clock))

    until("hello", {"command": "hello"})
    found["hello"] = spent_by(process), time.monotonic() - clock
    (folder / "result").mkdir()
    output = {"output": str(folder / "result"), "model": model, "device": "cpu"}
    until("result", {"command": "segment", "inputs": inputs, **output})
    found["result"] = spent_by(process), time.monotonic() - clock
    process.stdin.close()
    process.wait()
    return found


def command(folder: Path) -> Found:
    output = ["-o", str(folder / "sample.seg.nrrd"), "--preview", str(folder / "sample.png")]
    return {"whole process": ended(*started("-m", "usema", "segment", "--sample", *output))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--machine", default="", help="in words, for the results file")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    rounds: dict[str, list[tuple[float, float]]] = {}
    for _ in range(arguments.rounds):
        for name, way in {
            "engine": lambda folder: engine(),
            "worker": worker,
            "usema segment --sample": command,
        }.items():
            with tempfile.TemporaryDirectory() as folder:
                for what, took in way(Path(folder)).items():
                    rounds.setdefault(f"{name} | {what}", []).append(took)
    load = f"load {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores"
    text = f"## {date.today()}, {arguments.machine}, one thread, {load}\n\n"
    text += f"`python Testing/Benchmarks/cold_start.py --rounds {arguments.rounds}`\n\n"
    text += "| process | until | processor s (range) | clock s (range) |\n|---|---|---|---|\n"
    for name, took in rounds.items():
        cells = (f"{statistics.median(of):.2f} ({min(of):.2f} to {max(of):.2f})" for of in zip(*took, strict=True))
        text += f"| {name} | {' | '.join(cells)} |\n"
    print(text)
    if arguments.write:
        if not RESULTS.exists():
            RESULTS.write_text("# Cold starts\n\nMade by `Testing/Benchmarks/cold_start.py`.\n\n", encoding="utf-8")
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    main()
