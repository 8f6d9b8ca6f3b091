"""Whether a worker that is asked again and again holds more memory, files and threads than before: a table.

    python Testing/Benchmarks/worker_endurance.py [--runs 200] [--write]

One worker segments the sample volume with the bundled model. Every tenth request is another one: with probabilities,
with a first look, of another model, of voxels that are refused, or cancelled in the middle. After a quarter of the runs
memory may grow by no more than one result takes, and files and threads not at all. Exit code 1 if they do. --write
keeps the table in results/worker_endurance.md. Linux only.
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

os.environ["OMP_NUM_THREADS"] = "1"
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "USEMASegmentation"), str(ROOT / "Testing/Python/helpers")]

from bundles import write_tiny_bundle  # noqa: E402
from usema.resources import bundled_models, sample_volume  # noqa: E402
from usema.serving import client as serving  # noqa: E402
from usema.volumes.volume import read_volume  # noqa: E402
from workers import events_of, is_last, is_progress, last_event, resources_of  # noqa: E402

RESULTS = Path(__file__).with_name("results") / "worker_endurance.md"
SECONDS = 600  # that one answer may take on a busy machine
MOST_GROWTH = 16 * 2**20  # bytes; voxels, labels, probabilities and margins of the sample take about as much


def requests(folder: Path) -> list[dict]:
    """The usual request, and five others."""
    volume = read_volume(sample_volume())
    np.save(folder / "in.npy", volume.array)
    np.save(folder / "nan.npy", np.full(volume.array.shape, np.nan, np.float32))
    grid = volume.geometry.to_dict()
    usual = {"model": str(bundled_models()["hippocampus-mr"]), "device": "cpu", "output": str(folder)}
    usual["inputs"] = [{"array": str(folder / "in.npy"), "geometry": grid}]
    refused = [{"array": str(folder / "nan.npy"), "geometry": grid}]
    tiny = write_tiny_bundle(folder / "tiny").path
    return [
        usual,
        {**usual, "probabilities": True, "margins": True},
        {**usual, "speed": "preview"},
        {**usual, "model": str(tiny)},
        {**usual, "inputs": refused},
        {**usual, "cancelled": True},
    ]


def run(client: serving.WorkerClient, asked: dict) -> str:
    cancelled = asked.pop("cancelled", False)
    number = client.request("segment", **asked)
    event = events_of(client, number, is_progress if cancelled else is_last, SECONDS)[-1]
    if not is_last(event):
        client.cancel(number)
        event = last_event(client, number, SECONDS)
    return event.get("code") or event["event"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    client, seen, ended = serving.WorkerClient(environment={"PYTHONPATH": str(ROOT / "USEMASegmentation")}), [], {}
    serving.CANCEL_SECONDS = SECONDS  # one that answers late on a busy machine is not to be replaced here
    rows = ["| runs | memory / MB | open files | threads |", "|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as name:
        os.environ |= {"USEMA_MODELS": f"{name}/Models", "USEMA_SETTINGS": f"{name}/settings.json"}
        usual, *others = requests(Path(name))
        try:
            pid = last_event(client, client.request("hello"), SECONDS)["pid"]
            for number in range(options.runs):
                asked = usual if number % 10 else others[number // 10 % len(others)]
                how = run(client, dict(asked))
                ended[how] = ended.get(how, 0) + 1
                threads = len(os.listdir(f"/proc/{pid}/task"))
                seen.append((*resources_of(pid), threads))
                if (number + 1) % max(1, options.runs // 10) == 0:
                    held, files, threads = seen[-1]
                    rows.append(f"| {number + 1} | {held / 2**20:.1f} | {files} | {threads} |")
                    print(rows[-1], flush=True)
            assert last_event(client, client.request("hello"), SECONDS)["pid"] == pid, (
                "it was another worker in between"
            )
        finally:
            client.stop()
    warm = seen[options.runs // 4 :]
    growth = max(held for held, *_ in warm[len(warm) // 2 :]) - max(held for held, *_ in warm[: len(warm) // 2])
    flat = growth <= MOST_GROWTH and all(max(one[i] for one in warm) <= seen[len(seen) // 4][i] for i in (1, 2))
    told = ", ".join(f"{count} {how}" for how, count in sorted(ended.items()))
    last = f"Ended: {told}. Highest memory of the later half of the warm runs less that of the earlier: "
    last += f"{growth / 2**20:.1f} MB. {'Flat' if flat else 'NOT FLAT'}."
    print(last)
    if options.write:
        head = f"# A worker, asked again and again\n\nMade by `{Path(__file__).name}`, {datetime.date.today()}.\n\n"
        RESULTS.write_text(head + "\n".join(rows) + f"\n\n{last}\n", encoding="utf-8")
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main())
