"""One case as three pieces of work, reading, segmenting and writing, which may lie in different threads."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from ..errors import Cancelled, UsemaError, printable
from . import explained, report
from .case_run import Engine, Outcome, make_folders, predict_case, read_case, write_case
from .cases import Case
from .cohort import BEGUN, DONE, FAILED, Cohort
from .streams import said_by_the_engine

if TYPE_CHECKING:
    from ..inference.predictor import Segmentation
    from ..volumes.volume import Volume


class NoEngine(Exception):
    """The model cannot be loaded: no case can be segmented. Its cause says why."""


class Work:
    """A case on its way; the steps are called in order.

    Args:
        cohort: hears how it ends; None: nobody does.
        should_stop: asked between tiles and between files.
        writes_anyway: what was computed is written even if the run is to stop.
    """

    def __init__(
        self,
        case: Case,
        engine: Engine,
        cohort: Cohort | None,
        should_stop: Callable[[], bool],
        writes_anyway: bool = False,
    ):
        self.case = case
        self.outcome = Outcome()
        self._engine, self._cohort, self._should_stop = engine, cohort, should_stop
        self._stops_writing = (lambda: False) if writes_anyway else should_stop
        self._volumes: list[Volume] = []
        self._result: Segmentation | None = None

    def read(self) -> None:
        """Raises UsemaError where the case cannot be segmented or written."""
        with said_by_the_engine(self.outcome.warnings):
            make_folders(self.case)
            self._volumes = read_case(self.case, self._engine, self.outcome)

    def segment(self) -> None:
        """Raises NoEngine, UsemaError, and Cancelled where the run is to stop."""
        if self._should_stop():
            raise Cancelled("Stopped.")
        try:
            self._engine.predictor  # noqa: B018, loads it
        except Exception as error:
            raise NoEngine from error
        with said_by_the_engine(self.outcome.warnings):
            self._result = predict_case(self.case, self._volumes, self._engine, self.outcome, self._should_stop)
        del self._volumes[1:]

    def write(self) -> None:
        """Writes, and tells that the case is done. Raises OutputError, and Cancelled where the run is to stop."""
        volume, result = self._volumes.pop(), self._result
        self._result = None
        begun = lambda: self._record(BEGUN)  # noqa: E731
        with said_by_the_engine(self.outcome.warnings):
            write_case(self.case, volume, result, self._engine, self.outcome, self._stops_writing, begun)
        self._record(DONE)

    def fail(self, error: Exception, of_many: bool) -> UsemaError:
        """Tells that the case failed, and why."""
        explanation = explained(error)
        report(explanation, self.case.name if of_many else "")
        if self.outcome.written:
            written = printable(", ".join(map(str, self.outcome.written)))
            click.echo(f"       Written before: {written}", err=True)
        with suppress(OSError):  # the disk that the case failed on may be the one that this goes to
            self._record(FAILED, explanation)
        return explanation

    def _record(self, state: str, error: UsemaError | None = None) -> None:
        if self._cohort:
            self._cohort.record(self.case, self.outcome, state, error)


def report_stop(work: Work, done: int, cases: int) -> None:
    """What is there of the case that a stop reached, and what is not."""
    written = work.outcome.written
    missing = [str(path) for path in work.case.outputs if path not in written]
    there = f"Written: {', '.join(map(str, written))}. " if written else ""
    count = f"{done} of {cases} cases were done before. " if cases > 1 else ""
    report(UsemaError(f"Stopped. {count}{there}Not written: {', '.join(missing)}."))
