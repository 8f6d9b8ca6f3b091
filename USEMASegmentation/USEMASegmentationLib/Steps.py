"""Long work that holds the application's main thread for a moment at a time. No Qt, no MRML.

Work is a generator: what it does between two ``yield`` is done in one go, in the main thread, where the scene may be
touched. What needs nothing of the scene goes to a thread of its own by ``yield from beside(...)``.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

MOMENT = 0.03  # seconds: what a user does not feel
_SLAB = 2**21  # voxels that are copied in a few milliseconds
SMALL = 2**20  # voxels: work on so many takes no longer than a moment


def isSmall(voxels: int) -> bool:
    """Whether so many are looked at in one go."""
    return voxels <= SMALL


class Aside:
    """Computes in a thread of its own. What it works on must be nobody else's: the main thread goes on meanwhile.

    Python waits for it at its own end: a thread that is broken off inside of NumPy or SciPy aborts the application.
    """

    def __init__(self, work: Callable[[], Any]):
        self._work, self._ended = work, threading.Event()
        self._value, self._error = None, None
        threading.Thread(target=self._run).start()

    def wait(self, seconds: float) -> bool:
        """Whether it has ended, after so long at the most.

        The thread computes meanwhile: an application that is inside its own event loop may let no other Python run.
        """
        return self._ended.wait(seconds)

    @property
    def value(self) -> Any:
        """What it gave; raises what it raised."""
        if self._error is not None:
            raise self._error
        return self._value

    def _run(self) -> None:
        work, self._work = self._work, None
        try:
            self._value = work()
        except BaseException as error:
            self._error = error
        del work  # before anybody hears of the end: what it held is free then
        self._ended.set()


class NextTurn:
    """What comes after it waits for the application's next turn: until then, events of the user are taken."""

    def __init__(self):
        self._isNext = False

    def wait(self, seconds: float) -> bool:
        """Whether the next turn has come, asked once a turn."""
        isNext, self._isNext = self._isNext, True
        return isNext


Working = Generator["Aside | NextTurn | None", None, Any]


def beside(work: Callable[[], Any], voxels: int) -> Working:
    """What the work gives; with ``yield from``.

    Args:
        work: touches nothing of the scene.
        voxels: how many it looks at; so few that a thread does not pay are looked at here.
    """
    if isSmall(voxels):
        return work()
    aside = Aside(work)
    while not aside.wait(0):
        yield aside
    return aside.value


def inSlabs(shape: tuple[int, ...], do: Callable[[slice], Any]) -> Working:
    """Does something to an array, slab by slab along its first axis: a few milliseconds each, small ones in one go.

    Args:
        do: called with each slab; False, and nothing else, ends it.
    """
    voxels, plane = math.prod(shape), max(1, math.prod(shape[1:]))
    step = shape[0] if isSmall(voxels) else max(1, _SLAB // plane)
    for first in range(0, shape[0], max(1, step)):
        if do(slice(first, min(first + step, shape[0]))) is False:
            return
        if not isSmall(voxels):
            yield


def copying(source: np.ndarray, target: np.ndarray) -> Working:
    """Copies an array into another of its shape, slab by slab."""

    def copy(part: slice) -> None:
        target[part] = source[part]

    return inSlabs(source.shape, copy)


def slabsBeside(shape: tuple[int, ...], do: Callable[[slice], Any]) -> Working:
    """Does something to an array slab by slab in a thread of its own, where that pays: so the main thread gets its
    turn at Python between two slabs, little memory is needed, and when it is given up, it stops at the next one.

    Args:
        do: called with each slab; touches nothing of the scene.
    """
    givenUp = threading.Event()

    def one(part: slice) -> bool:
        if not givenUp.is_set():
            do(part)
        return not givenUp.is_set()

    def every() -> None:
        for _ in inSlabs(shape, one):
            pass

    try:
        yield from beside(every, math.prod(shape))
    finally:
        givenUp.set()


class Steps:
    """Carries a generator on, for a moment at each call of ``go``.

    What it does may let the application's events in, as a question to the user does: a call from there does nothing.

    Attributes:
        value: what the generator returned, once it has.
    """

    def __init__(self, work: Working):
        self._work, self._aside, self._isClosed = work, None, False
        self.value: Any = None

    def go(self, seconds: float = MOMENT) -> bool:
        """Whether it has ended; raises what the work raises."""
        end = time.perf_counter() + seconds
        while not self._work.gi_running:
            if self._aside is not None and not self._aside.wait(max(0.0, end - time.perf_counter())):
                return False
            try:
                self._aside = next(self._work)
            except StopIteration as stop:
                self.value = stop.value
                return not self._isClosed
            if self._isClosed:
                self._work.close()
                return False
            if time.perf_counter() >= end:
                return False
        return False

    def end(self) -> Any:
        """Goes on to the end without a pause, for scripts; gives what the work returns."""
        while not self.go(1.0):
            pass
        return self.value

    def close(self) -> None:
        """Gives it up, at its next pause if it is at work. What is computed beside goes on in vain."""
        self._isClosed = True
        if not self._work.gi_running:
            self._work.close()


def atOnce(work: Working) -> Any:
    """What the work returns, for who can wait."""
    return Steps(work).end()
