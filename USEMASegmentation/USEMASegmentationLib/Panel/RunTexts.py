"""What the panel says: a run's progress, a message. Text in, rich text out; no widgets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape, unescape

from slicer.i18n import tr as _

from ..Parameters import Status, TaskStatus
from ..Scene.EditMask import Corrections
from ..Scene.Summary import volumeText


def duration(seconds: float) -> str:
    """A time left, as precise as an estimate is."""
    if seconds < 90:
        return _("about {number} s").format(number=max(1, round(seconds)))
    return _("about {number} min").format(number=round(seconds / 60))


def speed(name: str, seconds: float | None, difference: float | None = None) -> str:
    """A speed; how long the last volume takes with it on this computer, and its mean Dice less that of an exact run,
    as the model's card has it. None: not known."""
    said = [] if seconds is None else [duration(seconds)]
    if difference is not None:
        same = abs(difference) < 5e-5
        said.append(_("same Dice") if same else _("Dice {difference}").format(difference=f"{difference:+.4f}"))
    return _("{speed} ({known})").format(speed=name, known=", ".join(said)) if said else name


def progress(status: Status) -> str:
    """Text of the progress bar."""
    if not status.total:
        return ""
    text = _("Tile {done} of {total}").format(done=status.done, total=status.total)
    if status.frames:
        text = _("Frame {frame} of {frames}").format(frame=status.frame, frames=status.frames)
    left = status.secondsLeft
    return text if left is None else _("{tile}, {time} left").format(tile=text, time=duration(left))


def steps(status: TaskStatus) -> int:
    """How many steps the progress bar has; 0, with which it only moves, where nothing is known, or where the only step
    is not done: it would stand still until the end."""
    return 0 if status.total == 1 and not status.done else status.total


def asHtml(text: str) -> str:
    """Plain text for where Qt guesses what it is given, such as a tooltip: no name may become markup.

    What is short and has no sign of a tag stays as it is; the rest is marked as rich text, which Qt wraps as well.
    """
    if "<" not in text and len(text) < 80:
        return text
    return f"<qt>{'<br>'.join(map(escape, text.splitlines()))}</qt>"


def caution(warnings: Sequence[str]) -> str:
    """What speaks against a volume, in a line; the rest of it stands in a tooltip."""
    if not warnings:
        return ""
    first = warnings[0]
    if len(first) > 80:
        first = re.split(r"(?<!\d)[:;.] ", first)[0].rstrip(".") + " …"
    if len(warnings) == 1:
        return first
    return _("{first} And {number} more.").format(first=first, number=len(warnings) - 1)


def overwrites(corrections: Corrections) -> str:
    """What else a result would replace, if the user wants it."""
    if corrections.millilitres is None:
        return _("also the {number} pixels that you corrected").format(number=f"{corrections.voxels:,}")
    text = _("also the {number} voxels that you corrected ({volume})")
    return text.format(number=f"{corrections.voxels:,}", volume=volumeText(corrections.millilitres))


def message(text: str, hint: str = "", notes: Sequence[str] = ()) -> str:
    """A message, what to do about it, and what else should be known."""
    paragraphs = [f"<b>{escape(text)}</b>" if hint else escape(text), escape(hint), *map(escape, notes)]
    # a number and its unit stay in one line
    return re.sub(r"(?<=\d) (?=(?:ml|mm|s)\b)", "&nbsp;", "<br>".join(filter(None, paragraphs)))


def plain(text: str) -> str:
    """A message without its markup, for a file."""
    return unescape(re.sub("<[^>]+>", " ", text)).replace("\N{NO-BREAK SPACE}", " ")
