"""The engine `ray`: actors, each with the model loaded once, on this computer or in a cluster (the extra `ray`).

Ray schedules, starts an actor that died again and repeats its case; a case that ends an actor three times is told as
failed, and another actor takes the place. No scheduler of our own, and nothing travels but paths and names.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Sequence

from ..errors import UsemaError
from .cases import Case
from .interrupt import Stop
from .remote import CaseRunner, Job, Told, missing, say_stopped

_RESTARTS = 2
_CPUS = 2  # of an actor, as long as the cluster has so many
_STORE = 2**27  # bytes: only paths and names travel
_SECONDS = 0.5  # between two looks at whether the user wants to stop


class _Actor:
    """A process elsewhere."""

    def __init__(self, job: Job):
        self._runner = CaseRunner(job)

    def run(self, case: Case, then: Case | None) -> None:
        self._runner.run(case, then)


def run_on_ray(
    cases: Sequence[Case], job: Job, stop: Stop, say: Callable[[str], None], address: str | None, workers: int | None
) -> int:
    """Segments each case and returns how many failed.

    Args:
        address: of a cluster, such as ray://head:10001; None: this computer.
        workers: how many actors; None: one for each GPU or, without one, for each two CPU cores.

    Raises:
        MissingDependencyError: Ray is not installed.
        UsemaError: the cluster cannot be reached, or the model cannot be loaded.
        SystemExit: a signal asked to stop.
    """
    try:
        import ray
    except ImportError as error:
        raise missing("ray", "ray") from error
    own = not ray.is_initialized()
    if own:
        try:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing leaves this computer unasked
            here = {"include_dashboard": False, "object_store_memory": _STORE}
            options = {"address": address} if address else here
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
        except Exception as error:
            raise UsemaError(f"Ray cannot be reached at {address or 'this computer'}: {error}.") from error
    try:
        return _Cluster(ray, job, workers).do(cases, stop, Told(job.cohort(), say))
    finally:
        if own:
            ray.shutdown()


class _Cluster:
    def __init__(self, ray, job: Job, workers: int | None):
        self._ray, self._job = ray, job
        resources = ray.cluster_resources()
        cpus, gpus = int(resources.get("CPU", 1)), int(resources.get("GPU", 0))
        on_gpu = gpus > 0 and not job.settings.device.startswith(("cpu", "mps"))
        each = min(_CPUS, cpus)
        self._workers = workers or (gpus if on_gpu else max(1, cpus // each))
        if self._workers * each > cpus:  # more actors than that were asked for: they share the cores
            each = cpus / self._workers
        self._kind = ray.remote(
            num_cpus=each if each < 1 else int(each),
            num_gpus=gpus / self._workers if on_gpu and self._workers > gpus else int(on_gpu),
            max_restarts=_RESTARTS,
            max_task_retries=_RESTARTS,
        )(_Actor)

    def do(self, cases: Sequence[Case], stop: Stop, told: Told) -> int:
        waiting, running, over = deque(cases), {}, 0
        for _ in range(min(self._workers, len(cases))):
            self._next(self._kind.remote(self._job), waiting, running, None)
        while running:
            if stop.is_set():
                say_stopped(over, len(cases))
                raise SystemExit(stop.exit_code)
            ended, _ = self._ray.wait(list(running), timeout=_SECONDS)
            for reference in ended:
                actor, case, then = running.pop(reference)
                lost = ""
                try:
                    self._ray.get(reference)
                except self._ray.exceptions.RayActorError:
                    lost = f"Its process ended {_RESTARTS + 1} times."
                    actor = self._kind.remote(self._job)
                except self._ray.exceptions.RayTaskError as error:
                    raise UsemaError(f"No case can be done: {error.cause}") from error
                over += 1
                told.tell(case, len(cases), lost)
                self._next(actor, waiting, running, then)
        return told.failed

    def _next(self, actor, waiting: deque, running: dict, case: Case | None) -> None:
        """Gives an actor its next case, and names the one after that, which it reads meanwhile."""
        case = case or (waiting.popleft() if waiting else None)
        if case is None:
            return
        # The last cases are left to whoever is free first.
        then = waiting.popleft() if len(waiting) >= self._workers else None
        running[actor.run.remote(case, then)] = actor, case, then
