"""A process whose pipes never make anyone wait, ended together with all that it started. Standard library only."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from ..errors import UsemaError

MOST_LINE_BYTES = 2**20  # what a line has beyond this counts as the next line

_PACKAGE_PARENT = Path(__file__).resolve().parents[2]
_WINDOWS = os.name == "nt"
_NO_WINDOW = getattr(subprocess, "CREATE_NO_WINDOW", 0)


class WorkerError(UsemaError):
    """The worker cannot be started."""

    code = "worker"


class WorkerProcess:
    """Takes requests and gives events, JSON objects both, one per line; a thread at each pipe does the waiting.

    Args:
        command: the program and its arguments.
        environment: variables to add to those of this process.
        log: receives what is no event, line by line, in a thread of its own.

    Raises:
        WorkerError: the program cannot be started.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Callable[[str], None]):
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8", **environment}
        search = [str(_PACKAGE_PARENT), environment.get("PYTHONPATH")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, search))
        try:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                cwd=_PACKAGE_PARENT,  # "python -m" searches there first: not in whatever folder the application is
                creationflags=_NO_WINDOW,
                start_new_session=not _WINDOWS,  # a process group of its own, to be ended as one
            )
        except OSError as error:
            raise WorkerError(
                f"{command[0]} cannot be started: {error.strerror}.", "Is a security program in the way?"
            ) from error
        self._log = log
        self._requests: queue.SimpleQueue[dict | None] = queue.SimpleQueue()
        self._events: queue.SimpleQueue[dict] = queue.SimpleQueue()
        self._writer, self._reader, self._log_reader = (
            threading.Thread(target=target, daemon=True) for target in (self._write, self._read, self._read_log)
        )
        for thread in (self._writer, self._reader, self._log_reader):
            thread.start()

    @property
    def running(self) -> bool:
        """Whether the program runs. Once it has ended, what it left is ended too: later its number may be another's."""
        if self._popen.returncode is None and self._has_ended():
            self._kill_group()
            self._popen.poll()
        return self._popen.returncode is None

    @property
    def answers(self) -> bool:
        """Whether an answer may still come."""
        return self._reader.is_alive() and self.running

    def send(self, request: dict) -> None:
        self._requests.put(request)

    def next_event(self) -> dict | None:
        with suppress(queue.Empty):
            return self._events.get_nowait()
        return None

    def wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self.running and time.monotonic() < deadline:
            time.sleep(0.005)

    def end(self) -> int | None:
        """Kills what is left of the processes; afterwards all that they wrote has been read. Returns the exit code.

        Waits only for what the system does at once, and never long.
        """
        if not self._reader.is_alive():
            self.wait(0.2)  # the pipes close a moment before the exit code is there
        self._kill()
        self.wait(1)
        self._requests.put(None)
        for thread in (self._writer, self._reader, self._log_reader):
            thread.join(1)
        return self._popen.poll()

    def _has_ended(self) -> bool:
        """Without asking how, where the system can: so long, its number and that of its group are its own."""
        if hasattr(os, "waitid"):
            with suppress(ChildProcessError):
                return os.waitid(os.P_PID, self._popen.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        return self._popen.poll() is not None

    def _kill(self) -> None:
        if not self.running:
            return
        if _WINDOWS:
            with suppress(OSError, subprocess.TimeoutExpired):
                kill = ["taskkill", "/F", "/T", "/PID", str(self._popen.pid)]
                subprocess.run(kill, capture_output=True, timeout=5, creationflags=_NO_WINDOW, check=False)
        else:
            self._kill_group()
        self._popen.kill()

    def _kill_group(self) -> None:
        if not _WINDOWS:
            with suppress(ProcessLookupError, PermissionError):  # they have ended; macOS says so by PermissionError
                os.killpg(self._popen.pid, signal.SIGKILL)

    def _write(self) -> None:
        with suppress(OSError), self._popen.stdin as pipe:
            while (request := self._requests.get()) is not None:
                pipe.write(json.dumps(request).encode() + b"\n")
                pipe.flush()

    def _read(self) -> None:
        for line in _lines(self._popen.stdout):
            event = _parse(line)
            if event is None:
                self._log(line)
            else:
                self._events.put(event)

    def _read_log(self) -> None:
        for line in _lines(self._popen.stderr):
            self._log(line)


def _lines(pipe: IO[bytes]) -> Iterator[str]:
    """Lines as text. Decoded line by line, so that no character is cut in two."""
    with pipe:
        while line := pipe.readline(MOST_LINE_BYTES):
            yield line.decode("utf-8", errors="replace").rstrip("\r\n")


def _parse(line: str) -> dict | None:
    """The event in a line of stdout; None if it is something else, such as what a launcher prints."""
    with suppress(ValueError, RecursionError):
        event = json.loads(line)
        if isinstance(event, dict) and isinstance(event.get("event"), str):
            return event
    return None


def exit_text(code: int | None) -> str:
    """An exit code in words; None if there is none."""
    if code is None:
        return "it could not be ended"
    if code < 0:
        with suppress(ValueError):
            return f"exit code {code}, {signal.Signals(-code).name}"
    return f"exit code {code:#x}" if code > 255 else f"exit code {code}"
