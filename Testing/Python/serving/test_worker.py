"""The worker as a process: its pipes, its end, and what it says to requests that are none.

Nothing here needs the engine, so the processes start at once; test_client.py segments.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from workers import is_alive, wait_until

WORKER = [sys.executable, "-m", "usema.serving.worker"]


@contextmanager
def started(root: Path, command=WORKER, **options):
    environment = {**os.environ, "PYTHONPATH": str(root / "USEMASegmentation")}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, **{**pipes, **options}) as process:
        try:
            yield process
        finally:
            process.kill()


def tell(process: subprocess.Popen, *lines: bytes) -> None:
    process.stdin.write(b"".join(line + b"\n" for line in lines))
    process.stdin.flush()


def hear(process: subprocess.Popen) -> dict:
    return json.loads(process.stdout.readline())


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"hello", "protocol"),
        (b"[1, 2]", "protocol"),
        (b"[" * 100_000, "protocol"),
        (b'{"command": "hello"}', "protocol"),
        (b'{"id": [5], "command": "hello"}', "protocol"),
        (b'{"id": true, "command": "hello"}', "protocol"),
        (b'{"id": 5, "command": "h\xff"}', "protocol"),
    ],
)
def test_a_line_that_is_no_request_is_answered_and_the_next_one_works(root, line, code):
    with started(root) as worker:
        tell(worker, line, b'{"id": 6, "command": "sing"}')
        first, second = hear(worker), hear(worker)
    assert (first["event"], first["code"], first["id"]) == ("error", code, None)
    assert (second["id"], second["message"]) == (6, "There is no command 'sing'.")


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b'{"id": 5}', "protocol"),
        (b'{"id": 5, "command": ["segment"]}', "protocol"),
        (b'{"id": 5, "command": {"segment": 1}}', "protocol"),
        (b'{"id": 5, "command": null}', "protocol"),
        (b'{"id": 5, "command": "dance"}', "input"),
        (b'{"id": 5, "command": "load"}', "protocol"),
        (b'{"id": 5, "command": "load", "model": 7}', "protocol"),
        (b'{"id": 5, "command": "load", "model": "/nowhere/at all"}', "bundle"),
        (b'{"id": 5, "command": "load", "model": "/nowhere", "device": ["cpu"]}', "protocol"),
    ],
)
def test_a_request_that_makes_no_sense_gets_an_error_of_its_own(root, line, code):
    with started(root) as worker:
        tell(worker, b'{"id": 4, "command": "cancel", "target": ["all"]}', line, b'{"id": 6, "command": "sing"}')
        first, second = hear(worker), hear(worker)
    assert (first["id"], first["event"], first["code"]) == (5, "error", code)
    assert "Traceback" not in first["detail"]
    assert second["id"] == 6


@pytest.mark.parametrize("minutes", [b"1e300", b"1e999", b"9" * 4000, b"NaN"])
def test_a_request_to_wait_for_ever_is_heard_and_the_next_one_works(root, minutes):
    with started(root) as worker:
        tell(worker, b'{"id": 5, "command": "sing", "idle_minutes": %s}' % minutes)
        assert hear(worker)["id"] == 5
        time.sleep(0.2)  # it waits meanwhile
        tell(worker, b'{"id": 6, "command": "sing"}')
        assert hear(worker)["id"] == 6


def test_a_request_that_is_cancelled_while_it_waits_is_never_done(root):
    script = """
import time
from usema.serving import worker
def work(request, send, should_stop):
    send(event="progress", did=request["name"])
    time.sleep(request["seconds"])
    return {"event": "result", "did": request["name"]}
worker.Worker(*worker._take_pipes(), 60, {"work": work}).run()
"""
    with started(root, [sys.executable, "-c", script]) as worker:
        tell(worker, b'{"id": 1, "command": "work", "name": "first", "seconds": 1}')
        assert hear(worker)["did"] == "first"
        tell(
            worker,
            b'{"id": 2, "command": "work", "name": "second", "seconds": 0}',
            b'{"id": 3, "command": "cancel", "target": 2}',
            b'{"id": 4, "command": "work", "name": "third", "seconds": 0}',
        )
        answers = [hear(worker) for _ in range(4)]
    assert [(one["id"], one["event"]) for one in answers] == [
        (2, "error"),  # at once, though the first is still being worked on
        (1, "result"),
        (4, "progress"),
        (4, "result"),
    ]
    assert answers[0]["code"] == "cancelled"


def test_what_libraries_print_never_mixes_with_answers(root):
    # By Python, by C, and by a child process, which must not wait for requests either.
    script = """
