"""The other end of ``worker.py``: starts the worker, asks it, and ends it with every process that it started.

Standard library only, so that a panel opens before torch is installed. ``worker.py`` describes requests and answers.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path

from .process import WorkerError, WorkerProcess, exit_text

__all__ = ["WorkerClient", "WorkerError", "find_python", "worker_command"]

START_SECONDS = 120.0  # importing torch takes that long on a slow disk behind a virus scanner
CANCEL_SECONDS = 3.0
LOG_LINES = 200
MOST_LOG_CHARACTERS = 2000  # of a line

_LAST_EVENTS = {"hello", "loaded", "result", "error"}  # after one of these, a request is answered


def find_python(slicer_home: str | None = None) -> str:
    """The Python that runs the worker: PythonSlicer inside 3D Slicer, where ``sys.executable`` is empty, else this one.

    Args:
        slicer_home: ``slicer.app.slicerHome``.

    Raises:
        WorkerError: there is none.
    """
    name = "PythonSlicer.exe" if os.name == "nt" else "PythonSlicer"
    if slicer_home and (Path(slicer_home) / "bin" / name).is_file():
        return str(Path(slicer_home) / "bin" / name)
    found = sys.executable or shutil.which(name)  # 3D Slicer has its bin folder on the PATH, but on macOS
    if not found:
        raise WorkerError(
            f"{name} was not found in {slicer_home or 'the folders of PATH'}.", "Install 3D Slicer again."
        )
    return found


def worker_command(slicer_home: str | None = None, *, store: bool = False) -> list[str]:
    """What starts a worker.

    Args:
        slicer_home: see ``find_python``.
        store: one that downloads and keeps models, instead of one that segments.

    Raises:
        WorkerError: there is no Python.
    """
    return [find_python(slicer_home), "-u", "-m", "usema.serving.worker", *(["--store"] if store else [])]


class WorkerClient:
    """Asks a worker, which is started on first use and again after it died.

    Every request gets one last answer: hello, loaded, result or error. If the worker dies, that is an error with the
    code "worker-died", or "cancelled" if the request was to be cancelled.

    To be used from one thread. No method waits for the worker but ``stop``; ``poll`` has to be called regularly while
    ``busy``.

    Args:
        command: what to start instead of the worker.
        environment: variables to add to those of this process.
        log: receives each line of the worker's log, from within ``poll``.
        start_seconds: how long the worker may take to say hello.
    """

    def __init__(
        self,
        command: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
        log: Callable[[str], None] | None = None,
        start_seconds: float = START_SECONDS,
    ):
        self.hello: dict | None = None  # what the worker last said of itself
        self._command = command
        self._environment = dict(environment or {})
        self._log = log
        self._start_seconds = start_seconds
        self._process: WorkerProcess | None = None
        self._ids = itertools.count(1)
        self._open: set[int] = set()  # requests without their last answer
        self._starting: tuple[int, float] | None = None  # the id of hello, and when its answer is overdue
        self._hellos: set[int] = set()  # requests of `start`
        self._forgotten: set[int] = set()
        self._cancelling: dict[int, float] = {}  # id -> when the answer is overdue
        self._events: list[dict] = []
        self._tail: deque[str] = deque(maxlen=LOG_LINES)
        self._unlogged: deque[str] = deque(maxlen=LOG_LINES)

    @property
    def running(self) -> bool:
        """Whether there is a worker process."""
        return self._process is not None and self._process.running

    @property
    def busy(self) -> bool:
        """Whether a request, be it the hello of ``start``, waits for its last answer."""
        return bool(self._open)

    @property
    def log_tail(self) -> str:
        """The last lines of the worker's log."""
        return "\n".join(self._tail.copy())

    def start(self, **fields) -> None:
        """Starts the worker if it is not running, and asks it for hello.

        Args:
            fields: of that request.

        Raises:
            WorkerError: the program cannot be started.
        """
        if self.running:
            return
        self._end()  # of one that died unnoticed
        self._process = WorkerProcess(self._command or worker_command(), self._environment, self._remember)
        self._starting = (self._ask("hello", **fields), time.monotonic() + self._start_seconds)
        self._hellos.add(self._starting[0])

    def request(self, command: str, **fields) -> int:
        """Sends a request, after ``start`` if need be.

        Returns:
            its id, which its events carry.

        Raises:
            WorkerError: the program cannot be started.
        """
        self.start()
        return self._ask(command, **fields)

    def asked_besides(self, requests: Container[int]) -> bool:
        """Whether anything but these requests waits for its last answer."""
        return any(one not in requests and one not in self._hellos | self._forgotten for one in self._open)

    def poll(self, request_id: int | None = None) -> list[dict]:
        """What the worker has sent since the last call; ends a worker that died, hangs or ignores a cancellation.

        Args:
            request_id: give the events of this request, and keep those of others for whoever asks for them. None: all.
        """
        process = self._process
        if process is not None:
            if not process.answers:
                self._end()
            else:
                self._collect(process)
                self._end_if_overdue()
        while self._log and self._unlogged:
            self._log(self._unlogged.popleft())
        events, self._events = self._events, []
        if request_id is None:
            return events
        self._events = [event for event in events if event["id"] not in (request_id, *self._hellos)]
        return [event for event in events if event["id"] == request_id]

    def forget(self, request_id: int) -> None:
        """Nobody will ask for the events of this request any more; it is stopped if it is under way."""
        if request_id in self._open:
            self.cancel(request_id)
            self._forgotten.add(request_id)
        self._events = [event for event in self._events if event["id"] != request_id]

    def cancel(self, request_id: int) -> None:
        """Asks to stop a request; ends the worker 3 s later if it has not stopped. Its answer is a "cancelled" error,
        or its result if that came first."""
        if request_id in self._open and request_id not in self._cancelling:
            self._cancelling[request_id] = time.monotonic() + CANCEL_SECONDS
            self._process.send({"id": next(self._ids), "command": "cancel", "target": request_id})

    def stop(self, timeout: float = 3.0) -> None:
        """Ends the worker, by force after ``timeout`` seconds. What was asked gets a "cancelled" error."""
        if self._process is not None:
            self._process.send({"id": next(self._ids), "command": "quit"})
            self._process.wait(timeout)
            self._cancelling = dict.fromkeys(self._open, 0.0)
            self._end()

    def _ask(self, command: str, **fields) -> int:
        request_id = next(self._ids)
        self._open.add(request_id)
        self._process.send({**fields, "id": request_id, "command": command})
        return request_id

    def _collect(self, process: WorkerProcess) -> None:
        while (event := process.next_event()) is not None:
            request_id = event.get("id")
            if not isinstance(request_id, int) or request_id not in self._open:
                self._remember(json.dumps(event))
                continue
            self._tell(event)
            if event["event"] in _LAST_EVENTS:
                self._open.remove(request_id)
                self._forgotten.discard(request_id)
                self._cancelling.pop(request_id, None)
                if self._starting and self._starting[0] == request_id:
                    self._starting = None
            if event["event"] == "hello":
                self.hello = event

    def _tell(self, event: dict) -> None:
        if event["id"] not in self._forgotten:
            self._events.append(event)

    def _end_if_overdue(self) -> None:
        now = time.monotonic()
        if self._starting and now > self._starting[1]:
            self._end(f"The worker did not answer within {self._start_seconds:g} s of its start.")
        elif any(now > overdue for overdue in self._cancelling.values()):
            self._end("The worker was ended, because it did not stop what was cancelled.")

    def _end(self, why: str | None = None) -> None:
        """Ends the process if there is one, and answers every open request in its place."""
        process, self._process = self._process, None
        if process is None:
            return
        how = exit_text(process.end())
        self._collect(process)
        for request_id in sorted(self._open):
            error = {"id": request_id, "event": "error", "detail": f"{how}\n{self.log_tail}".rstrip()}
            if request_id in self._cancelling:
                error |= {"code": "cancelled", "message": "Stopped, together with the worker.", "hint": ""}
            else:
                error |= {
                    "code": "worker-died",
                    "message": why or f"The worker ended unexpectedly ({how}).",
                    "hint": "Try again: a new worker is started. Close other programs if memory is short.",
                }
            self._tell(error)
        self._open.clear()
        self._forgotten.clear()
        self._cancelling.clear()
        self._starting = None

    def _remember(self, line: str) -> None:
        line = line[:MOST_LOG_CHARACTERS]
        self._tail.append(line)
        if self._log:
            self._unlogged.append(line)
