"""The models on this computer, and where new ones are looked for. Knows the widgets' functions, but no Qt."""

from __future__ import annotations

from collections.abc import Callable

import slicer
from usema.errors import UsemaError
from usema.store import importing, indexes

from ..ModelStore import ModelHere, ModelStore
from . import StoreTexts
from .RunTexts import asHtml
from .Signals import connect
from .TaskDisplay import TaskDisplay


class ManageSection:
    """Table of models with verify, delete and import; lists of models with refresh, add and remove.

    Args:
        ui: the widgets of Models.ui.
        store: does the work.
        installer: knows what the store needs.
        started: called when a task has begun, which ``store.poll()`` has to carry on.
        changed: called when the known models have changed without a task.
        newItem: makes a cell of the table from its text.
        chooseFile: asks for a model file; gives its path, or an empty text.
    """

    def __init__(
        self,
        ui,
        store: ModelStore,
        installer,
        *,
        started: Callable[[], None],
        changed: Callable[[], None],
        newItem: Callable,
        chooseFile: Callable[[], str],
    ):
        self.ui = ui
        self.store = store
        self.installer = installer
        self.started = started
        self.changed = changed
        self.newItem = newItem
        self.chooseFile = chooseFile
        self.models: list[ModelHere] = []
        self.toImport = ""  # a file of which one model has to be chosen
        self.ownIndexes: tuple[str, ...] = ()
        self.display = TaskDisplay(ui.manageBar, ui.manageLabel, {"import", "refresh", "remove", "verify"})
        self._offer("", [])
        connect(ui.modelsTable, "itemSelectionChanged()", self.update)
        connect(ui.verifyButton, "clicked(bool)", self.onVerify)
        connect(ui.deleteButton, "clicked(bool)", self.onDelete)
        connect(ui.importButton, "clicked(bool)", self.onImport)
        connect(ui.cancelTaskButton, "clicked(bool)", self.onCancel)
        connect(ui.refreshButton, "clicked(bool)", self.onRefresh)
        connect(ui.addIndexButton, "clicked(bool)", self.onAddIndex)
        connect(ui.removeIndexButton, "clicked(bool)", self.onRemoveIndex)
        connect(ui.indexSelector, "currentIndexChanged(int)", self.update)
        connect(ui.indexEdit, "textChanged(QString)", self.update)

    def fill(self) -> None:
        """Looks what there is."""
        table = self.ui.modelsTable
        before, self.models = self._chosen(), self.store.modelsHere()
        table.setRowCount(len(self.models))
        for row, model in enumerate(self.models):
            cells = (model.title, model.version, StoreTexts.megabytes(model.size), StoreTexts.stateHere(model))
            for column, text in enumerate(cells):
                item = self.newItem(text)
                item.setToolTip(asHtml(model.problem or text))
                table.setItem(row, column, item)
        table.resizeColumnsToContents()
        # by what it is, not by its row: another model may be there now
        same = before and (before.name, before.version, before.bundled)
        rows = (row for row, one in enumerate(self.models) if (one.name, one.version, one.bundled) == same)
        table.setCurrentCell(next(rows, -1), 0)
        self.ui.folderLabel.text = StoreTexts.folder(
            self.store.folder(), sum(one.size for one in self.models if not one.bundled)
        )
        self.ownIndexes = self.store.ownIndexes()
        selector = self.ui.indexSelector
        selector.clear()
        sources = self.store.indexes()
        titles = indexes.names(sources)  # two departments may call their lists alike
        for source in sources:
            selector.addItem(StoreTexts.source(source, titles[source.place]), source.place)
        self.ui.problemsLabel.text = StoreTexts.problems(self.store.library().problems)
        self.ui.problemsLabel.visible = bool(self.ui.problemsLabel.text)
        self.update()

    def update(self, *_ignored) -> None:
        """Progress and message, and which buttons can be clicked."""
        self.display.update(self.store)
        ui, busy, model = self.ui, self.store.busy, self._chosen()
        ui.cancelTaskButton.visible = self.display.running
        ui.cancelTaskButton.enabled = self.store.status.state != "cancelling"
        ui.verifyButton.enabled = not busy and model is not None and model.bundle is not None
        ui.deleteButton.enabled = not busy and model is not None and not model.bundled
        ui.importButton.enabled = ui.importSelector.enabled = not busy
        ui.refreshButton.enabled = not busy and bool(self.ownIndexes)
        ui.addIndexButton.enabled = not busy and bool(ui.indexEdit.text.strip())
        ui.removeIndexButton.enabled = not busy and ui.indexSelector.currentData in self.ownIndexes

    def _chosen(self) -> ModelHere | None:
        row = self.ui.modelsTable.currentRow()
        return self.models[row] if 0 <= row < len(self.models) else None

    def _begin(self, begin: Callable[[], None]) -> None:
        def beginAndTell() -> None:
            begin()
            self.started()

        self._try(beginAndTell)

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except UsemaError as error:
            self.display.showError(error)
        self.update()

    # Clicks

    def onVerify(self, checked: bool = False) -> None:
        self._begin(lambda: self.store.verify(self._chosen().bundle))

    def onDelete(self, checked: bool = False) -> None:
        model = self._chosen()
        text = StoreTexts.deleteQuestion(model)
        if slicer.util.confirmOkCancelDisplay(text, windowTitle="USEMA Segmentation"):
            self._begin(lambda: self.store.remove(model))

    def onImport(self, checked: bool = False) -> None:
        """A file with one model is imported; of several, the one that is chosen when the button is clicked again."""
        path, key = self.toImport, self.ui.importSelector.currentData if self.toImport else ""
        self._offer("", [])
        if not key:
            path = self.chooseFile()
        if path:
            self._try(lambda: self._import(path, key))

    def _import(self, path: str, key: str) -> None:
        models = importing.look(path)
        if len(models) > 1 and not key:
            self._offer(path, models)
            return
        question = self.store.questionOfFile(path)
        if question is not None:
            text = StoreTexts.importQuestion(question)
            if not slicer.util.confirmOkCancelDisplay(text, windowTitle="USEMA Segmentation"):
                return
        if not importing.is_own(path) and self.installer.missing():  # to convert a model takes what running one does
            self.installer.install()
        self.installer.installForStore()
        self.store.importFile(path, question, key)
        self.started()

    def _offer(self, path: str, models: list) -> None:
        """Shows what there is to choose from; nothing, if there is nothing."""
        self.toImport = path
        selector = self.ui.importSelector
        selector.clear()
        for model in models:
            selector.addItem(f"{model.key} ({model.summary})", model.key)
        selector.visible = bool(models)
        if models:
            selector.addItem(StoreTexts.anotherFile(), "")
            self.display.showText(StoreTexts.severalModels(path, len(models)))

    def onCancel(self, checked: bool = False) -> None:
        self.store.cancel()
        self.update()

    def onRefresh(self, checked: bool = False) -> None:
        self._begin(self._refresh)

    def _refresh(self) -> None:
        self.installer.installForStore()
        self.store.refresh()

    def onAddIndex(self, checked: bool = False) -> None:
        self._begin(self._addIndex)

    def _addIndex(self) -> None:
        self.installer.installForStore()
        self.store.addIndex(self.ui.indexEdit.text.strip())
        self.ui.indexEdit.text = ""
        self.store.refresh()

    def onRemoveIndex(self, checked: bool = False) -> None:
        try:
            self.store.removeIndex(self.ui.indexSelector.currentData)
        except UsemaError as error:
            self.display.showError(error)
        self.changed()
