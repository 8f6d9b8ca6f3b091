"""The client with processes that die, hang, babble, or are not there."""

from __future__ import annotations

import sys

import pytest
from usema.serving import client as client_module
from usema.serving.client import LOG_LINES, WorkerClient, WorkerError, find_python
from workers import all_events, events_of, is_alive, last_event, python, wait_until

# Says hello, has a child of its own, and reacts to nothing else.
DEAF = """
import json, os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
for line in sys.stdin:
    request = json.loads(line)
    if request["command"] == "hello":
        print(json.dumps({"id": request["id"], "event": "hello", "pid": os.getpid(), "child": child.pid}), flush=True)
"""


@pytest.mark.parametrize("launcher", [False, True], ids=["direct", "through a launcher"])
def test_a_worker_that_ignores_a_cancellation_is_ended_with_all_its_processes(tmp_path, launcher, monkeypatch):
    monkeypatch.setattr("usema.serving.client.CANCEL_SECONDS", 0.5)
    command = python(DEAF)
    if launcher:  # PythonSlicer starts the real Python as a child
        script = tmp_path / "PythonSlicer"
        script.write_text(f'#!/bin/sh\n"{sys.executable}" "$@"\nexit 1\n')
        script.chmod(0o755)
        command[0] = str(script)
    client = WorkerClient(command)
    cancelled, other = client.request("segment"), client.request("segment")
    wait_until(lambda: client.poll() or client.hello)
    client.cancel(cancelled)
    events = all_events(client)
    assert [(event["id"], event["code"]) for event in events] == [(cancelled, "cancelled"), (other, "worker-died")]
    assert "did not stop" in events[1]["message"]
    wait_until(lambda: not is_alive(client.hello["pid"]) and not is_alive(client.hello["child"]))
    assert not client.running


def test_stop_leaves_no_process_and_no_open_request():
    client = WorkerClient(python(DEAF))
    request = client.request("segment")
    wait_until(lambda: client.poll() or client.hello)
    client.stop(timeout=0.2)
    wait_until(lambda: not is_alive(client.hello["pid"]) and not is_alive(client.hello["child"]))
    assert not client.running
    assert not client.busy
    assert [(event["id"], event["code"]) for event in client.poll()] == [(request, "cancelled")]
    client.stop()  # of nothing is nothing


def test_a_real_worker_stops_of_its_own_accord():
    client = WorkerClient()
    client.start()
    process = client._process
    client.stop(timeout=60)
    assert process.end() == 0


def test_a_worker_that_never_answers_is_ended_and_the_error_says_so():
    client = WorkerClient(
        python("import sys, time; print('thinking', file=sys.stderr); time.sleep(600)"), start_seconds=1
    )
    client.start()
    error = last_event(client, 1)
    assert error["code"] == "worker-died"
    assert error["message"] == "The worker did not answer within 1 s of its start."
    assert error["detail"].endswith("thinking")
    assert not client.running


def test_requests_never_wait_for_a_worker_that_reads_nothing():
    client = WorkerClient(python("import time; time.sleep(600)"))
    for _ in range(100):
        client.request("segment", padding="x" * 100_000)  # far more than a pipe holds
    assert client.busy
    client.stop(timeout=0)
    assert len(client.poll()) == 101


def test_a_worker_that_closes_its_stdout_is_ended():
    client = WorkerClient(python("import os, time; os.close(1); time.sleep(600)"))
    client.start()
    assert last_event(client, 1)["code"] == "worker-died"
    assert not client.running


def test_a_crash_comes_with_its_exit_code_and_the_end_of_its_log():
    lines = 10 * LOG_LINES
    logged = []
    script = (
        f"import os, sys; sys.stderr.write(''.join(f'line {{i}}\\n' for i in range({lines})) + 'at last'); os._exit(3)"
    )
    client = WorkerClient(python(script), log=logged.append)
    client.start()
    error = last_event(client, 1)
    assert error["message"] == "The worker ended unexpectedly (exit code 3)."
    tail = [*(f"line {i}" for i in range(lines - LOG_LINES + 1, lines)), "at last"]
    assert error["detail"].splitlines() == ["exit code 3", *tail]
    assert client.log_tail.splitlines() == tail
    assert logged[-1] == "at last"


def test_a_death_that_nobody_polled_is_reported_after_the_next_request(tmp_path):
    first_time = tmp_path / "first time"
    first_time.touch()
    script = "import os, sys, time\nsys.stdin.readline()\nif not os.path.exists(sys.argv[1]): time.sleep(600)"
    client = WorkerClient([*python(script), str(first_time)])
    lost = client.request("segment")
    wait_until(lambda: not client.running)
    first_time.unlink()
    client.request("segment")
    assert [(event["id"], event["code"]) for event in client.poll()] == [(1, "worker-died"), (lost, "worker-died")]
    assert client.busy
    client.stop(timeout=0)


def test_answers_sent_just_before_the_end_are_not_lost():
    script = """
import sys
sys.stdin.readline(), sys.stdin.readline()
print("x" * 50_000 + 1000 * "\\n" + '{"id": 1, "event": "hello"}')
print('{"id": 2, "event": "result", "labels": "a"}')
"""
    client = WorkerClient(python(script))
    request = client.request("segment")
    while client.running:
        pass
    assert [(event["id"], event["event"]) for event in client.poll()] == [(1, "hello"), (request, "result")]
    assert not client.busy


def test_garbage_on_the_protocol_becomes_log():
    script = """
import sys, time
out = sys.stdout.buffer
def write(*pieces):
    for piece in pieces:
        out.write(piece)
        out.flush()
        time.sleep(0.02)
write(b'warning: something\\n', b'{"id": 1, "event":\\n', b'[1, 2]\\n', b'{"id": 1}\\n', b'\\xff\\xfe\\x00\\n', b'\\n')
write(b'[' * 100_000 + b'\\n', b'{"id": 77, "event": "result"}\\n', b'{"id": [1], "event": "result"}\\n')
write(b'x' * 5_000_000 + b'\\n')
write(b'{"id": 1, "event": "hello", "name": "M\\xc3', b'\\xa4r', b'z"}\\r', b'\\n')
time.sleep(600)
"""
    client = WorkerClient(python(script))
    client.start()
    events = events_of(client, 1)
    client.stop(timeout=0)
    assert events == [{"id": 1, "event": "hello", "name": "März"}]
    log = client.log_tail.splitlines()
    assert log[0] == "warning: something"
    assert '{"id": 77, "event": "result"}' in log
    assert any("\N{REPLACEMENT CHARACTER}" in line for line in log)
    assert max(map(len, log)) == client_module.MOST_LOG_CHARACTERS


# Which Python


def test_a_program_that_cannot_be_started_is_an_error_at_once(tmp_path):
    client = WorkerClient([str(tmp_path / "nothing")])
    with pytest.raises(WorkerError, match="nothing cannot be started: No such file"):
        client.request("hello")
    assert not client.busy
    assert not client.running


def test_inside_slicer_the_worker_runs_in_its_python(tmp_path, monkeypatch):
    python_slicer = tmp_path / "bin" / "PythonSlicer"
    python_slicer.parent.mkdir()
    python_slicer.touch(0o755)
    assert find_python() == sys.executable
    assert find_python(str(tmp_path)) == str(python_slicer)
    assert find_python(str(tmp_path / "bin")) == sys.executable
    monkeypatch.setattr(sys, "executable", "")  # as in the application
    monkeypatch.setenv("PATH", str(python_slicer.parent))
    assert find_python() == str(python_slicer)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(WorkerError, match="PythonSlicer was not found"):
        find_python()
