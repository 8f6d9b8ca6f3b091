"""Folders with patients' voxels: who may look into them, and who removes them when."""

from __future__ import annotations

import os
import subprocess
import threading

from usema.serving import exchange
from usema.serving.exchange import make_folder, remove_abandoned, remove_folder, remove_if_abandoned
from workers import python


def test_only_this_user_may_look_into_it(tmp_path):
    before = os.umask(0)
    try:
        path, lock = make_folder(tmp_path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o700
    assert remove_folder(path, lock)
    assert os.listdir(tmp_path) == []


def test_an_application_that_starts_while_a_folder_is_being_made_takes_nothing_away(tmp_path, monkeypatch):
    """In the moment between the lock file's appearance and its being locked."""
    lock, sweeps = exchange._lock, []

    def slowly(file):
        if not sweeps:
            sweeps.append("one")
            remove_abandoned(tmp_path)  # another application; it finds the file unlocked
        return lock(file)

    monkeypatch.setattr(exchange, "_lock", slowly)
    path, held = make_folder(tmp_path)
    assert sweeps
    (path / "channel-0.npy").write_bytes(b"voxels")
    monkeypatch.setattr(exchange, "_lock", lock)
    remove_abandoned(tmp_path)
    assert (path / "channel-0.npy").exists()
    assert remove_folder(path, held)


def test_two_applications_that_make_and_sweep_at_once_lose_nothing(tmp_path):
    problems = []

    def work():
        for _ in range(100):
            path, lock = make_folder(tmp_path)
            remove_abandoned(tmp_path)
            if not (path / "in-use").exists():
                problems.append(path)
            remove_folder(path, lock)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_none_of_ours_or_a_link_to_one_is_left_alone(tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    for name in ("in-use", "scan.nrrd"):
        (mine / name).touch()
    (tmp_path / "USEMA-link").symlink_to(mine, target_is_directory=True)
    remove_abandoned(tmp_path)
    remove_if_abandoned(mine)
    remove_if_abandoned(tmp_path / "USEMA-nothing")
    assert sorted(os.listdir(mine)) == ["in-use", "scan.nrrd"]


def test_what_a_killed_process_left_is_removed(tmp_path, root):
    script = f"""
import os, sys
sys.path.insert(0, {str(root / "USEMASegmentation")!r})
from pathlib import Path
from usema.serving.exchange import make_folder
kept = make_folder(Path({str(tmp_path)!r}))
os.kill(os.getpid(), 9)
"""
    subprocess.run(python(script), check=False)
    assert len(os.listdir(tmp_path)) == 1
    remove_abandoned(tmp_path)
    assert os.listdir(tmp_path) == []
