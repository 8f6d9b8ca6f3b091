"""Which processes are ended with a worker, and which never."""

from __future__ import annotations

import os
import signal

import pytest
from usema.serving import process as process_module
from usema.serving.process import WorkerProcess
from workers import is_alive, python, wait_until


@pytest.fixture
def killed(monkeypatch):
    """The groups that were killed, and whether their first process was known to live or not asked for yet."""
    groups, kill = [], os.killpg

    def record(group, number):
        groups.append((group, os.path.exists(f"/proc/{group}")))
        kill(group, number)

    monkeypatch.setattr(process_module.os, "killpg", record)
    return groups


def test_a_process_that_ended_long_ago_is_not_killed_again(killed):
    """Its number may be another program's by now."""
    worker = WorkerProcess(python("pass"), {}, lambda line: None)
    wait_until(lambda: not worker.running)
    assert worker._popen.returncode == 0
    del killed[:]
    for _ in range(2):
        assert worker.end() == 0
    assert killed == []


def test_whoever_else_asks_first_how_it_ended_the_number_is_not_used_any_more(killed):
    worker = WorkerProcess(python("pass"), {}, lambda line: None)
    worker._popen.wait(30)
    assert worker.end() == 0
    assert killed == []


def test_what_a_worker_started_ends_with_it_even_if_it_died_by_itself(killed):
    script = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stdout=subprocess.DEVNULL)
print('{"event": "child", "pid": %d}' % child.pid, flush=True)
"""
    worker = WorkerProcess(python(script), {}, lambda line: None)
    events = []
    wait_until(lambda: (event := worker.next_event()) is not None and events.append(event) is None)
    wait_until(lambda: not worker.running)
    wait_until(lambda: not is_alive(events[0]["pid"]))
    assert killed
    assert all(there for _, there in killed)


def test_a_worker_that_does_not_end_by_itself_is_killed(killed):
    worker = WorkerProcess(python("import time; time.sleep(600)"), {}, lambda line: None)
    assert worker.end() == -signal.SIGKILL
    assert not worker.running
