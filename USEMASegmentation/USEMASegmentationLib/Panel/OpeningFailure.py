"""In place of a panel that cannot be opened: why."""

from __future__ import annotations

import traceback

import qt
from slicer.i18n import tr as _

from . import RunTexts


def show(layout, error: Exception) -> None:
    """To be called while the error is handled: its traceback is shown too."""
    label, details = qt.QLabel(), qt.QPlainTextEdit()
    label.wordWrap = True
    label.textFormat = qt.Qt.RichText
    label.textInteractionFlags = qt.Qt.TextSelectableByMouse
    label.text = RunTexts.message(
        _("USEMA Segmentation cannot be opened: {kind}: {error}").format(kind=type(error).__name__, error=error),
        _("Please report it, with the lines below. Until then, 3D Slicer works on without this module."),
    )
    details.readOnly = True
    details.setPlainText(traceback.format_exc())
    for widget in (label, details):
        layout.addWidget(widget)
