"""A process that keeps a model warm: requests come in on stdin, answers go out on stdout, stderr is the log.

    python -m usema.serving.worker [--store] [--idle-minutes 30]

With ``--store`` it downloads and keeps models instead of segmenting: ``storing.py`` describes those requests;
``cancel`` and ``quit`` are the same. ``usema.serving.client`` is its other end.

Requests and answers are JSON objects, one per line, in UTF-8. A request has an "id", which its answers repeat, and a
"command":

    hello     as it likes idle_minutes, in place of those of the command line until the next request
              -> hello: protocol, pid, usema, python, torch, device, devices, memory_bytes (free main memory), gpu
              (null, or name, total, free), attention
    load      model, device
              -> loaded: model, seconds
    segment   model, inputs, output; and as it likes device, overlap, mirror, probabilities, speed, margins
              (``protocol.RunOptions``), labels, the names of those that are wanted, and delta, a file of what the model
              has learned
              -> progress: done, total, seconds_left; ...
              -> preview: labels, a first look at them, where the speed asks for it and it pays; progress begins anew
              -> result: labels, objects (their numbers, or null), names (of those that there can be), probabilities,
                 margins, geometry, provenance, warnings, max_foreground_probability, seconds, seconds_by_speed (what
                 this case takes here with "exact" and "fast", as far as it is known)
    adapt     as segment without delta, and corrections: labels, slices as pairs of axis and index, edited or null (then
              what was changed beside the slices is refused or warned of); as it likes way ("auto", "propagated",
              "learned", "carried"), deep, seconds_allowed, seed (``adaptation.wish.Wish``)
              -> progress: phase, done, total, seconds_left; ...
              -> estimate: seconds, memory_bytes, trained, before it learns
              -> result: as that of segment, and delta (a file, or null: nothing was learned), adaptation
    cancel    target: the id of the request to end; it has no answer but that request's, at once if it was still waiting
    quit      -> the process ends

In place of its last answer, any request may get an error: code, message, hint, detail. load, segment and adapt send
"loading" first if the model is not there yet. All paths are absolute. ``inputs`` are {"array": .npy file (z, y, x),
"geometry": ``Geometry.to_dict()``}, one per channel; of an image there is "picture": {"pixel_size_known"}, and its
array may be (z, y, x, 3); results are .npy files in the folder ``output``.

One request runs at a time, the others wait. A line that is no request gets an error too, with the id null where it
has none. The process ends itself when stdin closes, its parent is gone, or nothing was asked for a while. If its parent
is gone, it removes the folders that it was to write into (``exchange.py``): nobody else would.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import BinaryIO

from ..errors import InputError, UsemaError
from ..inference.memory import is_out_of_memory, too_small
from .exchange import remove_if_abandoned

MOST_MINUTES = 365 * 24 * 60  # no thread can wait for as long as a request might ask


class Worker:
    """Reads ``requests`` in a thread of its own, so that cancel acts while the main thread segments or downloads.

    Args:
        by_name: what can be asked for: command -> function of the request, of what sends progress, and of what tells
            whether to stop; it returns the last answer.
    """

    def __init__(self, requests: BinaryIO, answers: BinaryIO, idle_seconds: float, by_name: Mapping[str, Callable]):
        self._requests = requests
        self._answers = answers
        self._idle_seconds = self._patience = idle_seconds
        self._by_name = by_name
        self._sending = threading.Lock()
        self._changed = threading.Condition()  # guards the next two
        self._waiting: deque[dict] = deque()
        self._running: int | None = None
        self._stop = threading.Event()
        self._folders: set[str] = set()  # "output" of all requests so far

    def run(self) -> None:
        """Answers requests until none came for ``idle_seconds``."""
        threading.Thread(target=self._listen, daemon=True).start()
        threading.Thread(target=self._end_without_parent, args=(os.getppid(),), daemon=True).start()
        while (request := self._next()) is not None:
            # Sent when nothing of the request is open any more: Windows does not delete files that are mapped.
            answer = self._answer(request)
            self._send(request["id"], **answer)

    def _next(self) -> dict | None:
        with self._changed:
            self._running = None
            if not self._changed.wait_for(lambda: self._waiting, self._patience):
                return None
            request = self._waiting.popleft()
            minutes = request.get("idle_minutes")
            known = isinstance(minutes, (int, float)) and minutes == minutes  # not NaN
            self._patience = 60 * min(minutes, MOST_MINUTES) if known else self._idle_seconds
            self._running = request["id"]
            self._stop.clear()
            return request

    def _listen(self) -> None:
        for line in self._requests:
            request, problem = _parsed(line)
            if problem:
                self._send(request, **_error("protocol", problem))
                continue
            command = request["command"]
            if command == "quit":
                os._exit(0)  # at once: nobody waits for what is running
            if command == "cancel":
                self._cancel(request.get("target"))
                continue
            if isinstance(request.get("output"), str):
                self._folders.add(request["output"])
            with self._changed:
                self._waiting.append(request)
                self._changed.notify()
        self._end_alone()

    def _end_without_parent(self, parent: int) -> None:
        """For the case that another process holds the other end of stdin, which then does not close."""
        while os.getppid() == parent:
            time.sleep(1)
        self._end_alone()

    def _end_alone(self) -> None:
        for _ in range(10):  # its last files close a moment after its pipes
            folders = [Path(folder) for folder in self._folders.copy()]
            for folder in folders:
                remove_if_abandoned(folder)
            if not any(folder.exists() for folder in folders):
                break
            time.sleep(0.1)
        os._exit(0)

    def _cancel(self, target: int) -> None:
        with self._changed:
            if target == self._running:
                self._stop.set()
                return
            waiting = next((request for request in self._waiting if request["id"] == target), None)
            if waiting is None:
                return
            self._waiting.remove(waiting)
        self._send(target, **_error("cancelled", "Stopped before it began."))

    def _answer(self, request: dict) -> dict:
        run = self._by_name.get(request["command"])
        try:
            if run is None:
                raise InputError(f"There is no command {request['command']!r}.")
            return run(request, partial(self._send, request["id"]), self._stop.is_set)
        except UsemaError as error:
            return _error(error.code, error.message, error.hint)
        except Exception as error:
            if is_out_of_memory(error):
                told = too_small(error)
                return _error("memory", told.message, told.hint, traceback.format_exc())
            hint = "This is a defect of USEMA: please report it with the details."
            return _error("internal", f"{type(error).__name__}: {error}", hint, traceback.format_exc())

    def _send(self, request_id: int | None, **event) -> None:
        line = json.dumps({"id": request_id, **event}).encode() + b"\n"
        try:
            with self._sending:
                self._answers.write(line)
                self._answers.flush()
        except OSError:
            os._exit(1)  # nobody listens any more


def _parsed(line: bytes) -> tuple[dict, str] | tuple[int | None, str]:
    """(the request, nothing), or where the line holds none, (its id if it has one, why not)."""
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        return None, f"This is no request: {line[:200]!r}"
    known = request.get("id") if isinstance(request, dict) else None
    if not isinstance(known, int) or isinstance(known, bool):
        return None, f"This is no request, it has no number as its id: {line[:200]!r}"
    if not isinstance(request.get("command"), str):
        return known, f"This is no request, it has no text as its command: {line[:200]!r}"
    return request, ""


def _error(code: str, message: str, hint: str = "", detail: str = "") -> dict:
    return {"event": "error", "code": code, "message": message, "hint": hint, "detail": detail}


def _take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """The pipes at stdin and stdout, for the protocol alone.

    What libraries print goes to stderr instead. And nothing else sees the pipe that the thread waits on: on Windows,
    the import of numpy would wait as well, for the next request (github.com/numpy/numpy/issues/24290).
    """
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, answers


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m usema.serving.worker", description="The process behind usema.serving.client."
    )
    parser.add_argument("--store", action="store_true", help="download and keep models instead of segmenting")
    parser.add_argument("--idle-minutes", type=float, default=30, help="end after so long without a request")
    options = parser.parse_args(arguments)
    faulthandler.enable()  # a crash in a library leaves its stack in the log
    pipes = _take_pipes()
    if options.store:
        from .storing import Commands
    else:
        from .segmenting import Commands
    Worker(*pipes, 60 * min(options.idle_minutes, MOST_MINUTES), Commands().by_name).run()
    os._exit(0)  # the reading thread holds its pipe: an orderly exit could wait for it


if __name__ == "__main__":
    main()
