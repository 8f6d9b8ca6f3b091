"""A progress bar and a message for some of the store's tasks. Knows the widgets' functions, but no Qt."""

from __future__ import annotations

from usema.errors import UsemaError

from ..ModelStore import ModelStore
from . import RunTexts, StoreTexts


class TaskDisplay:
    """Shows a task where it was begun.

    Args:
        bar: a QProgressBar.
        label: a QLabel.
        tasks: those to show; see ``StoreStatus.task``.

    Attributes:
        running: whether one of them is under way.
    """

    def __init__(self, bar, label, tasks: set[str]):
        self.bar = bar
        self.label = label
        self.tasks = tasks
        self.running = False
        bar.visible = False
        self.clear()

    def update(self, store: ModelStore) -> None:
        """How far it is; once it is over, how it ended."""
        status, before = store.status, self.running
        self.running = store.busy and status.task in self.tasks
        self.bar.visible = self.running
        if self.running:
            self.bar.setRange(0, status.total // 1024)  # its numbers have 32 bits; 0 of 0 shows that something goes on
            self.bar.value = status.done // 1024
            self.bar.format = StoreTexts.taskProgress(status)
            self._say(StoreTexts.taskStep(status))
        elif before:
            self._say(StoreTexts.taskResult(status))

    def showError(self, error: UsemaError) -> None:
        self._say(RunTexts.message(error.message, error.hint))

    def showText(self, text: str) -> None:
        """Something to be done before a task can begin."""
        self._say(text)

    def clear(self) -> None:
        if not self.running:
            self._say("")

    def _say(self, text: str) -> None:
        self.label.text = text
        self.label.visible = bool(text)
