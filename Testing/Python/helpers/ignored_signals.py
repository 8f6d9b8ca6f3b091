"""Signals that whoever started the tests had ignored: with `nohup` the end of the terminal, with ``&`` Ctrl+C."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def heard(number: int) -> Iterator[None]:
    """The signal does again what it does by itself, here and in all that is started meanwhile."""
    before = signal.getsignal(number)
    if before == signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    signal.signal(number, before)
