"""What is left behind when a process is ended at any moment, and whether the next run works: a table, no figure.

    python Testing/Benchmarks/ended_anywhere.py [--moments 20] [--only command worker application] [--how SIGKILL ...]
                                                [--write]

command       `usema segment`, which writes a label map, probabilities and a picture, is ended by `kill -9`, Ctrl+C and
              SIGTERM, and its output by a reader that goes away.
worker        the process that segments for a panel is killed from its start to its answer.
application   the one that asks is killed, from before it starts a worker to the answer.

The moments are spread evenly over the time that a whole run takes of the processor. Afterwards each file has to be
whole or not there, no process may be left, and the next run has to end well and leave its own files alone. Linux only:
the commands are forked from one process that has loaded PyTorch and computed nothing. --write keeps the table in
results/ended_anywhere.md. Exit code 1 if something was left that should not be.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk

os.environ["OMP_NUM_THREADS"] = "1"  # a thread does not survive a fork
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "USEMASegmentation"), str(ROOT / "Testing/Python/helpers")]

from bundles import write_tiny_bundle  # noqa: E402
from usema.resources import sample_volume  # noqa: E402
from usema.serving.client import WorkerClient  # noqa: E402
from usema.serving.exchange import make_folder, remove_abandoned, remove_folder  # noqa: E402
from usema.volumes.geometry import Geometry  # noqa: E402
from workers import is_alive, last_event  # noqa: E402

RESULTS = Path(__file__).with_name("results") / "ended_anywhere.md"
SHAPE = (40, 48, 40)
SECONDS = 600
WAYS = ("SIGKILL", "SIGINT", "SIGTERM", "closed pipe")  # in which a command is ended


def forked(work: Callable[[], None], **streams: int) -> int:
    """A child that does this and ends; its number. ``streams``: stdout and stderr, in place of nothing."""
    number = os.fork()
    if number:
        return number
    code = 70
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's & has it ignored
        for name, descriptor in (("stdout", 1), ("stderr", 2)):
            os.dup2(streams.get(name, os.open(os.devnull, os.O_WRONLY)), descriptor)
            setattr(sys, name, open(descriptor, "w", closefd=False))  # noqa: SIM115
        work()
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        os._exit(code)


def seconds_used(number: int) -> float:
    """Of the processor, by a process."""
    try:
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("inf")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def end_at(number: int, moment: float, how: Callable[[], None]) -> None:
    """Ends a process when it has used so many seconds of the processor, or has ended by itself."""
    while seconds_used(number) < moment and is_alive(number):
        time.sleep(0.001)
    if is_alive(number):
        how()


def wait_for(number: int) -> tuple[int, float]:
    """(exit code, minus the signal that ended it; seconds of the processor) of a child."""
    _, status, used = os.wait4(number, 0)
    return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


class Report:
    """Rows of the table, and what should not be."""

    def __init__(self):
        self.rows, self.wrong = [], []

    def add(self, what: str, how: str, seen: Counter, wrong: list[str]) -> None:
        self.rows.append(f"| {what} | {how} | {sum(seen.values())} | {words(seen)} | {'; '.join(wrong) or 'nothing'} |")
        self.wrong += wrong
        print(self.rows[-1], flush=True)


def words(seen: Counter) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(seen.items()))


# The command line


def try_command(folder: Path, model: Path, moments: int, report: Report, ways: Sequence[str] = WAYS) -> None:
    import matplotlib.backends.backend_agg
    import matplotlib.figure  # noqa: F401
    import torch  # noqa: F401
    from usema.cli import main, segment  # noqa: F401
    from usema.inference import predictor  # noqa: F401
    from usema.quality import pictures  # noqa: F401

    def command(out: Path, *more: str) -> Callable[[], None]:
        results = ["-o", out / "a.nii.gz", "--probabilities", out / "p.nii.gz", "--preview", out / "a.png"]
        return lambda: main(["segment", *map(str, [volume, *results, "--model", model, *more])])

    def cut_out() -> None:
        sitk.WriteImage(sitk.ReadImage(str(sample_volume()))[4:28, 8:40, 4:28], str(volume))

    volume = folder / "volume.nii.gz"
    wait_for(forked(cut_out))  # not here: ITK's threads do not survive a fork
    (folder / "whole").mkdir()
    code, whole = wait_for(forked(command(folder / "whole")))
    expected = contents(folder / "whole")
    assert code == 0, "the command does not run undisturbed"
    assert sorted(expected) == ["a.nii.gz", "a.png", "p.nii.gz"]
    for how in ways:
        seen, wrong = Counter(), []
        for index in range(moments):
            moment, out = whole * (index + 0.5) / moments, folder / f"{how} {index}"
            out.mkdir()
            if how == "closed pipe":
                reader, writer = os.pipe()
                number = forked(
                    lambda out=out, reader=reader: (os.close(reader), command(out)()), stdout=writer, stderr=writer
                )
                os.close(writer)
                end_at(number, moment, lambda: None)
                os.close(reader)
            else:
                number = forked(command(out))
                end_at(number, moment, partial(os.kill, number, signal.Signals[how]))
            code, _ = wait_for(number)
            left = contents(out)
            files = {name for name in left if not name.startswith(".")}
            hidden = len(left) - len(files)
            seen[f"with {len(files)} of 3 files{f' and {hidden} begun' if hidden else ''}"] += 1
            at = f"{how} after {moment:.2f} s"
            wrong += [f"{at}: {name} is half" for name in files if left[name] != expected[name]]
            if hidden and how != "SIGKILL":
                wrong.append(f"{at}: {sorted(set(left) - files)} left")
            allowed = {"SIGKILL": {-9, 0}, "SIGINT": {130, 0}, "SIGTERM": {143, 0}, "closed pipe": {0, 1}}[how]
            if code not in allowed:
                wrong.append(f"{at}: exit code {code}")
            code, _ = wait_for(forked(command(out, "--overwrite")))
            if code or contents(out) != expected:
                wrong.append(f"{at}: the next run ended with {code} and left {sorted(contents(out))}")
        report.add("command", how, seen, wrong)


# The worker, and whoever asks it


class Panel:
    """What a panel does for one click, without MRML: voxels into a folder, a request, the answer."""

    def __init__(self, parent: Path, model: Path):
        self.parent, self.model, self.client = parent, model, WorkerClient(environment={"OMP_NUM_THREADS": "1"})

    def ask(self) -> int:
        remove_abandoned(self.parent)
        self.path, self.lock = make_folder(self.parent)
        np.save(self.path / "channel-0.npy", np.random.default_rng(0).normal(size=SHAPE).astype(np.float32))
        grid = Geometry(SHAPE[::-1], (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
        entry = {"array": str(self.path / "channel-0.npy"), "geometry": grid.to_dict()}
        fields = {"model": str(self.model), "device": "cpu", "output": str(self.path), "inputs": [entry]}
        return self.client.request("segment", **fields)

    def answer(self, request: int) -> str:
        event = last_event(self.client, request, SECONDS)
        remove_folder(self.path, self.lock)
        return event.get("code") or event["event"]


def workers() -> set[int]:
    """Numbers of all workers that were started from here: they know where these models lie."""
    found, ours = set(), os.environ["USEMA_MODELS"].encode()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            here = ours in (path / "environ").read_bytes() and is_alive(int(path.name))
            if here and b"usema.serving.worker" in (path / "cmdline").read_bytes():
                found.add(int(path.name))
        except OSError:
            continue
    return found


def until(condition: Callable[[], bool], seconds: float = SECONDS) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def try_worker(folder: Path, model: Path, moments: int, report: Report) -> None:
    parent = folder / "exchange of the worker"
    parent.mkdir()
    panel, others, seen, wrong = Panel(parent, model), workers(), Counter(), []
    assert panel.answer(panel.ask()) == "result"
    (number,) = workers() - others
    whole = seconds_used(number)
    panel.client.stop()
    for index in range(moments):
        moment = whole * (index + 0.5) / moments
        panel = Panel(parent, model)
        request = panel.ask()
        until(lambda: bool(workers() - others))
        (number,) = workers() - others
        end_at(number, moment, partial(os.kill, number, signal.SIGKILL))
        said = panel.answer(request)
        seen[{"worker-died": "told as a worker that ended", "result": "after the answer"}.get(said, said)] += 1
        if list(parent.iterdir()):
            wrong.append(f"kill -9 after {moment:.2f} s: {[path.name for path in parent.iterdir()]} left")
        if index % 5 == 0 and panel.answer(panel.ask()) != "result":
            wrong.append(f"kill -9 after {moment:.2f} s: the next request has no result")
        panel.client.stop()
        if workers() - others:
            wrong.append(f"kill -9 after {moment:.2f} s: a process is left")
    report.add("worker", "SIGKILL", seen, wrong)


def try_application(folder: Path, model: Path, moments: int, report: Report) -> None:
    parent = folder / "exchange of the application"
    parent.mkdir()
    others, seen, wrong, longest = workers(), Counter(), [], 0.0

    def application() -> None:
        panel = Panel(parent, model)
        panel.answer(panel.ask())
        time.sleep(SECONDS)  # a panel stays

    number = forked(application)
    until(lambda: bool(workers() - others))
    (worker,) = workers() - others
    until(lambda: bool(list(parent.iterdir())))
    until(lambda: not list(parent.iterdir()))
    whole = seconds_used(worker)
    os.kill(number, signal.SIGKILL)
    wait_for(number)
    until(lambda: not workers() - others)
    for index in range(moments):
        moment = whole * (index + 0.5) / moments
        number = forked(application)
        if index:  # the first is killed before there is a worker
            until(lambda: bool(workers() - others))
            (worker,) = workers() - others
            end_at(worker, moment, lambda: None)
        os.kill(number, signal.SIGKILL)
        wait_for(number)
        start = time.monotonic()
        if not until(lambda: not workers() - others, 120):
            wrong.append(f"kill -9 after {moment:.2f} s: the worker is left")
        longest = max(longest, time.monotonic() - start)
        left = list(parent.iterdir())
        seen["folder removed by the worker" if not left else "folder left until the next start"] += 1
        remove_abandoned(parent)
        if list(parent.iterdir()):
            wrong.append(f"kill -9 after {moment:.2f} s: {[path.name for path in parent.iterdir()]} stays")
    panel = Panel(parent, model)
    if panel.answer(panel.ask()) != "result":
        wrong.append("the next application has no result")
    panel.client.stop()
    report.add("application", f"SIGKILL; the worker was gone within {longest:.1f} s", seen, wrong)


TRIALS = {"command": try_command, "worker": try_worker, "application": try_application}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--only", nargs="+", choices=TRIALS, default=list(TRIALS))
    parser.add_argument("--how", nargs="+", choices=WAYS, default=WAYS, help="ways in which the command is ended")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = str(ROOT / "USEMASegmentation")
    report, trials = Report(), {**TRIALS, "command": partial(try_command, ways=options.how)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ |= {"USEMA_MODELS": str(folder / "Models"), "USEMA_SETTINGS": str(folder / "settings.json")}
        model = write_tiny_bundle(folder / "tiny").path
        for trial in options.only:
            trials[trial](folder, model, options.moments, report)
    if options.write:
        head = f"# Ended at any moment\n\nMade by `Testing/Benchmarks/ended_anywhere.py`, {datetime.date.today()}.\n\n"
        head += "| what | how | times | ended | should not be |\n|---|---|---|---|---|\n"
        RESULTS.write_text(head + "\n".join(report.rows) + "\n", encoding="utf-8")
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
