"""What a user is asked before a model is installed: its licence, and whether it may replace another of its version.

``install`` asks by raising ConsentNeeded, and goes on when it gets the question back as ``consent``: so what was agreed
to is what was shown, whatever happened in between. Standard library only.
"""

from __future__ import annotations

import dataclasses
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import InputError, StoreError
from ..models.bundle import METADATA_FILE, WEIGHTS_FILE, Bundle
from . import settings
from .index import Entry, Licence


@dataclass(frozen=True)
class Replacement:
    """Two models of one name and version.

    Attributes:
        what: the file of the bundle in which they differ.
        here: SHA-256 of the one on this computer.
        coming: SHA-256 of the one that would take its place.
    """

    what: str
    here: str
    coming: str


@dataclass(frozen=True)
class Question:
    """What there is to agree to; given back as ``consent``, it is the answer yes.

    Attributes:
        name, title, version: of the model.
        sha256: of what it is about: the file that an index describes, or the ``model.json`` of a file on disk.
        licence: to be accepted; None: that is not asked.
        offered_licence: what the index says instead, if it says something else; empty: nothing else.
        replaces: what would be lost; None: nothing.
    """

    name: str
    title: str
    version: str
    sha256: str
    licence: Licence | None = None
    offered_licence: str = ""
    replaces: Replacement | None = None

    @classmethod
    def from_dict(cls, values: Any) -> Question:
        """The opposite of ``dataclasses.asdict``: a question goes from one process to another as JSON.

        Raises:
            InputError: that is none.
        """
        parts = {"licence": Licence, "replaces": Replacement}
        try:
            made = {key: kind(**values[key]) for key, kind in parts.items() if values.get(key)}
            return cls(**{**values, **made})
        except (AttributeError, KeyError, TypeError) as error:
            raise InputError(f"{values!r} is no question that could have been agreed to.") from error

    def text(self) -> str:
        """The question in words, without the request to answer."""
        lines = []
        if self.licence:
            said = f" (the index says {self.offered_licence})" if self.offered_licence else ""
            terms = (
                "not for commercial use" if self.licence.open != "not stated" else "its terms are not stated clearly"
            )
            where = f": {self.licence.url}" if self.licence.url else ""
            lines.append(f"{self.title} {self.version}: licence {self.licence.name}{said}, {terms}{where}")
            lines += [self.licence.attribution] if self.licence.attribution else []
        if self.replaces:
            lines.append(
                f"{self.name} {self.version} is here with another {self.replaces.what}, which would be replaced.\n"
                f"  here:   {self.replaces.here}\n  coming: {self.replaces.coming}"
            )
        return "\n".join(lines)


class ConsentNeeded(StoreError):
    """The user has to be asked first. Nothing was changed; what was downloaded is kept."""

    code = "consent"

    def __init__(self, question: Question):
        options = ["--accept-licence"] if question.licence else []
        options += ["--replace"] if question.replaces else []
        super().__init__(
            question.text(),
            f"It is installed when somebody says yes: with {' '.join(options)} (command line), or by giving the "
            "question back as consent (scripts).",
        )
        self.question = question


def about_entry(entry: Entry, here: Bundle | None) -> Question | None:
    """What to ask before an index's entry is downloaded; None: nothing.

    Args:
        here: the whole model of the same name and version on this computer; None: there is none.
    """
    coming, replaces = entry.file.metadata_sha256, None
    if here is not None and coming not in ("", here.metadata_sha256):
        replaces = Replacement(METADATA_FILE, here.metadata_sha256, coming)
    return _asked(Question(entry.name, entry.title, entry.version, entry.file.sha256, entry.licence, "", replaces))


def about_bundle(bundle: Bundle, replaces: Replacement | None, entry: Entry | None = None) -> Question | None:
    """What to ask before a bundle on disk is installed, by its own licence; None: nothing.

    Args:
        replaces: what it takes the place of.
        entry: what it was downloaded by, which may have told another licence.
    """
    metadata, licence = bundle.metadata, Licence(**bundle.metadata.licence)
    sha256 = entry.file.sha256 if entry else bundle.metadata_sha256
    offered = entry.licence.name if entry and entry.licence != licence else ""
    return _asked(Question(metadata.name, metadata.title, metadata.version, sha256, licence, offered, replaces))


def replacement(here: Bundle | None, coming: Bundle) -> Replacement | None:
    """What is lost if a bundle takes the place of the one that is here; None: nothing."""
    if here is None or here.metadata == coming.metadata:
        return None
    weights = here.metadata.weights["sha256"], coming.metadata.weights["sha256"]
    if weights[0] != weights[1]:
        return Replacement(WEIGHTS_FILE, *weights)
    return Replacement(METADATA_FILE, here.metadata_sha256, coming.metadata_sha256)


def check(question: Question | None, consent: Question | None) -> None:
    """Raises ConsentNeeded where a question was not asked as it stands now.

    Args:
        question: what has to be agreed to; None: nothing.
        consent: what was shown to the user, who said yes; None: nobody was asked.
    """
    if question is None:
        return
    agreed = consent is not None and (
        (consent.name, consent.version, consent.sha256) == (question.name, question.version, question.sha256)
        and question.licence in (None, consent.licence)
        and question.replaces in (None, consent.replaces)
    )
    if not agreed:
        raise ConsentNeeded(question)


def as_dict(question: Question | None) -> dict[str, Any] | None:
    """For JSON."""
    return asdict(question) if question else None


def _asked(question: Question) -> Question | None:
    """Without a licence that nobody has to be asked about."""
    if settings.read().accepts(question):
        question = dataclasses.replace(question, licence=None, offered_licence="")
    return question if question.licence or question.replaces else None
