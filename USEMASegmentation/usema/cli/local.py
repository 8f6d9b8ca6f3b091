"""The engine `local`: all cases in this process. While one is segmented, the next is read and the last one written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import NoReturn

from ..errors import Cancelled, UsemaError
from . import report
from .case_run import Engine
from .cases import Case
from .cohort import Cohort
from .interrupt import Stop
from .work import NoEngine, Work, report_stop


class AtOnce:
    """In place of a thread: what is submitted is done before ``submit`` returns."""

    @staticmethod
    def submit(task: Callable[[], None]) -> Future:
        future: Future = Future()
        try:
            future.set_result(task())
        except Exception as error:
            future.set_exception(error)
        return future


def run_locally(cases: Sequence[Case], engine: Engine, stop: Stop, cohort: Cohort | None) -> int:
    """Segments each case and returns how many failed.

    Raises:
        UsemaError: the model cannot be loaded.
        SystemExit: a signal asked to stop. What was written is whole, and the user has been told.
    """
    works = [Work(case, engine, cohort, stop.is_set, writes_anyway=len(cases) > 1) for case in cases]
    with ExitStack() as stack:
        reader = writer = AtOnce()
        if len(works) > 1:
            reader, writer = (stack.enter_context(ThreadPoolExecutor(1)) for _ in range(2))
        failed = _Run(works, reader, writer, stop).go()
    if stop.is_set():
        report(UsemaError("Stopped, after all was written."))
        raise SystemExit(stop.exit_code)
    return failed


class _Run:
    def __init__(self, works: list[Work], reader, writer, stop: Stop):
        self._works, self._reader, self._writer, self._stop = works, reader, writer, stop
        self._reads: dict[int, Future] = {}
        self._write: tuple[int, Future] | None = None  # which one is being written
        self._failed = 0

    def go(self) -> int:
        self._read(0)
        for index, work in enumerate(self._works):
            try:
                if index not in self._reads:
                    raise Cancelled("Stopped.")
                self._reads.pop(index).result()
                self._read(index + 1)
                work.segment()
            except (Cancelled, KeyboardInterrupt) as stopped:
                self._settle()  # the one before may be the first that is not whole
                self._end(index, stopped)
            except NoEngine as error:
                self._settle()
                raise error.__cause__ from None
            except Exception as error:  # whatever it is, one case must not cost the others
                self._settle()
                self._fail(index, error)
                self._read(index + 1)
            else:
                self._settle()
                self._write = index, self._writer.submit(work.write)
        self._settle()
        return self._failed

    def _read(self, index: int) -> None:
        if index < len(self._works) and index not in self._reads and not self._stop.is_set():
            self._reads[index] = self._reader.submit(self._works[index].read)

    def _settle(self) -> None:
        """Waits for the case that is being written."""
        if self._write is None:
            return
        (index, written), self._write = self._write, None
        try:
            written.result()
        except (Cancelled, KeyboardInterrupt) as stopped:
            self._end(index, stopped)
        except Exception as error:
            self._fail(index, error)

    def _fail(self, index: int, error: Exception) -> None:
        self._failed += 1
        self._works[index].fail(error, of_many=len(self._works) > 1)

    def _end(self, index: int, stopped: BaseException) -> NoReturn:
        report_stop(self._works[index], index, len(self._works))
        raise SystemExit(getattr(stopped, "exit_code", self._stop.exit_code)) from None