import os, threading
from usema.serving import worker
def noise():
    print("from Python", flush=True)
    os.write(1, b"from C\\n")
    os.system("timeout 5 cat && echo from a child")
    os._exit(0)
send = worker.Worker._send
def then_noise(*arguments, **fields):
    send(*arguments, **fields)
    threading.Thread(target=noise).start()
worker.Worker._send = then_noise
worker.main([])
"""
    with started(root, [sys.executable, "-c", script]) as worker:
        tell(worker, b'{"id": 1, "command": "sing"}')
        assert hear(worker)["id"] == 1
        assert worker.wait(30) == 0
        assert worker.stdout.read() == b""
        assert worker.stderr.read().split(b"\n") == [b"from Python", b"from C", b"from a child", b""]


def test_without_torch_the_worker_says_what_is_missing(root):
    with started(
        root, [sys.executable, "-S", "-m", "usema.serving.worker"]
    ) as worker:  # -S: without installed packages
        tell(worker, b'{"id": 1, "command": "hello"}')
        error = hear(worker)
    assert error["code"] == "dependency"
    assert "No module named 'torch'" in error["message"]
    assert "Install PyTorch" in error["hint"]


def test_quit_and_a_closed_stdin_end_the_worker(root):
    with started(root) as worker:
        tell(worker, b'{"id": 1, "command": "quit"}')
        assert worker.wait(30) == 0
    with started(root) as worker:
        worker.stdin.close()
        assert worker.wait(30) == 0


def test_a_worker_that_nobody_asks_ends_itself(root):
    with started(root, [*WORKER, "--idle-minutes", "0.002"]) as worker:
        assert worker.wait(30) == 0
        assert worker.stderr.read() == b""


def test_a_request_may_say_how_long_to_wait_for_the_next_one_and_for_no_other(root):
    with started(root) as worker:
        tell(worker, b'{"id": 1, "command": "sing", "idle_minutes": 0.005}\n{"id": 2, "command": "sing"}')
        assert [hear(worker)["id"], hear(worker)["id"]] == [1, 2]
        time.sleep(0.6)
        assert worker.poll() is None
        tell(worker, b'{"id": 3, "command": "sing", "idle_minutes": 0.005}')
        assert hear(worker)["id"] == 3
        assert worker.wait(30) == 0


def test_a_worker_whose_answers_nobody_reads_ends_itself(root):
    with started(root) as worker:
        worker.stdout.close()
        tell(worker, b'{"id": 1, "command": "sing"}')
        assert worker.wait(30) == 1


def test_a_worker_whose_parent_was_killed_ends_though_its_stdin_stays_open(root):
    read_end, write_end = os.pipe()  # this test holds the other end, as a process forked from the parent may
    script = f"import subprocess, time; print(subprocess.Popen({WORKER!r}).pid, flush=True); time.sleep(600)"
    with started(root, [sys.executable, "-c", script], stdin=read_end) as parent:
        pid = int(parent.stdout.readline())
        # Running Python, and past the moment at which it looks who its parent is: it sleeps in three threads.
        wait_until(lambda: len(list(Path(f"/proc/{pid}/task").iterdir())) == 3)
        parent.send_signal(signal.SIGKILL)
        wait_until(lambda: not is_alive(pid))
    os.close(read_end)
    os.close(write_end)


def test_a_worker_whose_parent_was_killed_removes_what_it_was_to_write_into(root, tmp_path):
    """Patients' voxels lie there, and nobody else would remove them before the next application starts."""
    parent = f"""
import json, subprocess, sys, time
from pathlib import Path
from usema.serving.exchange import make_folder
folder, lock = make_folder(Path({str(tmp_path)!r}))
(folder / "channel-0.npy").write_bytes(b"voxels")
worker = subprocess.Popen({WORKER!r}, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
for output in (folder, {str(tmp_path / "mine")!r}):
    request = {{"id": 1, "command": "sing", "output": str(output)}}
    worker.stdin.write(json.dumps(request).encode() + b"\\n")
    worker.stdin.flush()
    worker.stdout.readline()
print(worker.pid, flush=True)
time.sleep(600)
"""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kept.nrrd").touch()
    with started(root, [sys.executable, "-c", parent]) as process:
        pid = int(process.stdout.readline())
        (folder,) = tmp_path.glob("USEMA-*")
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (folder / "channel-0.npy").exists()
        process.send_signal(signal.SIGKILL)
        wait_until(lambda: not is_alive(pid))
    assert os.listdir(tmp_path) == ["mine"]
    assert os.listdir(tmp_path / "mine") == ["kept.nrrd"]
