"""What every engine beside `local` has in common: a process elsewhere that does cases, and hears and tells paths only.

A case is one unit that can be done twice without harm: its results appear whole under their names, and its status, a
file in the folder of the results, tells what came of it. So an engine may lose a process and have another do its case
again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import click
from rich.console import Console

from ..errors import MissingDependencyError, UsemaError
from ..models.bundle import read_bundle
from . import report
from .case_run import Engine, Outcome, Settings
from .cases import Case
from .cohort import DONE, FAILED, Cohort
from .progress import RunProgress
from .work import NoEngine, Work


@dataclass(frozen=True)
class Job:
    """What is the same for all cases of a run.

    Attributes:
        model: the folder of the bundle, as the processes elsewhere see it.
        folder: where results and statuses go.
    """

    model: Path
    folder: Path
    settings: Settings

    def cohort(self) -> Cohort:
        return Cohort(self.folder, read_bundle(self.model), self.settings)


class CaseRunner:
    """Does cases one after the other with one loaded model; while one is segmented, the next is read.

    Raises:
        BundleError: the model is not there.
    """

    def __init__(self, job: Job):
        self._cohort = job.cohort()
        progress = RunProgress(Console(file=StringIO()))
        self._engine = Engine(read_bundle(job.model), job.settings, progress)
        self._reader = ThreadPoolExecutor(1)
        self._ahead: tuple[Case, Work, Future] | None = None

    def run(self, case: Case, then: Case | None = None) -> None:
        """Does a case; what came of it is in its status.

        Args:
            then: the one that is done next, if that is known.

        Raises:
            UsemaError: no case can be done here: the model cannot be loaded.
        """
        ahead, self._ahead = self._ahead, None
        _, work, read = ahead if ahead and ahead[0] == case else self._begin(case)
        try:
            read.result()
            self._ahead = self._begin(then) if then else None
            work.segment()
            work.write()
        except NoEngine as error:
            raise error.__cause__ from None
        except Exception as error:  # whatever it is, one case must not cost the others
            if type(error).__module__.startswith("submitit"):  # this job's time is over: that is no fault of the case
                raise
            work.fail(error, of_many=True)

    def _begin(self, case: Case) -> tuple[Case, Work, Future]:
        work = Work(case, self._engine, self._cohort, lambda: False)
        return case, work, self._reader.submit(work.read)


class Told:
    """Counts and tells what came of cases, from their statuses.

    Args:
        say: prints a line.
    """

    def __init__(self, cohort: Cohort, say: Callable[[str], None]):
        self.failed = 0
        self._cohort, self._say = cohort, say
        self._number = 0

    def tell(self, case: Case, of: int, lost: str = "") -> None:
        """Of a case that is over.

        Args:
            of: how many there are.
            lost: why it may have come to nothing: that is its status, then.
        """
        self._number += 1
        status = self._cohort.told(case)
        if lost and not (status and status["state"] == DONE):
            error = UsemaError(lost, "Look into the log of the engine; the same command does what is not done.")
            self._cohort.record(case, Outcome(), FAILED, error)
            status = self._cohort.told(case)
        why = status["error"] if status else self._cohort.error(case)
        if why or status is None or status["state"] != DONE:
            self.failed += 1
            report(UsemaError(why or "It has no status: its input was changed."), case.name)
            return
        found = ", ".join(f"{name} {volume:.2f} ml" for name, volume in status["millilitres"].items())
        found = found or ", ".join(f"{name} {number:g}" for name, number in status.get("numbers", {}).items())
        self._say(f"{self._number} of {of}: {case.name}: {found} ({status['seconds']} s) -> {case.output}")


def pairs(cases: Iterable[Case]):
    """Each case with the one after it, or None."""
    cases = list(cases)
    return zip(cases, [*cases[1:], None], strict=True)


def missing(package: str, extra: str) -> MissingDependencyError:
    """What to say where an engine's library is not installed."""
    return MissingDependencyError(
        f"The engine '{extra}' needs the package {package}, which is not installed.",
        f"Install the extra: pip install 'usema[{extra}]'; or take --engine local.",
    )


def say_stopped(done: int, cases: int) -> None:
    click.secho(f"Stopped. {done} of {cases} cases are over; the same command does the others.", fg="red", err=True)
