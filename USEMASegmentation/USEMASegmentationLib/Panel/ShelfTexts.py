"""What the panel says of models that a search found: a row each, and all of one. Data in, text out; no widgets."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from slicer.i18n import tr as _
from usema.converters import public_card
from usema.inference.memory import free_memory
from usema.store import expected
from usema.store.finding import Found
from usema.store.index import Licence
from usema.store.library import BUNDLED

_NAMED = 4  # structures in a row
_NOT_STATED = "not stated"
_INDENT = "    "  # of what stands below a title


def megabytes(size: float) -> str:
    """Bytes in words: 24 kB, 3.5 MB, 120 MB, 1.2 GB."""
    if size < 5e4:
        return _("{number} kB").format(number=f"{size / 1e3:.0f}")
    if size >= 1e9:
        return _("{number} GB").format(number=f"{size / 1e9:.1f}")
    number = size / 1e6
    return _("{number} MB").format(number=f"{number:.0f}" if number >= 10 else f"{number:.1f}")


def row(found: Found) -> str:
    """A model in the list: lines of plain text."""
    title = found.model.title
    if found.is_here:
        title = f"{title} – {_('bundled') if found.model.state == BUNDLED else _('installed')}"
    return f"\n{_INDENT}".join([title, finds(found), _facts(found), _maker(found)])


def finds(found: Found) -> str:
    """What it finds: the structures that were searched for, else how many and the first of all."""
    names, count = found.structures, len(found.model.labels)
    if names:
        text = _listed(names)
        more = _("{names} (of {number} structures)").format(names=text, number=count)
        return more if count > len(names) else text
    labels = [label.name for label in found.model.labels]
    if count <= _NAMED:
        return _listed(labels)
    return _("{number} structures: {names}").format(number=count, names=_listed(labels, more=False))


def _listed(names: Sequence[str], more: bool = True) -> str:
    text = ", ".join(names[:_NAMED])
    if len(names) <= _NAMED:
        return text
    if not more:
        return f"{text}, …"
    return _("{names} and {number} more").format(names=text, number=len(names) - _NAMED)


def _facts(found: Found) -> str:
    where = found.model.modality
    if found.public is not None:
        where = f"{where}, {found.public.model.region}"
    parts = [
        where,
        "" if found.is_here else sizeOf(found),
        time(found),
        _licence(found.model.licence),
    ]
    return " · ".join(filter(None, parts))


def time(found: Found) -> str:
    """What a run takes on this computer, as far as it is known."""
    words = expected.in_words(found.takes)
    return _("{time} here").format(time=words) if words and found.takes.seconds is not None else words


def memory(found: Found) -> str:
    """What a run needs of this computer's memory, and what is free where that is less."""
    words = expected.memory_in_words(found.takes, free_memory(in_a_new_process=True))
    if not words:
        return ""
    text = _("Needs {memory}.") if found.volume is not None else _("With a usual volume it needs {memory}.")
    return text.format(memory=words)


def memoryIsShort(found: Found) -> bool:
    """Whether a run certainly needs more memory than is free."""
    free = free_memory(in_a_new_process=True)
    return None not in (free, found.takes.memory) and free < found.takes.memory


def _licence(licence: Licence | None) -> str:
    """As its publisher states it."""
    if licence is None:
        return ""
    return _("licence: {name}").format(name=licence.name) if licence.open == _NOT_STATED else licence.name


def sizeOf(found: Found) -> str:
    """How much comes down, as far as it is known."""
    if not found.size:
        return _("its files are here") if found.is_size_known else _("size not stated")
    size = megabytes(found.size)
    return size if found.is_size_known else _("more than {size}").format(size=size)


def _maker(found: Found) -> str:
    if found.public is None:
        return found.model.source
    model = found.public.model
    publisher = model.publisher.split(",")[0]
    return publisher if model.tried else f"{publisher} · {notTried()}"


def notTried() -> str:
    """Of models that were tested on stand-ins alone."""
    return _("not yet run on the publisher's weights")


def terms(licence: Licence) -> str:
    """What a licence allows, in a few words."""
    if licence.open == _NOT_STATED:
        return _("its terms are not stated clearly")
    return _("commercial use allowed") if licence.commercial_use else _("no commercial use")


def details(found: Found) -> str:
    """What a user should know before the model is chosen, as rich text."""
    if found.public is None:
        return ""
    model, lines = found.public.model, []
    if model.note:
        lines.append(escape(model.note))
    if memory(found):
        lines.append(escape(memory(found)))
    if found.needs:
        needs = _("Comes with what it needs: {titles}.").format(titles=", ".join(found.needs))
        lines.append(escape(needs))
    if not found.is_here and any(file.sha256 is None for file in model.files):
        lines.append(_("Its publisher states no checksum: the first copy counts, and a later one has to be like it."))
    if not model.tried:
        lines.append(
            _("How USEMA runs it was tested on stand-ins, not yet on the publisher's weights: check results twice.")
        )
    made = _('By <a href="{url}">{publisher}</a>, licence <a href="{licence}">{name}</a>, {terms}.').format(
        url=escape(model.publisher_url),
        publisher=escape(model.publisher),
        licence=escape(found.model.licence.url),
        name=escape(found.model.licence.name),
        terms=terms(found.model.licence),
    )
    return "<br>".join([*lines, made])


def card(found: Found) -> str:
    """The model card of a public model, as rich text; empty for another."""
    if found.public is None:
        return ""
    rows = public_card.facts(found.public.model)
    return "<qt>" + "<br>".join(f"<b>{escape(what)}:</b> {escape(sentence)}" for what, sentence in rows) + "</qt>"


def origin(found: Found) -> list[str]:
    """Of a public model: that its publisher made it, where its licence stands, how to cite it; lines of rich text."""
    if found.public is None:
        return []
    model = found.public.model
    publisher = f'<a href="{escape(model.publisher_url)}">{escape(model.publisher)}</a>'
    return [
        _("<b>Made by:</b> {publisher}, not by USEMA").format(publisher=publisher),
        _("<b>Licence stated in:</b> {place}").format(place=escape(model.licence.get("stated_at", ""))),
        _("<b>Please cite:</b> {citation}").format(citation=escape(model.citation)),
    ]


def count(found: Sequence[Found], text: str) -> str:
    """How many were found, or what to do."""
    if found:
        return _("1 model") if len(found) == 1 else _("{number} models").format(number=len(found))
    if text.strip():
        return _("No model finds '{text}'. Try another word, or any modality and region.").format(text=text.strip())
    return _("No model is for this modality and region.")


def only(names: Sequence[str]) -> str:
    """The button that takes the model for what was searched for alone."""
    if len(names) == 1:
        return _("Only {name}").format(name=names[0])
    return _("Only these {number}").format(number=len(names))


def onlyWhat(names: Sequence[str]) -> str:
    """What that button does."""
    return _("Use this model for nothing but {names}: the other segments are not ticked.").format(
        names=", ".join(names)
    )
