"""What the tests of the worker and its client share: waiting, and telling whether a process is alive."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from usema.serving.client import WorkerClient


def python(script: str) -> list[str]:
    return [sys.executable, "-c", script]


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended, but whose parent has not asked how, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def resources_of(pid: int) -> tuple[int, int]:
    """Bytes of memory that a process holds, and how many files it has open."""
    status = Path(f"/proc/{pid}/status").read_text()
    kilobytes = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    return kilobytes * 1024, len(list(Path(f"/proc/{pid}/fd").iterdir()))


def wait_until(condition, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def is_last(event: dict) -> bool:
    return event["event"] in {"hello", "loaded", "result", "error"}


def is_progress(event: dict) -> bool:
    return event["event"] == "progress"


def events_of(client: WorkerClient, request_id: int, until=is_last, seconds: float = 60) -> list[dict]:
    """Polls until an event of the request is the one waited for; returns its events so far."""
    events = []

    def there():
        events.extend(event for event in client.poll() if event["id"] == request_id)
        return any(until(event) or is_last(event) for event in events)

    wait_until(there, seconds)
    assert any(map(until, events)), events
    return events


def last_event(client: WorkerClient, request_id: int, seconds: float = 60) -> dict:
    return events_of(client, request_id, seconds=seconds)[-1]


def all_events(client: WorkerClient) -> list[dict]:
    """Polls until every request has its last answer."""
    events = []
    wait_until(lambda: events.extend(client.poll()) or not client.busy, 60)
    return events
