"""How far a run is: a bar on a terminal; elsewhere, in a log or a pipe, a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ..errors import printable
from .tables import say

_FIRST_SECONDS, _SECONDS = 10.0, 30.0  # a short run needs no line, a long one few

Update = Callable[[int, int, "float | None"], None]  # tiles done, tiles in all, seconds left if known


class RunProgress:
    """Enter it, then ask for ``case`` again and again; lines printed by ``say`` stand above the bar."""

    def __init__(self, console: Console):
        self.console = console
        self._bar = None
        if console.is_terminal:
            plain = TextColumn("{task.description}", markup=False)
            tiles = TextColumn("tile {task.completed} of {task.total}")
            self._bar = Progress(plain, BarColumn(), tiles, TimeRemainingColumn(), console=console, transient=True)

    def __enter__(self) -> RunProgress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *error) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, line: str, style: str = "") -> None:
        say(self.console, line, style)

    def case(self, name: str) -> Update:
        """Begins a case; what it returns takes its progress."""
        if self._bar is None:
            return _lines(name, self.say)
        for task in self._bar.task_ids:
            self._bar.remove_task(task)
        task = self._bar.add_task(printable(name), total=None)
        return lambda done, total, seconds_left: self._bar.update(task, completed=done, total=total)


def _lines(name: str, tell: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> Update:
    due = clock() + _FIRST_SECONDS

    def update(done: int, total: int, seconds_left: float | None) -> None:
        nonlocal due
        if done < total and clock() >= due:
            due = clock() + _SECONDS
            left = "" if seconds_left is None else f", about {duration(seconds_left)} left"
            tell(f"{name}: tile {done} of {total}{left}")

    return update


def duration(seconds: float) -> str:
    """To be read at a glance: "40 s", "12 min", "3 h 20 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
