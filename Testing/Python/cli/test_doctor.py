"""`usema doctor`: paths without the user's name, whatever the home folder is, and also without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from usema.cli.doctor import _without_home
from usema.resources import sample_volume


@pytest.mark.parametrize(
    ("home", "text", "shown"),
    [
        ("/home/ann", "/home/ann/models", "~/models"),
        ("/home/ann", "/home/ann", "~"),
        ("/home/ann/", "It lies in /home/ann.", "It lies in ~."),
        ("/home/ann", "/home/anna/models", "/home/anna/models"),
        ("/home/ann", "/home/ann.smith/models", "/home/ann.smith/models"),
        ("/home/ann", "/home/ann-old/models", "/home/ann-old/models"),
        ("/", "/tmp/models", "/tmp/models"),
    ],
)
def test_the_home_folder_and_nothing_else_is_hidden(home, text, shown, monkeypatch):
    monkeypatch.setenv("HOME", home)
    assert _without_home(text) == shown


NAMELESS = """
import os, pwd, sys
def nobody(*_): raise KeyError("uid not found")
pwd.getpwuid = pwd.getpwnam = nobody
os.environ.pop("HOME", None)
os.environ.pop("USEMA_MODELS", None), os.environ.pop("USEMA_SETTINGS", None)
import json
from usema.cli import main
for command in json.loads(sys.argv[1]):
    try:
        main(command)
    except SystemExit as stop:
        if stop.code:
            raise
    print("END OF THE COMMAND", flush=True)
"""
ENDED = "END OF THE COMMAND"


def test_a_user_without_name_and_home_runs_what_needs_none(tmp_path):
    """As in containers and batch jobs: no entry in the list of users, and HOME is not set."""
    results = ["-o", str(tmp_path / "a.seg.nrrd"), "--preview", str(tmp_path / "a.png")]
    for_all = [["doctor"], ["models", "list"], ["models", "verify"], ["segment", str(sample_volume()), *results]]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("XDG_")}
    program = [sys.executable, "-c", NAMELESS, json.dumps(for_all)]
    run = subprocess.run(program, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=280)
    assert run.returncode == 0, run.stderr
    assert "Traceback" not in run.stderr
    told = run.stdout.split(ENDED)
    assert len(told) == len(for_all) + 1
    assert all("hippocampus-mr" in text for text in told[:3])
    assert (tmp_path / "a.png").is_file()


@pytest.mark.parametrize("command", [["models", "index", "add", "somewhere"], ["models", "download", "sarcoma-mr"]])
def test_what_needs_a_home_says_so(command, tmp_path):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("XDG_")}
    program = [sys.executable, "-c", NAMELESS, json.dumps([command])]
    run = subprocess.run(program, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=280)
    assert run.returncode == 1
    assert "Traceback" not in run.stderr


def test_a_home_that_cannot_be_written_is_no_obstacle(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o500)
    environment = {**os.environ, "HOME": str(home)}
    environment.pop("USEMA_MODELS", None), environment.pop("USEMA_SETTINGS", None)
    command = [sys.executable, "-c", "from usema.cli import main; main()", "segment", "--sample", "-o", "a.nii"]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=280)
    assert run.returncode == 0, run.stderr
    assert list(home.iterdir()) == []
    assert Path(tmp_path / "a.nii").is_file()
