"""The segments that a model makes, each with its colour, to be ticked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import qt

from .Signals import connect

ROWS = 4  # more are scrolled


class LabelsList:
    """Keeps a QListWidget.

    Args:
        widget: the list.
        ticked: called when the user has ticked or unticked one.
    """

    def __init__(self, widget, ticked: Callable[[], None]):
        self.widget = widget
        self._names: list[str] = []
        self._changed = ticked
        connect(widget, "itemChanged(QListWidgetItem*)", self._onItemChanged)

    def show(self, labels: Sequence, ticked: Sequence[str]) -> None:
        """Lists labels.

        Args:
            labels: with ``name`` and ``color``.
            ticked: names of those that are ticked; empty: all.
        """
        widget = self.widget
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
