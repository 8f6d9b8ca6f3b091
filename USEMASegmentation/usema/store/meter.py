"""Progress of a download: speed, time left, and the one place where a caller can stop it. Standard library only."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic, sleep

from ..errors import Cancelled

_WINDOW = 5.0  # seconds over which the speed is measured
_INTERVAL = 0.1  # seconds between two reports


@dataclass(frozen=True)
class Progress:
    """How far a download is.

    Attributes:
        done: bytes that are here, those of earlier runs included.
        total: bytes of the whole file.
        bytes_per_second: over the last seconds; None while it is not known.
        seconds_left: by that speed.
        message: what is done instead of downloading, such as "Trying again in 4 s: ..."; else empty.
    """

    done: int
    total: int
    bytes_per_second: float | None = None
    seconds_left: float | None = None
    message: str = ""


class Meter:
    """Tells the caller about progress, ten times a second at most, and asks as often whether to stop.

    Args:
        total: bytes of the whole file.
        progress: receives a Progress; None: nobody wants to know.
        should_stop: asked at every step.
    """

    def __init__(
        self,
        total: int,
        progress: Callable[[Progress], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ):
        self.total = total
        self._progress = progress or (lambda step: None)
        self._should_stop = should_stop or (lambda: False)
        self._seen: deque[tuple[float, int]] = deque()  # (time, bytes) of the last seconds
        self._said = ("", 0.0)  # the last message and when

    def downloaded(self, done: int) -> None:
        """``done`` bytes are here. Raises Cancelled if the caller wants to stop."""
        now = monotonic()
        self._seen.append((now, done))
        while now - self._seen[0][0] > _WINDOW:
            self._seen.popleft()
        first_time, first_done = self._seen[0]
        speed = (done - first_done) / (now - first_time) if now - first_time > 0.5 else None
        left = (self.total - done) / speed if speed else None
        self._say(Progress(done, self.total, speed, left), now, whole=done == self.total)

    def says(self, done: int, message: str) -> None:
        """Something other than downloading goes on. Raises Cancelled if the caller wants to stop."""
        self._seen.clear()  # this time says nothing about the speed
        self._say(Progress(done, self.total, message=message), monotonic())

    def wait(self, seconds: float, done: int, reason: str) -> None:
        """Waits before another attempt. Raises Cancelled if the caller wants to stop."""
        end = monotonic() + seconds
        while (left := end - monotonic()) > 0:
            self.says(done, f"Trying again in {left:.0f} s: {reason}.")
            sleep(min(left, _INTERVAL))

    def _say(self, step: Progress, now: float, whole: bool = False) -> None:
        if self._should_stop():
            raise Cancelled(
                "The download was cancelled.", "What has come is kept; the next download goes on from there."
            )
        message, when = self._said
        if whole or message != step.message or now - when >= _INTERVAL:
            self._said = (step.message, now)
            self._progress(step)
