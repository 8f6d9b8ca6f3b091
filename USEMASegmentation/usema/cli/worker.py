"""`usema worker`: the process behind the panel, for other programs too."""

from __future__ import annotations

import click

from ..errors import InputError


@click.command()
@click.option("--idle-minutes", default=30.0, show_default=True, help="End after so long without a request.")
def worker(idle_minutes: float) -> None:
    """Answer requests on stdin with JSON lines on stdout, keeping a model warm: see `usema/serving/worker.py`."""
    from ..serving.worker import main

    if not idle_minutes >= 0:  # nor is NaN
        raise InputError(f"Nobody can wait for {idle_minutes:g} minutes.", "Give --idle-minutes 0 or more.")
    main(["--idle-minutes", str(idle_minutes)])
