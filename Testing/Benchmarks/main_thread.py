"""For how long the application's main thread is held while a large volume goes to the worker and its result comes back.

    python Testing/Benchmarks/main_thread.py                         # 700 x 512 x 512 voxels, int16
    python Testing/Benchmarks/main_thread.py --size 100 128 128
    python Testing/Benchmarks/main_thread.py --without-engine        # the panel's share alone, with two smooth organs

A real scene, the panel's logic and the real worker with a tiny model that sees voxels of 8 mm. The logic is polled as
the panel's timer polls it; printed are the longest calls, and what they spent their time on, in seconds of the main
thread's own processor time and on the clock. The aim is 0.1 s. --write appends to results/main_thread.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "USEMASegmentation"), str(ROOT / "Testing/Python/helpers"), str(ROOT / "Testing/Host")]
RESULTS = Path(__file__).with_name("results") / "main_thread.md"


@contextmanager
def timed(name: str, spent: dict[str, list[tuple[float, float]]]):
    """Adds (processor seconds of this thread, seconds on the clock) under the name."""
    processor, clock = time.thread_time(), time.perf_counter()
    try:
        yield
    finally:
        spent.setdefault(name, []).append((time.thread_time() - processor, time.perf_counter() - clock))


def watch(owner, name: str, told: str, spent: dict) -> None:
    """Has a function's time told."""
    inner = getattr(owner, name)

    def outer(*arguments, **options):
        with timed(told, spent):
            return inner(*arguments, **options)

    setattr(owner, name, outer)


def run(size: tuple[int, int, int], folder: Path) -> dict[str, list[tuple[float, float]]]:
    """Seconds by call, one run."""
    from bundles import plan, write_tiny_bundle
    from slicer_cases import MrmlHost, addVolume
    from usema.serving.client import WorkerClient
    from USEMASegmentationLib import Logic
    from USEMASegmentationLib.Scene import ResultWriter

    (folder / "Models").mkdir()
    write_tiny_bundle(folder / "Models/tiny", orientation="LPS", preprocessing={**plan(), "spacing": [8.0] * 3})
    os.environ["USEMA_RESOURCES"] = str(folder)
    host, spent = MrmlHost(folder), {}
    # Smooth, so that the untrained network finds something that hangs together.
    coarse = np.random.default_rng(0).integers(0, 1000, [-(-length // 32) for length in size]).astype(np.int16)
    array = np.kron(coarse, np.ones((32, 32, 32), np.int16))[tuple(slice(0, length) for length in size)]
    volume = addVolume(np.ascontiguousarray(array), np.diag([-1.0, -1.0, 1.0, 1.0]), "Large")
    watch(ResultWriter, "compute", "(beside it: segments as arrays)", spent)
    watch(ResultWriter.Ready, "commit", "result: into the scene", spent)
    logic = Logic.USEMASegmentationLogic(WorkerClient(environment={"OMP_NUM_THREADS": "1"}))
    try:
        with timed("the click", spent):
            logic.start(Logic.Parameters(inputVolume=volume, modelName="tiny"))
        while logic.busy:
            with timed("a call of the timer", spent):
                logic.poll()
            time.sleep(0.01 if logic.isMoving else 0.1)  # as the panel's timer
        if logic.status.state != "done":
            raise SystemExit(f"{logic.status.state}: {logic.status.message} {logic.status.hint}")
    finally:
        logic.shutdown()
        host.close()
    return spent


def run_without_engine(size: tuple[int, int, int], folder: Path) -> dict[str, list[tuple[float, float]]]:
    """Seconds by call: voxels are written, and a given result comes into the scene, anew and in place of itself."""
    from given_result import organs
    from slicer_cases import MODEL, PROVENANCE, MrmlHost, addVolume
    from USEMASegmentationLib.CorrectionsCount import CorrectionsCount
    from USEMASegmentationLib.Parameters import Parameters
    from USEMASegmentationLib.Scene import ResultWriter
    from USEMASegmentationLib.Scene.ExchangeFolder import ExchangeFolder
    from USEMASegmentationLib.Scene.VolumeBridge import wholeBox
    from USEMASegmentationLib.Scene.Watch import Watch
    from USEMASegmentationLib.Steps import Steps

    host, spent = MrmlHost(folder), {}
    volume = addVolume(np.zeros(size, np.int16), np.diag([-1.0, -1.0, 1.0, 1.0]), "Large")
    box, exchange = wholeBox(volume), ExchangeFolder()
    labels = organs(size)

    def go(work, name: str):
        steps, ended = Steps(work), False
        while not ended:
            with timed(name, spent):
                ended = steps.go()
            time.sleep(0.01)
        return steps.value

    watch(ResultWriter, "compute", "(beside it: segments as arrays)", spent)
    try:
        go(exchange.exporting([volume], box), "voxels to the worker")
        seen = Watch([volume])
        volume.GetImageData().Modified()
        go(seen.changing(exchange, box), "whether the volume is as it was, after it was touched")
        node = None
        for how in ("anew", "in place of itself"):
            result = ResultWriter.Result(labels, None, PROVENANCE, MODEL, box)
            words = {"inputVolume": volume, "segmentation": node, "existing": "replace"}
            asked = Parameters.fromWords(words if node is not None else {"inputVolume": volume})
            ready = go(ResultWriter.preparing(result, asked), f"result {how}: made ready")
            with timed(f"result {how}: into the scene", spent):
                node = ready.commit().segmentation
        os.environ["USEMA_RESOURCES"] = str(ROOT / "Resources")
        words["segmentation"], count = node, CorrectionsCount()
        asked, found = Parameters.fromWords({**words, "modelName": MODEL.name}), None
        while found is None:
            with timed("what was corrected, counted", spent):
                found = count.soon(asked)
            time.sleep(0.01)
    finally:
        exchange.remove()
        host.close()
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=3, default=(700, 512, 512), help="voxels, z y x")
    parser.add_argument("--without-engine", action="store_true", help="a given result in place of the engine's")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        way = run_without_engine if arguments.without_engine else run
        spent = way(tuple(arguments.size), Path(folder))
    size = " x ".join(map(str, arguments.size))
    load = f"load {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores" if hasattr(os, "getloadavg") else ""
    lines = [f"## {date.today()}, {size} voxels, {load}", ""]
    options = f"--size {' '.join(map(str, arguments.size))}{' --without-engine' * arguments.without_engine}"
    lines += [f"`python Testing/Benchmarks/main_thread.py {options}`", ""]
    lines += ["| call | longest, processor s | on the clock s |", "|---|---|---|"]
    for name, calls in spent.items():
        lines.append(f"| {name} ({len(calls)}) | {max(calls)[0]:.3f} | {max(call[1] for call in calls):.3f} |")
    print("\n".join(lines))
    if arguments.write:
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n\n")


if __name__ == "__main__":
    main()
