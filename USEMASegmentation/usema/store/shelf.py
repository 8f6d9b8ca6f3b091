"""The shelf: models that others publish, as entries that are installed like any other. Standard library only.

What is known of them stands in ``usema.converters.public_models.json``; no index has to be added for it, and none of
them is downloaded without being asked for.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from functools import cache

from ..converters.public import PublicModel, public_models
from ..converters.public_labels import labels_of
from . import words
from .index import Entry, EntryFile, EntryLabel, Licence

SOURCE = "public"  # what the library calls where they come from
VERSION = "1.0.0"  # of what the converters make; a publisher's own version stands in the address of its file


@dataclass(frozen=True)
class PublicEntry(Entry):
    """A model of the shelf.

    Attributes:
        model: what is known of it.
    """

    model: PublicModel | None = None


@cache
def entries() -> tuple[PublicEntry, ...]:
    """All of them, in the order in which they are offered; those whose licence is known not to be open are left out."""
    return tuple(_entry(model) for model in public_models() if model.licence.get("open") != "no")


def find(name: str) -> PublicEntry | None:
    """The one of that name."""
    return next((entry for entry in entries() if entry.name == name), None)


def search(text: str = "", modality: str = "", region: str = "") -> list[PublicEntry]:
    """Those that a person means, the best first: whose structures hold all words, then whose titles do.

    Args:
        text: words such as "left adrenal", in English or German; empty: all.
        modality: DICOM's; empty: any.
        region: of the body, as entries have it; empty: any.
    """
    found = []
    for place, entry in enumerate(entries()):
        model = entry.model
        if modality.upper() not in ("", model.modality) or region.lower() not in ("", model.region):
            continue
        rank = words.rank(text, f"{model.title} {model.region} {model.name}", model.labels)
        if rank is not None:
            found.append((rank, place, entry))
    return [entry for _, _, entry in sorted(found, key=lambda one: one[:2])]


def needed(entry: PublicEntry, here: Container[str]) -> list[PublicEntry]:
    """What is installed with an entry: the models that it needs and that are not here, and itself, last."""
    found: dict[str, PublicEntry] = {}
    for name in entry.model.needs:
        if name not in here:
            found.update((one.name, one) for one in needed(find(name), here))
    return [*found.values(), entry]


def _entry(model: PublicModel) -> PublicEntry:
    return PublicEntry(
        name=model.name,
        title=model.title,
        description=f"By {model.publisher}. {model.note}".strip(),
        version=VERSION,
        modality=model.modality,
        anatomy=model.region.capitalize(),
        labels=tuple(EntryLabel(label["name"], tuple(label["color"])) for label in labels_of(model)),
        file=EntryFile(tuple(file.url for file in model.files), model.size, model.files[0].sha256 or ""),
        licence=Licence(**model.licence),
        citation=model.citation,
        minimum_engine="0.0.1",
        metrics={},
        source=SOURCE,
        model=model,
    )
