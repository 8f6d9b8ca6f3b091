"""All that the panel says of a run: the button Segment, reasons, progress, result, failure. No Qt of its own."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Sequence
from contextlib import contextmanager

from slicer.i18n import tr as _
from usema.errors import UsemaError

from ..Parameters import Readiness, Status
from . import RunTexts
from .RunTexts import asHtml
from .SecondClick import SecondClick


class RunSection:
    """Shows what the logic says.

    Args:
        ui: the panel's widgets.
        stopAll: ends whatever runs; called after an error of our own.
    """

    def __init__(self, ui, stopAll: Callable[[], None]):
        self.ui = ui
        self.stopAll = stopAll
        self.second = SecondClick()
        self.notes: list[str] = []  # what the message says beside
        self.say("")

    def update(self, status: Status, busy: bool, readiness: Readiness) -> None:
        """What a click on the button would do, why it cannot, and how far a run is."""
        ui = self.ui
        self.second.update(busy)
        ui.segmentButton.text = _("Cancel") if busy else _("Segment")
        ui.segmentButton.enabled = readiness.ready and status.state != "cancelling"
        ui.segmentButton.toolTip = asHtml(
            readiness.reason or (_("Stop this run.") if busy else _("Segment the volume."))
        )
        # once a run has finished, its warnings stand in its message
        warnings = status.warnings if busy else [one for one in readiness.warnings if one not in self.notes]
        reason = status.message if busy else readiness.reason
        ui.reasonLabel.text = "\n".join(filter(None, [reason, RunTexts.caution(warnings)]))
        ui.reasonLabel.toolTip = asHtml("\n".join(warnings))
        ui.reasonLabel.visible = bool(ui.reasonLabel.text)
        ui.progressBar.visible = busy
        ui.progressBar.setRange(0, RunTexts.steps(status))
        ui.progressBar.value = status.done
        ui.progressBar.format = RunTexts.progress(status)

    def say(self, text: str, hint: str = "", detail: str = "", notes: Sequence[str] = ()) -> None:
        """A message, until the next one.

        Args:
            detail: such as a log, shown when the user asks for it.
            notes: what else should be known.
        """
        self.notes = [*notes]
        self.ui.messageLabel.text = RunTexts.message(text, hint, notes)
        self.ui.messageLabel.visible = bool(text)
        self.ui.detailsText.setPlainText(detail)
        self.ui.detailsButton.checked = False
        self.ui.detailsText.visible = False
        self.ui.detailsButton.visible = bool(detail)

    @contextmanager
    def errorsShown(self):
        """Errors inside become messages."""
        try:
            yield
        except UsemaError as error:
            self.say(error.message, error.hint)
        except Exception:
            # A defect. Out of a timer it would come back ten times a second, and the button would stay Cancel.
            self.stopAll()
            logging.exception("USEMA stopped")
            hint = _("Please report it, with the details and what Copy diagnostics gives.")
            self.say(_("USEMA stopped because of an error of its own."), hint, traceback.format_exc())
