"""Two at once: none overwrites what the other one wrote, and nobody goes on without the lock that another one holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time

import filelock
import pytest
from bundles import write_tiny_bundle
from usema.errors import OutputError
from usema.store import locks, publish, settings

PUBLISH = """
import sys
from usema.models.bundle import read_bundle
from usema.store import publish
print("ready", flush=True)
sys.stdin.readline()
publish.publish(read_bundle(sys.argv[1]), sys.argv[2])
"""


def test_settings_that_another_process_holds_are_not_changed_without_the_lock(monkeypatch):
    monkeypatch.setattr(settings, "_LOCK_SECONDS", 0.1)
    before = settings.add_index("https://a.org")
    with filelock.FileLock(f"{settings.file()}.lock"):
        for change in (
            lambda: settings.add_index("https://b.org"),
            lambda: settings.remove_index("https://a.org"),
            lambda: settings.trust(""),
        ):
            with pytest.raises(OutputError, match=r"settings .* cannot be changed: another process") as caught:
                change()
            assert "Try again" in caught.value.hint
    assert settings.read().indexes == (before,)
    settings.add_index("https://b.org")


def test_the_panel_never_waits_long_for_the_settings():
    assert settings._LOCK_SECONDS <= 2


def test_models_published_at_the_same_time_are_all_listed(tmp_path, root):
    """Processes, as on the computers of a department."""
    share, names = tmp_path / "share", ["a", "b", "c"]
    bundles = [write_tiny_bundle(tmp_path / name, name=name).path for name in names]
    command = [sys.executable, "-c", PUBLISH]
    environment = {"PYTHONPATH": str(root / "USEMASegmentation")}
    running = [
        subprocess.Popen(
            [*command, bundle, share], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for bundle in bundles
    ]  # fmt: skip
    for process in running:
        assert process.stdout.readline() == "ready\n"
    for process in running:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in running:
        _, errors = process.communicate(timeout=280)
        assert process.returncode == 0, errors
    assert [model["name"] for model in json.loads((share / "models.json").read_text())["models"]] == names
    page = (share / "models.html").read_text()
    assert all(f'<article id="{name}">' in page for name in names)
    expected = {"models.json", "models.html", *(f"{name}-1.2.0.usema" for name in names)}
    assert {path.name for path in share.iterdir()} == expected, "the lock is gone, too"


def test_a_folder_that_another_process_publishes_into_is_said_and_left_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(publish, "_LOCK_SECONDS", 0.1)
    share = tmp_path / "share"
    bundle = write_tiny_bundle(tmp_path / "a", name="a")
    publish.publish(bundle, share)
    before = {path.name: path.read_bytes() for path in share.iterdir()}
    lock = share / publish._LOCK
    with filelock.FileLock(lock), pytest.raises(OutputError, match=rf"The index in {share} cannot be changed"):
        publish.publish(write_tiny_bundle(tmp_path / "b", name="b"), share)
    lock.unlink(missing_ok=True)
    assert {path.name: path.read_bytes() for path in share.iterdir()} == before


def test_a_lock_that_is_deleted_at_its_end_still_lets_one_in_at_a_time(tmp_path):
    inside, most, rounds = [], [], 20

    def work():
        for _ in range(rounds):
            with locks.alone(tmp_path / "lock", 30, "It", leave=False):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.001)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * rounds * len(threads)
    assert list(tmp_path.iterdir()) == []


def test_a_lock_whose_file_was_deleted_at_that_moment_is_taken_anew(tmp_path, monkeypatch):
    """Its last holder deletes it after somebody else has opened it: two could hold two files of one name."""
    deletes = [True]

    class DeletedInBetween(filelock.FileLock):
        def acquire(self, *arguments, **options):
            held = super().acquire(*arguments, **options)
            if deletes:
                deletes.clear()
                os.unlink(self.lock_file)
            return held

    with monkeypatch.context() as patch:
        patch.setattr(filelock, "FileLock", DeletedInBetween)
        entered = locks.alone(tmp_path / "lock", 5, "It", leave=False)
        entered.__enter__()
    with pytest.raises(filelock.Timeout):
        filelock.FileLock(tmp_path / "lock").acquire(timeout=0)
    entered.__exit__(None, None, None)
    assert not deletes
    assert list(tmp_path.iterdir()) == []


def test_another_user_of_the_folder_waits_as_well(tmp_path):
    """Whoever made the lock first, all of a department must be able to open it."""
    before = os.umask(0o077)
    try:
        with locks.alone(tmp_path / "lock", 1, "It", leave=False):
            assert (tmp_path / "lock").stat().st_mode & 0o666 == 0o666
        with locks.alone(tmp_path / "mine", 1, "It"):
            assert (tmp_path / "mine").stat().st_mode & 0o066 == 0
    finally:
        os.umask(before)


def test_where_there_are_no_locks_it_goes_on_without(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "filelock", None)
    with locks.alone(tmp_path / "lock", 1, "It"):
        pass
    assert list(tmp_path.iterdir()) == []
