"""What a cohort costs per case beside its computing, and that an engine loses no case: 40 volumes, one of them corrupt.

    python Testing/Benchmarks/cohorts.py [--cases 40] [--engines loop,local,ray,slurm] [--workers 2] [--write]

"loop" is what a script of a few lines does: read, segment, write, with one loaded model. "local", "ray" and "slurm"
are `usema segment FOLDER -o OUT --engine ...`: they also measure segments, keep statuses and a table. With Ray, one of
its actors is killed in the middle. Slurm's jobs run by submitit's own executor for one computer. Volumes and network
are tiny, so that what surrounds the computing shows. Seconds are of the wall, from the first case that is over to the
last one; what comes before, such as starting Python, Ray and the model, is told apart. --write appends to
results/cohorts.md.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import nibabel
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "USEMASegmentation"), str(ROOT / "Testing/Python/helpers")]

from bundles import write_tiny_bundle  # noqa: E402
from usema.resources import sample_volume  # noqa: E402
from usema.volumes.volume import read_volume  # noqa: E402

RESULTS = Path(__file__).with_name("results") / "cohorts.md"
HEADER = """# Cohorts: seconds per case, and what becomes of lost processes

Made by `Testing/Benchmarks/cohorts.py`, which says what is compared.

| date | machine, load | cases | engine | workers | to the first case, s | per case after it, s | done | failed |
|---|---|---|---|---|---|---|---|---|
"""
CORRUPT = "case-20.nii.gz"
LOOP = """
import sys
from pathlib import Path
from usema.inference.predictor import Predictor
from usema.models.bundle import read_bundle
from usema.volumes.volume import read_volume
from usema.volumes.writing import write_label_map
source, out = Path(sys.argv[1]), Path(sys.argv[2])
predictor = Predictor(read_bundle(Path(sys.argv[3])), "cpu")
out.mkdir()
for path in sorted(source.iterdir()):
    try:
        result = predictor.segment(read_volume(path))
    except Exception:
        continue
    write_label_map(out / path.name, result.labels, result.geometry)
"""


def make_cases(folder: Path, count: int) -> None:
    piece = read_volume(sample_volume()).array[4:12, 5:35, 5:30].astype(np.int16)
    folder.mkdir()
    for number in range(count):
        image = nibabel.Nifti1Image(np.roll(piece, number, axis=1).T, np.eye(4))
        nibabel.save(image, folder / f"case-{number:02d}.nii.gz")
    whole = (folder / CORRUPT).read_bytes()
    (folder / CORRUPT).write_bytes(whole[: len(whole) // 2])


def kill_an_actor(out: Path, killed: list[int]) -> None:
    """Once a quarter of the cases is done: the process that Ray calls after our actor."""
    while len(list(out.glob("*.nii.gz"))) < 10:
        time.sleep(0.05)
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and b"ray::_Actor" in (folder / "cmdline").read_bytes():
                os.kill(int(folder.name), signal.SIGKILL)
                killed.append(int(folder.name))
                return
        except OSError:
            continue


def measured(command: list[str], out: Path, kill: bool) -> tuple[float, float, int, int, list[int]]:
    """(seconds to the first case, seconds per case after it, done, failed, processes that were killed)."""
    began, first, killed = time.time(), 0.0, []
    killer = threading.Thread(target=kill_an_actor, args=(out, killed), daemon=True)
    if kill:
        killer.start()
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    said = run.communicate()[1]
    times = sorted(path.stat().st_mtime for path in out.glob("*.nii.gz"))
    if not times:
        raise SystemExit(f"nothing was done:\n{said}")
    first, last = times[0] - began, times[-1] - times[0]
    table = out / "cohort.csv"
    rows = list(csv.DictReader(table.open(encoding="utf-8"))) if table.exists() else []
    failed = [row for row in rows if row["state"] != "done"]
    for row in failed:
        print(f"  {row['case']}: {row['error']}")
    return first, last / max(1, len(times) - 1), len(times), len(failed), killed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--engines", default="loop,local,ray,slurm")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory(prefix="usema-cohorts-") as temporary:
        folder = Path(temporary)
        make_cases(folder / "in", options.cases)
        model = write_tiny_bundle(folder / "tiny").path
        for engine in options.engines.split(","):
            out = folder / engine
            if engine == "loop":
                command = [sys.executable, "-c", LOOP, str(folder / "in"), str(out), str(model)]
            else:
                words = "import sys; from usema.cli import main; main()"
                command = [sys.executable, "-c", words, "segment", str(folder / "in"), "-o", f"{out}/"]
                command += ["--model", str(model), "--device", "cpu", "--engine", engine]
                command += ["--workers", str(options.workers)] if engine == "ray" else []
                command += ["--slurm", "cluster=local"] if engine == "slurm" else []
            first, each, done, failed, killed = measured(command, out, kill=engine == "ray")
            workers = options.workers if engine == "ray" else -(-options.cases // 20) if engine == "slurm" else 1
            told = f"{engine}, one actor killed" if killed else engine
            machine = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.0f}"
            line = f"| {datetime.date.today()} | {machine} | {options.cases} | {told} | {workers} | "
            line += f"{first:.1f} | {each:.2f} | {done} | {failed if engine != 'loop' else '-'} |"
            print(line, flush=True)
            lines.append(line)
    if options.write:
        text = RESULTS.read_text("utf-8") if RESULTS.exists() else HEADER
        RESULTS.write_text(text + "\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
