"""Leaves whoever sends too slowly to be waited for. Standard library only."""

from __future__ import annotations

from time import monotonic

from .faults import Fault


class Pace:
    """Counts what comes from one connection.

    Args:
        slowest: bytes a second below which it is left.
        seconds: how long it may stay below; what comes is counted anew after each such span.
    """

    def __init__(self, slowest: float, seconds: float):
        self._slowest, self._seconds = slowest, seconds
        self._since, self._bytes = monotonic(), 0

    def came(self, number: int) -> None:
        """That many bytes more. Raises Fault if the last span brought too little."""
        self._bytes += number
        if monotonic() - self._since > self._seconds:
            if self._bytes < self._slowest * self._seconds:
                raise Fault(f"comes too slowly: less than {self._slowest} bytes a second", "Try again later.")
            self._since, self._bytes = monotonic(), 0
