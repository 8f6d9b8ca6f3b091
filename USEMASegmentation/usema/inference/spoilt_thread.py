"""A thread in which memory ran out computes no more convolutions: the next run goes into another one.

oneDNN's code generator (Xbyak) keeps the error of a failed allocation for the thread that it happened in, and every
convolution that it has not yet made code for ends there as "could not create a primitive", however much memory there is
again. Other threads are not touched.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future

from ..errors import DeviceError

_this = threading.local()


def spared(run: Callable) -> Callable:
    """A function that computes networks, in a new thread where an earlier one failed in the caller's for want of
    memory. What it calls back, it calls from there; the caller waits, and hears signals meanwhile."""

    @functools.wraps(run)
    def run_where_it_can(*arguments, **options):
        if getattr(_this, "spoilt", False):
            return _elsewhere(functools.partial(run, *arguments, **options))
        try:
            return run(*arguments, **options)
        except (DeviceError, MemoryError, RuntimeError):  # of torch and oneDNN, too: in doubt it is spoilt
            _this.spoilt = True
            raise

    return run_where_it_can


def _elsewhere(run: Callable):
    ended: Future = Future()

    def work() -> None:
        try:
            ended.set_result(run())
        except BaseException as error:
            ended.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return ended.result()
