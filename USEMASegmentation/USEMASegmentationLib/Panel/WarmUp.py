"""The engine starts before the click, once there is something to segment, so that the click does not wait for it."""

from __future__ import annotations

from collections.abc import Callable

import qt

from ..Logic import USEMASegmentationLogic


class WarmUp:
    """Starts it once for each choice: whoever ends it meanwhile, or leaves it unused until it ends, is not overruled.

    Args:
        logic: starts it.
        isShown: whether the panel is on the screen.
    """

    def __init__(self, logic: USEMASegmentationLogic, isShown: Callable[[], bool]):
        self._logic = logic
        self._isShown = isShown
        self._choice = None

    def again(self) -> None:
        """The panel was opened: what was chosen before counts anew."""
        self._choice = None

    def update(self, choice: tuple | None) -> None:
        """What a click would segment now; None: nothing."""
        if choice not in (None, self._choice) and self._isShown():
            self._choice = choice
            qt.QTimer.singleShot(0, self._start)  # when the panel has shown it

    def close(self) -> None:
        """Starts nothing any more."""
        self._isShown = lambda: False

    def _start(self) -> None:
        if self._isShown():
            self._logic.warmUp()
