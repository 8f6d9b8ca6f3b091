"""Ctrl+C, the end of a batch job's time and a closed terminal, as requests to stop that leave nothing half-written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# SIGTERM: a scheduler or the system wants the end; SIGHUP: the terminal is gone. Windows has no SIGHUP.
_END = tuple(number for name in ("SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None)


class Stopped(KeyboardInterrupt):
    """A signal asked to stop; no Exception, so that nothing on the way takes it for a failure."""

    def __init__(self, number: int = signal.SIGINT):
        super().__init__()
        self.exit_code = exit_code(number)


class Stop(threading.Event):
    """Set when a signal asked to stop; ``exit_code`` is what the shell then expects."""

    exit_code = 130


def exit_code(number: int) -> int:
    """As shells count it: 130 after Ctrl+C, 143 after SIGTERM."""
    return 128 + number


@contextmanager
def signals_raise() -> Iterator[None]:
    """SIGTERM and SIGHUP raise Stopped, as Ctrl+C raises KeyboardInterrupt: whatever is open gets closed."""

    def stop(number, frame):
        raise Stopped(number)

    with _handled(_END, stop):
        yield


@contextmanager
def stop_on_interrupt() -> Iterator[Stop]:
    """Gives an event that the first signal sets without raising anything; a second one raises Stopped at once."""
    stop = Stop()

    def ask(number, frame):
        if stop.is_set():
            raise Stopped(number)
        stop.exit_code = exit_code(number)
        stop.set()

    with _handled((signal.SIGINT, *_END), ask):
        yield stop


@contextmanager
def _handled(numbers: tuple[int, ...], handler: Callable) -> Iterator[None]:
    """Only the main thread may handle signals, and one that is ignored (nohup, a shell's ``&``) stays so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in numbers}
    mine = [number for number, old in before.items() if old not in (signal.SIG_IGN, None)]
    for number in mine:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in mine:
            signal.signal(number, before[number])
