"""The second half of a double click on a button that begins and cancels: it would cancel what the first half began."""

from __future__ import annotations

import time
from collections.abc import Callable

SECONDS = 0.4  # between the halves; most systems have 0.4 or 0.5 as the limit, and few hands come near it


class SecondClick:
    """Knows since when a button cancels."""

    def __init__(self):
        self._since: float | None = None

    def update(self, busy: bool) -> None:
        """Tell it whether the button cancels now, whenever that may have changed."""
        if not busy:
            self._since = None
        elif self._since is None:
            self._since = time.monotonic()

    def unless(self, cancel: Callable[[], None]) -> None:
        """Cancel, unless the click that is handled now is the second half."""
        if self._since is None or time.monotonic() - self._since >= SECONDS:
            cancel()
