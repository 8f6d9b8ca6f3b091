"""What the panel says: about a model, a run's progress, a message. Text in, rich text out; no widgets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from slicer.i18n import tr as _
from usema.metadata import ModelMetadata

from .Parameters import Status


def describeModel(metadata: ModelMetadata) -> str:
    """What a model finds, where it ends, and on which terms."""
    finds = re.split(r"(?<=\.)\s+(?=[A-Z])", metadata.description)[0]
    licence = metadata.licence
    terms = _("commercial use allowed") if licence["commercial_use"] else _("no commercial use")
    link = f'<a href="{escape(licence["url"])}">{escape(licence["name"])}</a>'
    lines = (
        escape(finds),
        f"<b>{_('Limits')}:</b> {escape(metadata.limits)}",
        f"<b>{_('Licence')}:</b> {link}, {terms}",
    )
    return "<br>".join(lines)


def aboutModel(metadata: ModelMetadata) -> str:
    """All the rest, for a tooltip."""
    lines = (
        f"{metadata.title} {metadata.version}",
        metadata.description,
        metadata.intended_use,
        _("Trained on {dataset}, {cases} cases.").format(**metadata.training),
        _("Please cite: {citation}").format(citation=metadata.citation),
    )
    return "<p>" + "</p><p>".join(map(escape, lines)) + "</p>"


def duration(seconds: float) -> str:
    """A time left, as precise as an estimate is."""
    if seconds < 90:
        return _("about {number} s").format(number=max(1, round(seconds)))
    return _("about {number} min").format(number=round(seconds / 60))


def progress(status: Status) -> str:
    """Text of the progress bar."""
    if not status.total:
        return ""
    text = _("Tile {done} of {total}").format(done=status.done, total=status.total)
    left = status.secondsLeft
    return text if left is None else _("{tile}, {time} left").format(tile=text, time=duration(left))


def message(text: str, hint: str = "", notes: Sequence[str] = ()) -> str:
    """A message, what to do about it, and what else should be known."""
    paragraphs = [f"<b>{escape(text)}</b>" if hint else escape(text), escape(hint), *map(escape, notes)]
    return "<br>".join(filter(None, paragraphs))
