"""The search for a model by what it segments, folded away until it is asked for. Knows the widgets, but no Qt."""

from __future__ import annotations

from collections.abc import Callable

from slicer.i18n import tr as _
from usema.store import finding

from ..ModelStore import ModelStore
from . import ShelfTexts
from .RunTexts import asHtml
from .Signals import connect

_MODALITIES = ("CT", "MR")


class ShelfSection:
    """Search field, filters and a list of what was found.

    Args:
        ui: the panel's widgets.
        store: knows the models.
        chosen: called with the name of the model that the user takes, and the structures wanted; none: all.
    """

    def __init__(self, ui, store: ModelStore, chosen: Callable[[str, list[str]], None]):
        self.ui = ui
        self.store = store
        self.chosen = chosen
        self.found: list[finding.Found] = []
        self._preset = ""  # the modality of the volume, as it was last taken over
        self._volume: finding.Measures | None = None
        ui.shelfModality.addItem(_("any modality"), "")
        for modality in _MODALITIES:
            ui.shelfModality.addItem(modality, modality)
        ui.shelfRegion.addItem(_("any region"), "")
        for region in finding.regions():
            ui.shelfRegion.addItem(region, region)
        ui.shelfFrame.visible = False
        connect(ui.shelfButton, "toggled(bool)", self.onToggled)
        connect(ui.shelfEdit, "textChanged(QString)", self.fill)
        connect(ui.shelfModality, "currentIndexChanged(int)", self.fill)
        connect(ui.shelfRegion, "currentIndexChanged(int)", self.fill)
        connect(ui.shelfList, "currentRowChanged(int)", self.onRow)
        connect(ui.shelfList, "itemActivated(QListWidgetItem*)", self.onUse)
        connect(ui.useButton, "clicked(bool)", self.onUse)
        connect(ui.onlyButton, "clicked(bool)", self.onOnly)

    def preset(self, modality: str, volume: finding.Measures | None) -> None:
        """Narrows the search to the modality of another volume, which the user may widen again; time and memory are
        of that volume."""
        if volume != self._volume:
            self._volume = volume
            self.fill()
        if modality in _MODALITIES and modality != self._preset:
            self.ui.shelfModality.setCurrentIndex(self.ui.shelfModality.findData(modality))
        self._preset = modality

    def fill(self, *_ignored) -> None:
        """Searches again; nothing, while the search is folded away."""
        ui = self.ui
        if not ui.shelfButton.checked:
            return
        text = ui.shelfEdit.text
        self.found = self.store.search(text, ui.shelfModality.currentData, ui.shelfRegion.currentData, self._volume)
        ui.shelfList.blockSignals(True)
        ui.shelfList.clear()
        for row, found in enumerate(self.found):
            ui.shelfList.addItem(ShelfTexts.row(found))
            ui.shelfList.item(row).setToolTip(asHtml(", ".join(label.name for label in found.model.labels)))
        ui.shelfList.setCurrentRow(0 if self.found else -1)
        ui.shelfList.blockSignals(False)
        ui.shelfCountLabel.text = ShelfTexts.count(self.found, text)
        self.onRow(ui.shelfList.currentRow)

    def onToggled(self, shown: bool) -> None:
        self.ui.shelfFrame.visible = shown
        if shown:
            self.fill()
            self.ui.shelfEdit.setFocus()

    def onRow(self, row: int) -> None:
        """All about the one that is marked, and what can be done with it."""
        ui, found = self.ui, self._marked()
        ui.shelfDetailsLabel.text = ShelfTexts.details(found) if found else ""
        ui.shelfDetailsLabel.toolTip = ShelfTexts.card(found) if found else ""
        ui.shelfDetailsLabel.visible = bool(ui.shelfDetailsLabel.text)
        ui.useButton.enabled = found is not None
        some = found is not None and 0 < len(found.structures) < len(found.model.labels)
        ui.onlyButton.visible = some
        if some:
            ui.onlyButton.text = ShelfTexts.only(found.structures)
            ui.onlyButton.toolTip = asHtml(ShelfTexts.onlyWhat(found.structures))

    def onUse(self, *_ignored) -> None:
        self._take([])

    def onOnly(self, checked: bool = False) -> None:
        self._take(list(self._marked().structures))

    def _take(self, labels: list[str]) -> None:
        found = self._marked()
        if found is not None:
            self.ui.shelfButton.checked = False
            self.chosen(found.model.name, labels)

    def _marked(self) -> finding.Found | None:
        row = self.ui.shelfList.currentRow
        return self.found[row] if 0 <= row < len(self.found) else None
