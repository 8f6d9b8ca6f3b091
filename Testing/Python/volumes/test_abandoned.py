"""What a killed process left under a temporary name goes; what another still writes, and all else, stays."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from usema import files
from usema.files import remove_abandoned, temporary_beside
from usema.volumes.geometry import Geometry
from usema.volumes.writing import write_label_map

GRID = Geometry((4, 4, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))


@pytest.fixture
def gone(monkeypatch, tmp_path) -> Path:
    """A file that a process of this computer, which has ended, was writing beside ``a.nii.gz``."""
    ended = subprocess.Popen([sys.executable, "-S", "-E", "-c", ""])
    ended.wait()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: ended.pid)
        path = temporary_beside(tmp_path / "a.nii.gz", ".nii.gz")
    path.write_bytes(b"half")
    return path


def test_the_next_result_in_a_folder_takes_away_what_a_killed_process_left(gone, tmp_path):
    write_label_map(tmp_path / "b.nii.gz", np.ones((4, 4, 4), np.uint8), GRID)
    assert [path.name for path in tmp_path.iterdir()] == ["b.nii.gz"]


def test_a_folder_goes_as_well(gone, tmp_path):
    gone.unlink()
    gone.mkdir()
    (gone / "model.json").write_text("{}")
    remove_abandoned(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_being_written_and_what_only_looks_alike_stays(tmp_path, gone):
    mine = temporary_beside(tmp_path / "a.nii.gz", ".nii.gz")
    others = gone.with_name(gone.name.replace(files._numbering(), "0" * 8))  # of another computer, just now
    names = [gone.name + "-old", ".usema-notes", ".usema-1-2-3", gone.name[1:], f"{gone.name}.backup 1"]
    kept = [mine, others, *(tmp_path / name for name in names)]
    for path in kept:
        path.write_bytes(b"precious")
    remove_abandoned(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_what_another_computer_left_goes_when_it_is_old(gone, tmp_path):
    old = gone.rename(gone.with_name(gone.name.replace(files._numbering(), "0" * 8)))
    remove_abandoned(tmp_path)
    assert old.exists()
    os.utime(old, (time.time() - 25 * 3600,) * 2)
    remove_abandoned(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_no_error(tmp_path):
    remove_abandoned(tmp_path / "none")
