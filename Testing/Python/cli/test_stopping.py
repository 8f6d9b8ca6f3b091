"""Stopping at any moment, closed pipes, two runs at once, a full disk: each file is whole or not there."""

from __future__ import annotations

import importlib
import os
import resource
import signal
import subprocess
import sys
import threading

import pytest
from click.testing import CliRunner
from ignored_signals import heard
from usema.cli import main
from usema.cli.interrupt import Stopped, signals_raise, stop_on_interrupt
from usema.volumes.volume import load_volume

COMMAND = [sys.executable, "-c", "from usema.cli import main; main()"]


@pytest.fixture(autouse=True)
def the_end_of_a_terminal_arrives():
    with heard(signal.SIGHUP):
        yield


@pytest.fixture
def arguments(tmp_path, model, small_volume) -> list[str]:
    outputs = ["-o", tmp_path / "a.nii", "--probabilities", tmp_path / "p.nii", "--preview", tmp_path / "a.png"]
    return ["segment", *map(str, [small_volume, *outputs, "--model", model])]


def stop_at(monkeypatch, place: str, number: int, times: int = 1) -> None:
    """The signal comes when this function is called, which then goes on."""
    module, _, name = place.rpartition(".")
    module = importlib.import_module(module)
    whole = getattr(module, name)

    def stopped(*args, **kwargs):
        for _ in range(times):
            os.kill(os.getpid(), number)
        return whole(*args, **kwargs)

    monkeypatch.setattr(module, name, stopped)


MOMENTS = [
    ("usema.cli.segment.plan_cases", []),
    ("usema.volumes.volume.read_volume", []),
    ("usema.inference.predictor.Predictor", []),
    ("usema.inference.nnunet_recipe.preprocess", []),
    ("usema.inference.loading.predict_logits", []),
    ("usema.volumes.writing.write_label_map", ["a.nii"]),
    ("usema.volumes.writing.write_probabilities", ["a.nii", "p.nii"]),
    ("usema.quality.pictures.write_preview", ["a.nii", "a.png", "p.nii"]),
]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(("moment", "written"), MOMENTS)
def test_a_stop_leaves_whole_files_and_says_which(arguments, tmp_path, monkeypatch, moment, written, number):
    stop_at(monkeypatch, moment, number)
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 128 + number
    assert "Stopped" in result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == written
    told = result.output.split("Stopped")[1]
    if written and len(written) < 3:
        there, missing = told.split("Not written:")
        for name in ("a.nii", "p.nii", "a.png"):
            assert str(tmp_path / name) in (there if name in written else missing)


@pytest.mark.parametrize("moment", [moment for moment, written in MOMENTS if "a.png" not in written])
def test_a_second_signal_stops_at_once(arguments, tmp_path, monkeypatch, moment):
    stop_at(monkeypatch, moment, signal.SIGINT, times=2)
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 130
    assert "Stopped" in result.output
    assert not any(path.name.startswith(".") for path in tmp_path.iterdir())


def test_a_stop_between_cases_says_how_many_were_done(model, small_volume, tmp_path, monkeypatch):
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.nii.gz").write_bytes(small_volume.read_bytes())
    predict = importlib.import_module("usema.cli.work").predict_case

    def stop_at_the_second(case, *rest):
        if case.name == "b.nii.gz":
            os.kill(os.getpid(), signal.SIGINT)
        return predict(case, *rest)

    monkeypatch.setattr("usema.cli.work.predict_case", stop_at_the_second)
    result = CliRunner().invoke(main, ["segment", str(tmp_path), "-o", f"{tmp_path}/out", "--model", str(model)])
    assert result.exit_code == 130
    assert "1 of 3 cases were done before" in result.output
    assert [path.name for path in (tmp_path / "out").glob("*.nii*")] == ["a.nii.gz"]


def test_signals_that_are_ignored_stay_so():
    """As `nohup` and a shell's `&` leave them."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals_raise(), stop_on_interrupt() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.is_set()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_handlers_are_put_back_and_other_threads_have_none():
    before = signal.getsignal(signal.SIGTERM)
    with signals_raise(), pytest.raises(Stopped) as stopped:
        os.kill(os.getpid(), signal.SIGTERM)
    assert stopped.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) == before
    seen = []
    thread = threading.Thread(target=lambda: seen.append(stop_on_interrupt().__enter__().is_set()))
    thread.start()
    thread.join()
    assert seen == [False]


@pytest.mark.parametrize("redirect", ["", "2>&1"])
def test_a_reader_that_has_seen_enough_is_no_error(redirect):
    program = " ".join(f"'{word}'" for word in COMMAND)
    command = f"set -o pipefail; {{ {program} models list; sleep 0.1; }} {redirect} | head -c 1"
    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True, errors="replace", timeout=280)
    assert "Traceback" not in run.stderr + run.stdout
    assert "Broken pipe" not in run.stderr


def test_two_runs_into_one_output_leave_one_whole_file(model, small_volume, tmp_path):
    command = [
        *COMMAND,
        "segment",
        str(small_volume),
        "-o",
        str(tmp_path / "a.nii.gz"),
        "--model",
        model,
    ]
    runs = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [run.communicate(timeout=280)[1] for run in runs]
    codes = sorted(run.returncode for run in runs)
    assert codes[0] == 0, errors
    assert codes[1] == 0 or "exists already" in "".join(errors)
    assert [path.name for path in tmp_path.iterdir()] == ["a.nii.gz"]
    assert load_volume(tmp_path / "a.nii.gz").array.any()


def test_a_disk_that_takes_no_more_is_told_and_leaves_nothing(model, small_volume, tmp_path):
    """A limit on the size of files stands in for a full disk: writing fails in the middle of a file."""

    def limited():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    command = [*COMMAND, "segment", str(small_volume), "-o", str(tmp_path / "o/a.nii"), "--model", model]
    run = subprocess.run(command, capture_output=True, text=True, preexec_fn=limited, timeout=280)
    assert run.returncode == 1
    assert "cannot be written" in run.stderr
    assert "Traceback" not in run.stderr
    assert list(tmp_path.iterdir()) == []
