"""The segments that a model makes, each with its colour, to be ticked; among many, found by their names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import qt
from usema.store import words

from .Signals import connect

ROWS = 4  # more are scrolled
MANY = 8  # from here on there is a filter


class LabelsList:
    """Keeps a QListWidget, and above it a filter with two buttons that tick or untick all that it shows.

    Args:
        ui: the panel's widgets.
        ticked: called when the user has ticked or unticked some.
    """

    def __init__(self, ui, ticked: Callable[[], None]):
        self.ui = ui
        self.widget = ui.labelsList
        self._names: list[str] = []
        self._changed = ticked
        connect(self.widget, "itemChanged(QListWidgetItem*)", self._onItemChanged)
        connect(ui.labelsFilter, "textChanged(QString)", self._onFilter)
        connect(ui.allButton, "clicked(bool)", self._onAll)
        connect(ui.noneButton, "clicked(bool)", self._onNone)

    def show(self, labels: Sequence, ticked: Sequence[str]) -> None:
        """Lists labels.

        Args:
            labels: with ``name`` and ``color``.
            ticked: names of those that are ticked; empty: all.
        """
        widget, before = self.widget, self._names
        self._names = [label.name for label in labels]
        widget.blockSignals(True)
        widget.clear()
        for row, label in enumerate(labels):
            swatch = qt.QPixmap(12, 12)
            swatch.fill(qt.QColor(*label.color))
            widget.addItem(label.name)
            item = widget.item(row)
            item.setIcon(qt.QIcon(swatch))
            item.setFlags(qt.Qt.ItemIsEnabled | qt.Qt.ItemIsUserCheckable)
            item.setCheckState(qt.Qt.Checked if not ticked or label.name in ticked else qt.Qt.Unchecked)
        widget.blockSignals(False)
        self.ui.labelsTools.visible = len(self._names) >= MANY
        if self._names != before:
            self.ui.labelsFilter.text = ""
        self._onFilter()
        rows = min(max(len(self._names), 1), ROWS)
        widget.setFixedHeight(widget.sizeHintForRow(0) * rows + 2 * widget.frameWidth)

    def chosen(self) -> list[str]:
        """Names of the ticked ones; empty: all."""
        ticked = self._ticked()
        return [] if len(ticked) == len(self._names) else ticked

    def isNoneTicked(self) -> bool:
        return len(self._names) > 0 and not self._ticked()

    def _ticked(self) -> list[str]:
        rows = enumerate(self._names)
        return [name for row, name in rows if self.widget.item(row).checkState() == qt.Qt.Checked]

    def _onItemChanged(self, item) -> None:
        self._changed()

    def _onFilter(self, text: str = "") -> None:
        """Shows those that are meant, by the words that the search for models knows; all, where none is."""
        text = self.ui.labelsFilter.text
        meant = set(words.structures(text, self._names))
        for row, name in enumerate(self._names):
            self.widget.setRowHidden(row, bool(text.strip()) and name not in meant)

    def _onAll(self, checked: bool = False) -> None:
        self._tick(qt.Qt.Checked)

    def _onNone(self, checked: bool = False) -> None:
        self._tick(qt.Qt.Unchecked)

    def _tick(self, state) -> None:
        """Gives all rows that are shown the same state, and tells it once."""
        self.widget.blockSignals(True)
        for row in range(len(self._names)):
            if not self.widget.isRowHidden(row):
                self.widget.item(row).setCheckState(state)
        self.widget.blockSignals(False)
        self._changed()
