"""From a click to the first progress and to the result: the first click, the second, and a new process for each.

    python Testing/Benchmarks/second_click.py [--model NAME_OR_PATH] [--volume FILE] [--rounds 3] [--write]
    python Testing/Benchmarks/second_click.py --tiny     # a small untrained model, to try the script

The first click starts the worker, the second finds it warm. "Started before" is the first click in a panel that was
opened a while ago: the worker has said hello, and has no model yet. "New process" is what a click costs without a
worker: a Python that imports the engine, loads the model, segments, and ends. All read the same .npy file, which a
panel has to write in either case. The median of the rounds, each with a new worker. --write appends to
results/second_click.md. Printed as well: the worker's own processor seconds, which other programs do not lengthen.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "USEMASegmentation"), str(ROOT / "Testing/Python/helpers")]

from usema.resources import sample_volume  # noqa: E402
from usema.serving.client import WorkerClient  # noqa: E402
from usema.store.library import find_model  # noqa: E402
from usema.volumes.volume import read_volume  # noqa: E402

RESULTS = Path(__file__).with_name("results") / "second_click.md"
HEADER = """# From the click to the first progress and to the result

Made by `Testing/Benchmarks/second_click.py`, which says what is compared. Seconds, median of the rounds.

| date | machine | model | voxels | device | | to the first progress | to the result | rounds |
|---|---|---|---|---|---|---|---|---|
"""

ONE_SHOT = """
import json, sys
import numpy as np
from usema.models.bundle import read_bundle
from usema.inference.predictor import Predictor
from usema.volumes.volume import Geometry, Volume
asked = json.loads(sys.argv[1])
given = asked["inputs"][0]
volume = Volume(np.load(given["array"]), Geometry.from_dict(given["geometry"]))
result = Predictor(read_bundle(asked["model"]), asked["device"]).segment(
    volume, overlap=asked["overlap"], progress=lambda *step: print(step, flush=True)
)
np.save(asked["output"] + "/labels.npy", result.labels)
"""


def click(client: WorkerClient, asked: dict) -> tuple[float, float]:
    """Seconds until the first progress and until the result."""
    started, first = time.monotonic(), None
    client.request("segment", **asked)
    while client.busy:
        for event in client.poll():
            if event["event"] == "error":
                raise SystemExit(f"{event['message']} {event['hint']}\n{event['detail']}")
            if event["event"] == "progress" and first is None:
                first = time.monotonic() - started
        time.sleep(0.002)
    return first, time.monotonic() - started


def told_processor(asked: dict) -> str:
    """What a worker spends until it says hello, and from a click then to the first progress; Linux alone tells it."""

    def spent() -> float:
        fields = Path(f"/proc/{client.hello['pid']}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    client = WorkerClient(environment={"OMP_NUM_THREADS": "1"})
    try:
        client.start()
        while client.busy:
            client.poll()
            time.sleep(0.01)
        before = spent()
        client.request("segment", **asked)
        while not any(event["event"] == "progress" for event in client.poll()):
            time.sleep(0.001)
        return f"One thread: {before:.2f} s of the processor to say hello, {spent() - before:.2f} s from the click on\n"
    finally:
        client.stop()


def one_shot(asked: dict) -> tuple[float, float]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "USEMASegmentation")}
    started = time.monotonic()
    command = [sys.executable, "-c", ONE_SHOT, json.dumps(asked)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        first = time.monotonic() - started
        process.stdout.read()
    if process.returncode:
        raise SystemExit(f"The process ended with exit code {process.returncode}.")
    return first, time.monotonic() - started


def measure(asked: dict, rounds: int) -> tuple[dict[str, list[tuple[float, float]]], str]:
    """(first progress, result) of each round by way, and the device that was used."""
    seconds = {"new process": [], "first click": [], "second click": [], "first click, started before": []}
    for _ in range(rounds):
        seconds["new process"].append(one_shot(asked))
        client = WorkerClient()
        try:
            seconds["first click"].append(click(client, asked))
            seconds["second click"].append(click(client, asked))
            client.stop()
            client.start(idle_minutes=5)
            while client.busy:
                client.poll()
                time.sleep(0.01)
            seconds["first click, started before"].append(click(client, asked))
        finally:
            client.stop()
    gpu = client.hello["gpu"]
    return seconds, gpu["name"] if gpu and asked["device"] != "cpu" else "cpu"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="hippocampus-mr")
    parser.add_argument("--tiny", action="store_true", help="take a small untrained model instead")
    parser.add_argument("--volume", type=Path, help="default: the sample volume")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--overlap", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()

    volume = read_volume(options.volume or sample_volume())
    with tempfile.TemporaryDirectory() as folder:
        if options.tiny:
            from bundles import write_tiny_bundle

            options.model = write_tiny_bundle(Path(folder) / "tiny").path
        array = Path(folder) / "input.npy"
        np.save(array, volume.array)
        asked = {
            "model": str(find_model(options.model)),
            "device": options.device,
            "overlap": options.overlap,
            "inputs": [{"array": str(array), "geometry": volume.geometry.to_dict()}],
            "output": folder,
        }
        processor = told_processor(asked) if sys.platform == "linux" else ""
        seconds, device = measure(asked, options.rounds)

    about = [
        datetime.date.today().isoformat(),
        f"{os.cpu_count()} cores",
        "tiny" if options.tiny else Path(options.model).name,
        " x ".join(map(str, volume.geometry.size)),
        device,
    ]
    rows = []
    for way, rounds in seconds.items():
        first, result = (f"{median(values):.2f}" for values in zip(*rounds, strict=True))
        rows.append(f"| {' | '.join([*about, way, first, result, str(options.rounds)])} |\n")
    print("".join(rows), end="")
    print(processor, end="")
    if options.write:
        if not RESULTS.exists():
            RESULTS.write_text(HEADER)
        with RESULTS.open("a") as results:
            results.writelines(rows)


if __name__ == "__main__":
    main()
