"""What a click has begun and takes long: a moment at a time, as soon as all is up to date. Knows no Qt."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from ..Steps import Steps, Working

_MILLISECONDS = 10  # between two moments


class Surroundings(NamedTuple):
    """What a work needs of the section that it belongs to.

    Args:
        errorsShown: gives a context in which errors are shown.
        isUpToDate: looks a moment at what the user changed; False: it is not known yet.
        newTimer: makes a timer that calls what it is given.
    """

    errorsShown: Callable[[], AbstractContextManager]
    isUpToDate: Callable[[], bool]
    newTimer: Callable


class AskedWork:
    """One work at a time. In a small volume it is done at once.

    Args:
        surroundings: the section that it belongs to.
        told: called when it has begun, gone on or ended.
    """

    def __init__(self, surroundings: Surroundings, told: Callable[[], None]):
        self._errorsShown, self._isUpToDate, self._told = surroundings.errorsShown, surroundings.isUpToDate, told
        self._timer = surroundings.newTimer(self.onTimer)
        self._timer.interval = _MILLISECONDS
        self._make: Callable[[], Working] | None = None
        self._done: Callable[[Any], None] | None = None
        self._work: Steps | None = None

    @property
    def busy(self) -> bool:
        """Whether it was asked for, and has not ended."""
        return self._make is not None

    @property
    def hasBegun(self) -> bool:
        """Whether it waits for nothing any more."""
        return self._work is not None

    def ask(self, make: Callable[[], Working], done: Callable[[Any], None]) -> None:
        """In place of what was asked for before.

        Args:
            make: makes the work, when all is up to date.
            done: called with what it gives.
        """
        self.giveUp()
        self._make, self._done = make, done
        self.goOn()

    def soon(self, do: Callable[[], None]) -> None:
        """As `ask`, of what takes no time: a click, as soon as it is known what the user changed."""
        with self._errorsShown():
            self.ask(_nothing, lambda _: do())

    def again(self) -> None:
        """From the beginning: what it is about has changed."""
        if self._work is not None:
            self._work.close()
            self._work = None

    def giveUp(self) -> None:
        """Nothing is asked for any more; what is computed beside ends soon, in vain."""
        self.again()
        self._make, self._done = None, None
        self._timer.stop()

    def stopWaiting(self) -> None:
        """Gives up what has not begun: nobody looks any more at what the user changed."""
        if not self.hasBegun:
            self.giveUp()

    def onTimer(self) -> None:
        with self._errorsShown():
            self.goOn()

    def goOn(self) -> None:
        """For a moment; as long as it has not ended, the timer runs."""
        try:
            self._step()
        except BaseException:
            self.giveUp()
            self._told()
            raise
        if self.busy:
            self._timer.start()
        self._told()

    def _step(self) -> None:
        if self._make is not None and self._work is None and self._isUpToDate() and self._make is not None:
            self._work = Steps(self._make())
        if self._work is not None and self._work.go():
            done, value = self._done, self._work.value
            self.giveUp()
            done(value)


def _nothing() -> Working:
    yield from ()
