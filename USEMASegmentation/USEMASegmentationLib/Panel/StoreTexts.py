"""What the panel says about models and the store: choices, questions, progress, results. Text in, rich text out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import urlsplit

from slicer.i18n import tr as _
from usema.models.card_files import CARD_FILE
from usema.store.consent import Question
from usema.store.finding import Found, public_of
from usema.store.index import Entry, Licence, is_remote
from usema.store.indexes import Source
from usema.store.library import AVAILABLE, BUNDLED, INSTALLED, UPDATE, KnownModel

from ..ModelStore import ModelHere, StoreStatus
from . import ShelfTexts
from .RunTexts import asHtml, duration, message
from .ShelfTexts import megabytes


def choice(model: KnownModel) -> str:
    """A model with its state, to be chosen in a list."""
    states = {
        BUNDLED: _("bundled"),
        INSTALLED: _("installed"),
        UPDATE: _("update {version}").format(version=model.entry.version if model.entry else ""),
        AVAILABLE: _("{size}, not downloaded").format(size=megabytes(model.size))
        if model.size
        else _("not downloaded"),
    }
    return f"{model.title} – {_('cannot be read') if model.problem else states[model.state]}"


def findsOf(model: KnownModel) -> str:
    """What a model finds, or why it cannot: a line or two, as plain text."""
    if model.problem:
        return f"{model.problem} {_howToRepair(model)}"
    public = public_of(model)
    if public is not None:
        return ShelfTexts.finds(Found(model, public=public))
    description = model.bundle.metadata.description if model.bundle else model.entry.description
    finds = re.split(r"(?<=\.)\s+(?=[A-Z])", description)[0]
    return f"{finds} {model.why_not}" if model.why_not else finds


def termsOf(model: KnownModel) -> str:
    """Where a model ends, on which terms it is given, its version, and where it comes from."""
    if model.problem:
        return ""
    link = escape(model.licence.name)
    if model.licence.url:
        link = f'<a href="{escape(model.licence.url)}">{link}</a>'
    lines = []
    if model.bundle:
        lines.append(f"<b>{_('Limits')}:</b> {escape(model.bundle.metadata.limits)}")
    lines.append(f"<b>{_('Licence')}:</b> {link}, {ShelfTexts.terms(model.licence)}")
    lines += ShelfTexts.origin(Found(model, public=public_of(model)))
    lines.append(f"<b>{_('Version')}:</b> {escape(describeState(model))}")
    if model.bundle and (card := Path(model.bundle.path).absolute() / CARD_FILE).is_file():
        lines.append(f'<a href="{escape(card.as_uri())}">{_("Model card")}</a>')
    if model.state in (AVAILABLE, UPDATE):
        lines.append(f"<b>{_('Offered by')}:</b> {escape(model.entry.source)}")
        if model.others:
            others = ", ".join(f"{one.source} ({one.version})" for one in model.others)
            lines.append(_("Not used, because an earlier list offers it too: {others}").format(others=escape(others)))
    return "<br>".join(lines)


def _howToRepair(model: KnownModel) -> str:
    if model.state == BUNDLED:
        return _("It came with USEMA: install USEMA again.")
    return _("Under Models, import its file again, or delete it and download it again.")


def goneModel(name: str, chosen: KnownModel | None) -> tuple[str, str]:
    """(message, hint) where the model that was chosen is not known here."""
    text = _("The model '{name}' is not on this computer, and no list of models here offers it.").format(name=name)
    hint = _("To have it back, import its file, or add the list that offers it, under Models.")
    if chosen is None:
        return text, hint
    return text, _("'{title}' was chosen in its place. {hint}").format(title=chosen.title, hint=hint)


def describeState(model: KnownModel) -> str:
    """Which version it is, and whether it is here: a few words, as plain text."""
    if model.problem:
        return _("cannot be read")
    texts = {
        BUNDLED: _("{version}, came with USEMA"),
        INSTALLED: _("{version}, on this computer"),
        UPDATE: _("{version}; there is {newer}"),
        AVAILABLE: _("{version}, not downloaded yet"),
    }
    newer = model.entry.version if model.entry else ""
    return texts[model.state].format(version=model.version, newer=newer)


def stateHere(model: ModelHere) -> str:
    """The state of a version of a model, in a table."""
    if model.problem:
        return _("cannot be read")
    return _("bundled") if model.bundled else _("installed")


def folder(path: Path | None, size: int) -> str:
    """Where models are kept."""
    if path is None:
        return ""
    link = f'<a href="{escape(path.as_uri())}">{escape(str(path))}</a>'
    return _("Downloaded models: {size} in {folder}").format(size=megabytes(size), folder=link)


def problems(texts: Sequence[str]) -> str:
    """What is wrong with the settings or with lists of models."""
    return "<br>".join(map(escape, texts))


def source(one: Source, title: str) -> str:
    """A list of models, by the title that tells it from others, and how old it is."""
    return f"{title} – {one.age}"


def downloadQuestion(
    entry: Entry, found: Found, question: Question | None, packages: Sequence[str] = (), thenSegments: bool = False
) -> str:
    """What is asked before the first byte is fetched.

    Args:
        found: what is known of it.
        question: what a yes also agrees to; None: nothing.
        packages: what has to be installed first.
        thenSegments: whether the volume is segmented when the model is here.
    """
    sources = _(" or ").join(dict.fromkeys(host(url) for url in entry.file.urls))
    what = _("<b>Download {title} {version}?</b>")
    if found.public is not None:  # the version is that of its conversion, and says nothing
        what = _("<b>Download {title}, and convert it here?</b>")
    size = ShelfTexts.sizeOf(found) if found.public is not None else megabytes(entry.file.size)
    lines = [
        what.format(title=escape(entry.title), version=entry.version),
        _("{size}, from {sources}").format(size=size, sources=escape(sources)),
        *([ShelfTexts.details(found)] if found.public is not None else [_licenceLine(entry.licence)]),
    ]
    lines += _agreements(question)
    if packages:
        lines.append(
            _("What downloading needs is installed into 3D Slicer's Python first, from pypi.org: {packages}.").format(
                packages=escape(", ".join(packages))
            )
        )
    lines.append(_("Nothing about you or your images is sent: only the request for the file."))
    if thenSegments:
        lines.append(_("Then the volume is segmented."))
    return "<p>" + "</p><p>".join(lines) + "</p>"


def deleteQuestion(model: ModelHere) -> str:
    """What is asked before a model is deleted."""
    text = _("Delete {title} {version} ({size}) from this computer?")
    return asHtml(text.format(title=model.title, version=model.version, size=megabytes(model.size)))


def importQuestion(question: Question) -> str:
    """What is asked before a model is imported whose licence has to be accepted, or that replaces another one."""
    lines = [_("<b>Import {title} {version}?</b>").format(title=escape(question.title), version=question.version)]
    if question.licence:
        lines.append(_licenceLine(question.licence))
    return "<p>" + "</p><p>".join([*lines, *_agreements(question)]) + "</p>"


def _agreements(question: Question | None) -> list[str]:
    lines = []
    if question is not None and question.licence:
        lines.append(_("<b>With OK you accept this licence.</b>"))
    if question is not None and question.replaces:
        lines.append(
            _("<b>With OK it replaces another model of this name and version.</b> Of {what}, SHA-256 here: {here}, of "
              "the one that comes: {coming}").format(
                what=escape(question.replaces.what), here=question.replaces.here, coming=question.replaces.coming
            )
        )  # fmt: skip
    return lines


def _licenceLine(licence: Licence) -> str:
    where = f" ({escape(licence.url)})" if licence.url else ""
    return _("Licence: {name}, {terms}").format(name=escape(licence.name), terms=ShelfTexts.terms(licence)) + where


def host(place: str) -> str:
    """Where an address leads, in short; a path as it is."""
    return urlsplit(place).hostname or place if is_remote(place) else place


def aboutModel(model: KnownModel) -> str:
    """All the rest, for a tooltip."""
    says = model.bundle.metadata if model.bundle else model.entry
    if says is None:
        return ""
    lines = [f"{says.title} {says.version}", says.description]
    if model.bundle:
        lines += [says.intended_use, _("Trained on {dataset}, {cases} cases.").format(**says.training)]
    lines.append(_("Please cite: {citation}").format(citation=says.citation))
    return "<p>" + "</p><p>".join(map(escape, lines)) + "</p>"


def taskProgress(status: StoreStatus) -> str:
    """Text of the progress bar of a download or an import: 34 of 120 MB, 2.1 MB/s, about 40 s left."""
    if not status.total:
        return ""
    done, total = megabytes(status.done), megabytes(status.total)
    if done.split()[1] == total.split()[1]:
        done = done.split()[0]
    text = _("{done} of {total}").format(done=done, total=total)
    if status.bytesPerSecond:
        slow = status.bytesPerSecond < 1e5
        speed = _("{number} kB").format(number=f"{status.bytesPerSecond / 1e3:.0f}") if slow else None
        text = _("{progress}, {speed}/s").format(progress=text, speed=speed or megabytes(status.bytesPerSecond))
    if status.secondsLeft is not None:
        text = _("{progress}, {time} left").format(progress=text, time=duration(status.secondsLeft))
    return text


def taskStep(status: StoreStatus) -> str:
    """What a task is doing."""
    texts = {
        "download": _("Downloading {title}"),
        "import": _("Importing {title}"),
        "refresh": _("Looking for new models"),
        "remove": _("Deleting {title}"),
        "verify": _("Verifying {title}"),
    }
    return escape(status.message or texts[status.task].format(title=status.title))


def taskResult(status: StoreStatus) -> str:
    """How a task ended."""
    if status.state != "done":
        return message(status.message, status.hint)
    texts = {
        "download": _("{title} is on this computer now."),
        "import": _("{title} is on this computer now."),
        "refresh": _("The lists of models are up to date."),
        "remove": _("{title} was deleted."),
        "verify": _("{title} is as it was made: its checksum is right."),
    }
    if status.warnings and status.task == "refresh":
        return message(_("Not all lists of models could be read."), notes=status.warnings)
    return message(texts[status.task].format(title=status.title), notes=status.warnings)


def anotherFile() -> str:
    """The choice of none of them."""
    return _("Choose another file")


def severalModels(path: str, count: int) -> str:
    """What to do with a file that holds more than one."""
    text = _("{file} holds {count} models: choose one above, then click the button again.")
    return escape(text.format(file=Path(path).name, count=count))
