"""Who does the cases of a cohort: this process, Ray's actors, or Slurm's jobs. Their options, and the choice."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click

from ..errors import InputError
from ..models.bundle import Bundle
from .case_run import Engine, Settings
from .cases import Case
from .cohort import Cohort
from .interrupt import Stop
from .local import run_locally
from .progress import RunProgress
from .remote import Job

ENGINES = ("local", "ray", "slurm")
CHUNK = 20  # cases a job of Slurm, so that loading the model costs little

_OPTIONS = (
    click.option(
        "--engine", type=click.Choice(ENGINES), default="local", show_default=True, help="Who does the cases."
    ),
    click.option("--ray-address", metavar="ADDRESS", help="Of a Ray cluster (ray://...).  [default: this computer]"),
    click.option("--workers", type=click.IntRange(1), help="How many of Ray's actors, or of Slurm's jobs at a time."),
    click.option("--slurm", multiple=True, metavar="NAME=VALUE", help="A parameter of submitit: slurm_partition=gpu."),
    click.option("--chunk", type=click.IntRange(1), default=CHUNK, show_default=True, help="Cases a job of Slurm."),
)


def engine_options(command: Callable) -> Callable:
    """Adds the options that :class:`Choice` takes."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True)
class Choice:
    """What the options say.

    Raises:
        InputError: an option is none, or belongs to another engine.
    """

    engine: str = "local"
    ray_address: str | None = None
    workers: int | None = None
    slurm: tuple[str, ...] = ()
    chunk: int = CHUNK

    def __post_init__(self):
        for word in self.slurm:
            if not re.fullmatch(r"\w+=.+", word):
                raise InputError(f"--slurm {word} is no NAME=VALUE.", "Say for example --slurm slurm_partition=gpu.")
        for name, given, engine in (
            ("--ray-address", self.ray_address, "ray"),
            ("--slurm", self.slurm, "slurm"),
            ("--workers", self.workers and self.is_local, "ray or slurm"),
            ("--chunk", self.chunk != CHUNK, "slurm"),
        ):
            if given and self.engine not in engine:
                raise InputError(f"{name} is of no use to the engine {self.engine}.", f"Say --engine {engine}, too.")

    @property
    def is_local(self) -> bool:
        return self.engine == "local"

    def run(
        self,
        cases: Sequence[Case],
        bundle: Bundle,
        settings: Settings,
        cohort: Cohort | None,
        folder: Path,
        stop: Stop,
        progress: RunProgress,
    ) -> int:
        """Segments each case and returns how many failed.

        Args:
            cohort: of the cases; None, for one case alone, only with the engine "local".
            folder: of its statuses.

        Raises:
            UsemaError: no case can be done.
            SystemExit: a signal asked to stop.
        """
        if self.is_local:
            return run_locally(cases, Engine(bundle, settings, progress), stop, cohort)
        if not cases:
            return 0
        job = Job(bundle.path.resolve(), folder.resolve(), settings)
        cases = [_absolute(case) for case in cases]
        if self.engine == "ray":
            from .ray_engine import run_on_ray

            return run_on_ray(cases, job, stop, progress.say, self.ray_address, self.workers)
        from .slurm_engine import run_on_slurm

        parameters = dict(word.split("=", 1) for word in self.slurm)
        return run_on_slurm(cases, job, stop, progress.say, parameters, self.chunk, self.workers)


def _absolute(case: Case) -> Case:
    """Paths that mean the same in another process."""
    kinds = ("output", "probabilities", "preview", "statistics", "objects", "table")
    places = {kind: getattr(case, kind) for kind in kinds}
    named = {kind: path and path.absolute() for kind, path in places.items()}
    return replace(case, inputs=tuple(path.absolute() for path in case.inputs), **named)
