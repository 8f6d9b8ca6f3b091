"""In place of an empty panel: why it is empty."""

from __future__ import annotations

import logging
import traceback

import qt
from slicer.i18n import tr as _

from . import RunTexts


def showFailure(layout, error: Exception) -> None:
    """A sentence and, below it, where it happened, into a layout; to be called while the error is handled."""
    logging.exception("USEMA Segmentation cannot be opened")
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
