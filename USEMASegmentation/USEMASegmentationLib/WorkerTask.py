"""One task at a time, done by another process: what the logic and the model store have in common. No Qt.

Whoever drives it calls ``poll()`` every 100 ms while it is ``busy``, or ``finish()`` once, which blocks.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from usema.errors import Cancelled, InputError, UsemaError
from usema.serving.sharing import WorkerHold

from .Parameters import TaskStatus, errorOf
from .Steps import Steps, Working

_POLL_SECONDS = 0.05


class WorkerTask:
    """Asks a worker and follows what it says.

    Args:
        hold: on the worker.
        idle: the status before the first task.
        busyText: what is said of a second task while one is under way.
    """

    _cancelledText = "It was cancelled."
    _cancelledHint = ""
    _defectText = "The engine's answer could not be used"

    def __init__(self, hold: WorkerHold, idle: TaskStatus, busyText: str):
        self._worker = hold
        self._status = idle
        self._busyText = busyText
        self._request: int | None = None
        self._stopping = False
        self._stopReason = ""  # why it is being cancelled; empty: the worker says so
        self._steps: Steps | None = None  # long work, carried on by each poll
        self._then: Callable[[Any], None] = _nothing
        self._answered = False  # nothing comes from the worker any more
        self._settled = False  # what it was for is done, and cannot be cancelled any more
        self._events: list[dict] = []  # that wait for the steps to end

    @property
    def busy(self) -> bool:
        return self._request is not None or self._steps is not None

    @property
    def status(self) -> TaskStatus:
        return replace(self._status)

    def poll(self) -> TaskStatus:
        """Take what the worker has sent. Call it every 100 ms while ``busy``, or more often while `isMoving`."""
        if self._steps is not None:
            self._guarded(self._step)
        if self._steps is None and self._request is not None:
            self._events += self._worker.poll(self._request)
            while self._events and self.busy and self._steps is None:
                self._take(self._events.pop(0))
        return self.status

    @property
    def isMoving(self) -> bool:
        """Whether ``poll`` has work of its own to do: voxels on their way to the worker or back."""
        return self._steps is not None

    def cancel(self) -> None:
        """Stop the task under way; ``poll`` tells when it has stopped. Without one, nothing happens."""
        self._cancel()

    def finish(self, wait: Callable[[], None] | None = None) -> TaskStatus:
        """Block until the task is done, for scripts.

        Args:
            wait: called again and again while the worker works, for example ``slicer.app.processEvents``; an exception
                that it raises cancels. None: sleeps.

        Raises:
            UsemaError: it failed or was cancelled; what is wrong and what to do.
        """
        try:
            self._drive(wait)
        except BaseException:
            self.cancel()
            self._drive(None)  # until it has stopped: the next task must be possible
            raise
        status = self.status
        if status.state not in ("done", "idle"):
            raise errorOf(status)
        return status

    def shutdown(self) -> None:
        """End whatever runs, and the worker unless others need it; for a panel that is closed and an application that
        quits. The next task starts a new one."""
        self._giveUp()
        self._worker.release()

    # For those that know the task

    def _refuseIfBusy(self) -> None:
        if self.busy:
            self.poll()  # it may have ended since somebody looked
        if self.busy:
            raise InputError(self._busyText)

    def _begin(self, command: str, status: TaskStatus, **fields) -> None:
        """Ask the worker; from now on ``busy``.

        Raises:
            UsemaError: the worker cannot be started; nothing was changed.
        """
        self._request = self._worker.request(command, **fields)
        self._stopping, self._stopReason, self._answered = False, "", False
        self._status = status

    def _follow(self, work: Working, then: Callable[[Any], None]) -> None:
        """Do long work, a moment now and one at each poll; ``then`` gets what it returns. What it raises in this first
        moment is raised here, later it ends the task."""
        self._steps, self._then = Steps(work), then
        self._step()

    def _step(self) -> None:
        steps = self._steps
        if self._stopping:
            steps.close()
            self._steps = None
            if self._answered or self._request is None:
                self._endCancelled(self._cancelledHint)
            return
        try:
            ended = steps.go()
        except BaseException:
            self._steps = None
            raise
        if ended:
            self._steps, then = None, self._then
            then(steps.value)

    def _onStep(self, event: dict) -> None:
        """What comes before the last answer."""

    def _onResult(self, event: dict) -> None:
        """The last answer of a task that went well."""
        self._end("done", "")

    def _onEnd(self) -> None:
        """The task is over, whichever way."""

    def _end(self, state: str, message: str, hint: str = "", detail: str = "", code: str = "") -> None:
        if self._steps is not None:
            self._steps.close()
        self._request, self._steps, self._stopping, self._settled, self._events = None, None, False, False, []
        self._status = replace(
            self._status, state=state, message=message, hint=hint, detail=detail, code=code, secondsLeft=None
        )
        self._onEnd()

    def _endCancelled(self, hint: str = "") -> None:
        self._end("cancelled", self._stopReason or self._cancelledText, hint, code=Cancelled.code)

    def _cancel(self, reason: str = "") -> None:
        if self.busy and not self._stopping and not self._settled:
            self._stopping, self._stopReason = True, reason
            if self._request is not None:
                self._worker.cancel(self._request)
            self._status = replace(self._status, state="cancelling", message="Stopping")

    def _giveUp(self) -> None:
        """End the task at once, without waiting for the worker."""
        if self.busy:
            if self._request is not None:
                self._worker.forget(self._request)
            self._endCancelled()

    def _drive(self, wait: Callable[[], None] | None) -> None:
        while self.busy:
            self.poll()
            if wait is not None:
                wait()
            time.sleep(0.001 if self.isMoving else _POLL_SECONDS)

    def _take(self, event: dict) -> None:
        self._guarded(self._taken, event)

    def _taken(self, event: dict) -> None:
        if event["event"] == "error":
            self._onError(event)
        elif event["event"] == "result":
            self._answered = True
            self._onResult(event)
        elif not self._stopping:
            self._onStep(event)

    def _guarded(self, step: Callable, *arguments) -> None:
        try:
            step(*arguments)
        except UsemaError as error:
            self._end("failed", error.message, error.hint, code=error.code)
        except Exception as error:  # a defect, or an answer that is none, must not leave the panel waiting for ever
            request = self._request
            message = f"{self._defectText}: {type(error).__name__}: {error}."
            self._end("failed", message, "Please report it.", traceback.format_exc(), "internal")
            if request is not None:
                self._worker.forget(request)  # it may still be at work, and the next click must not wait for it
                self._worker.stop(timeout=0)

    def _onError(self, event: dict) -> None:
        cancelled = self._stopping or event["code"] == Cancelled.code
        if cancelled:
            self._end("cancelled", self._stopReason or event["message"], event["hint"], code=Cancelled.code)
        else:
            self._end("failed", event["message"], event["hint"], event["detail"], event["code"])
        if event["code"] == "dependency":
            self._worker.stop(timeout=0)  # a worker that began without a package does not see it once it is installed


def _nothing(_) -> None:
    """What comes after work of which nothing is expected."""
