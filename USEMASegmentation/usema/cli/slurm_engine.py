"""The engine `slurm`: chunks of cases as one array of jobs, through submitit (the extra `slurm`).

A job loads the model once for its chunk. submitit keeps its files in OUT/status/jobs: logs, and what it pickles for its
own jobs, which are functions of this file and paths.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence

from ..errors import InputError, UsemaError
from .cases import Case
from .interrupt import Stop
from .remote import CaseRunner, Job, Told, missing, pairs, say_stopped
from .statuses import STATUS_FOLDER

_SECONDS = 1.0  # between two looks at the jobs
_FOLDER = "jobs"
_MINUTES = 24 * 60  # of a job, unless timeout_min says otherwise: submitit's own five would end every one


def run_chunk(job: Job, cases: Sequence[Case]) -> None:
    """What a job does. What came of the cases is in their statuses."""
    runner = CaseRunner(job)
    for case, then in pairs(cases):
        runner.run(case, then)


def run_on_slurm(
    cases: Sequence[Case],
    job: Job,
    stop: Stop,
    say: Callable[[str], None],
    parameters: Mapping[str, str],
    chunk: int,
    workers: int | None,
) -> int:
    """Segments each case and returns how many failed.

    Args:
        parameters: submitit's, such as slurm_partition; "cluster" may be "local", which needs no Slurm.
        chunk: cases a job.
        workers: how many jobs run at the same time at the most.

    Raises:
        MissingDependencyError: submitit is not installed.
        InputError: there is no Slurm here, or no such parameter.
        SystemExit: a signal asked to stop; the jobs were cancelled.
    """
    try:
        import submitit
    except ImportError as error:
        raise missing("submitit", "slurm") from error
    parameters = dict(parameters)
    cluster = parameters.pop("cluster", "slurm")
    if cluster == "slurm" and shutil.which("sbatch") is None:
        raise InputError(
            "There is no Slurm on this computer: the command sbatch is not here.",
            "Give the command on a login node of the cluster; or take --engine local, or --slurm cluster=local.",
        )
    try:
        executor = submitit.AutoExecutor(folder=job.folder / STATUS_FOLDER / _FOLDER, cluster=cluster)
        array = {"slurm_array_parallelism": workers} if workers else {}
        given = {name: _value(text) for name, text in parameters.items()}
        executor.update_parameters(**{"timeout_min": _MINUTES, **array, **given})
    except (ValueError, NameError, RuntimeError, TypeError) as error:
        raise InputError(f"--slurm: {error}", "Parameters are submitit's, such as slurm_partition=gpu.") from error
    chunks = [cases[start : start + chunk] for start in range(0, len(cases), chunk)]
    jobs = executor.map_array(run_chunk, [job] * len(chunks), chunks)
    say(f"{len(jobs)} jobs of up to {chunk} cases: {jobs[0].job_id} and on; logs in {jobs[0].paths.folder}")
    return _follow(list(zip(jobs, chunks, strict=True)), stop, Told(job.cohort(), say), len(cases))


def _follow(waiting: list, stop: Stop, told: Told, count: int) -> int:
    over = 0
    while waiting:
        for submitted, chunk in [pair for pair in waiting if pair[0].done()]:
            waiting.remove((submitted, chunk))
            lost = _why_lost(submitted)
            for case in chunk:
                told.tell(case, count, lost)
            over += len(chunk)
        if waiting and stop.is_set():
            for submitted, _ in waiting:
                submitted.cancel()
            say_stopped(over, count)
            raise SystemExit(stop.exit_code)
        if waiting:
            time.sleep(_SECONDS)
    return told.failed


def _why_lost(submitted) -> str:
    """Why a job did not come to its end; empty: it did."""
    try:
        error = submitted.exception()
    except Exception as unknown:  # submitit's own, where a job left no result
        error = unknown
    if error is None:
        return ""
    first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if isinstance(error, UsemaError):
        return str(error)
    return f"Its job {submitted.job_id} ended before it was done: {first.strip()} ({submitted.paths.stderr})"


def _value(text: str) -> str | int:
    return int(text) if text.isdecimal() else text
