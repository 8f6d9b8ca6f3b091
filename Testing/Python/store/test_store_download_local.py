"""Downloading onto disks that are full or read-only, while the user cancels and the system kills."""

from __future__ import annotations

import hashlib
import os
import resource
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import faulty_server as faulty
import pytest
from download_cases import CONTENT, SHA256, SIZE, assert_whole, get, part_of, put_part
from faulty_server import cut_at, status
from small_disk import mounted
from usema.errors import Cancelled, StoreError
from usema.store import download

pytest_plugins = ["download_fixtures"]


# Progress and cancelling


def test_progress_tells_bytes_speed_and_time_left(server, target):
    server.pause = 0.06
    steps = []
    get(server.url(), target, progress=steps.append)
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    assert (steps[-1].done, steps[-1].total) == (SIZE, SIZE)
    timed = [step for step in steps if step.bytes_per_second]
    assert timed
    for step in timed:
        assert step.seconds_left == pytest.approx((SIZE - step.done) / step.bytes_per_second)
        assert step.bytes_per_second < 2 * 2**16 / 0.06


def test_waiting_and_checking_are_told(server, target):
    put_part(target, CONTENT[:1000])
    server.faults = [status(500)]
    steps = []
    get(server.url(), target, progress=steps.append)
    messages = [step.message for step in steps]
    assert messages[0] == "Checking what is here already"
    assert any(
        message.startswith("Trying again in 0 s: cannot be had now: localhost has a problem") for message in messages
    )


@pytest.mark.fault
@pytest.mark.parametrize("moment", ["while it comes", "while it drips", "while it waits"])
def test_cancelling_keeps_the_part(moment, server, target, monkeypatch):
    server.pause = 0.02
    if moment == "while it drips":
        server.faults = [faulty.drip]
    if moment == "while it waits":
        monkeypatch.setattr(download, "FIRST_WAIT", 60)
        server.faults = [cut_at(5), status(500)]
    seen = []

    def should_stop() -> bool:
        return bool(seen) and (seen[-1].done > 300 if moment != "while it waits" else "again" in seen[-1].message)

    with pytest.raises(Cancelled, match="kept"):
        get(server.url(), target, progress=seen.append, should_stop=should_stop)
    kept = part_of(target).read_bytes()
    assert 300 < len(kept) < SIZE
    assert kept == CONTENT[: len(kept)]
    assert not target.exists()
    server.faults, server.pause = [], 0
    monkeypatch.setattr(download, "FIRST_WAIT", 0.01)
    get(server.url(), target)
    assert_whole(target)
    assert server.requests[-1][1] == f"bytes={len(kept)}-"


# Disks


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 512 KiB."""
    with mounted(tmp_path / "disk", "size=512k") as place:
        yield place


@pytest.mark.fault
def test_a_full_disk_is_said_and_the_part_goes_on_when_there_is_room(server, small_disk):
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(200_000))
    target = small_disk / "model.usema"
    with pytest.raises(StoreError, match=f"The disk is full: {small_disk}") as caught:
        get(server.url(), target)
    assert "Make room" in caught.value.hint
    kept = part_of(target).stat().st_size
    assert kept > 0
    assert not target.exists()
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=4m", small_disk], check=True)
    get(server.url(), target)
    assert_whole(target)
    assert server.requests[-1][1] == f"bytes={kept}-"


@pytest.mark.fault
def test_a_quota_on_files_is_said(server, target):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
    try:
        with pytest.raises(StoreError, match="The disk is full"):
            get(server.url(), target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    get(server.url(), target)
    assert_whole(target)
    assert server.requests[-1][1] == "bytes=400000-"


@pytest.mark.fault
@pytest.mark.parametrize("folder_exists", [True, False])
def test_a_read_only_disk_is_said(folder_exists, server, small_disk):
    folder = small_disk / "cache"
    if folder_exists:
        folder.mkdir()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(StoreError, match="cannot be written: Read-only file system") as caught:
        get(server.url(), folder / "model.usema")
    assert "USEMA_MODELS" in caught.value.hint
    assert not server.requests


# Processes that are killed


FETCH = (
    "import sys; from usema.store.download import fetch\n"
    "fetch([sys.argv[1]], sys.argv[2], size=int(sys.argv[3]), sha256=sys.argv[4])"
)


@pytest.mark.fault
def test_what_came_before_a_kill_is_not_downloaded_again(server, target, root):
    server.pause = 0.03
    kept = 0
    for _ in range(3):
        command = [sys.executable, "-c", FETCH, server.url(), target, str(SIZE), SHA256]
        environment = {**os.environ, "PYTHONPATH": str(root / "USEMASegmentation")}
        with subprocess.Popen(command, env=environment) as child:
            while child.poll() is None and size_of(part_of(target)) < kept + 150_000:
                time.sleep(0.005)
            child.send_signal(signal.SIGKILL)
        assert child.returncode == -signal.SIGKILL
        assert not target.exists()
        data = part_of(target).read_bytes()
        assert len(data) >= kept + 150_000
        assert data == CONTENT[: len(data)]
        kept = len(data)
    get(server.url(), target)
    assert_whole(target)
    assert server.requests[-1][1] == f"bytes={kept}-"


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


# Memory


def test_memory_stays_flat(server, target):
    server.content = bytes(64_000_000)
    sha256 = hashlib.sha256(server.content).hexdigest()
    tracemalloc.start()
    try:
        get(server.url(), target, size=len(server.content), sha256=sha256)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16_000_000
