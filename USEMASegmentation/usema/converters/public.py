"""Models that others publish: who, where, which licence, and how USEMA runs them. Standard library only.

The facts stand in ``public_models.json``: a publisher's new release is another address there.
``Testing/public_models.py`` compares them with what publishers state, and tests hold every entry to what a user has to
know. Weights are nowhere in USEMA. A model is downloaded from its own publisher and converted on the user's computer.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class PublicFile:
    """A publisher's file.

    Attributes:
        url: at a fixed version.
        size: bytes; None: not known before the download.
        sha256: as somebody published it; None: the first copy that is downloaded counts, and a later one has to be
            like it.
    """

    url: str
    size: int | None
    sha256: str | None


@dataclass(frozen=True)
class PublicModel:
    """One model of the shelf.

    Attributes:
        name: how commands and folders call it.
        title: how people call it.
        publisher: who made it.
        publisher_url: where that can be read.
        citation: how to cite it.
        licence: as ``licence`` in ``model.json``.
        modality: DICOM's.
        region: of the body: "head", "chest", ...
        channels: names of its input volumes.
        labels: names of its structures as people read them, in its publisher's order.
        raw_labels: the same as the publisher writes them.
        files: all that is to be downloaded.
        needs: names of models that must be here, because they find the region.
        recipe: "format" and what that format's converter wants to know.
        cpu_seconds: of one volume on one thread, as measured by the source of these facts; None: not measured.
        publisher_seconds: what its publisher measured on a workstation that is not described; None: not told.
        note: a sentence for the user; may be empty.
        tried: whether USEMA was run on its publisher's own weights; what could not be had while it was written was
            tested on stand-ins.
    """

    name: str
    title: str
    publisher: str
    publisher_url: str
    citation: str
    licence: dict[str, Any]
    modality: str
    region: str
    channels: tuple[str, ...]
    labels: tuple[str, ...]
    raw_labels: tuple[str, ...]
    files: tuple[PublicFile, ...]
    needs: tuple[str, ...]
    recipe: dict[str, Any]
    cpu_seconds: float | None
    note: str
    tried: bool = False
    publisher_seconds: float | None = None

    @property
    def size(self) -> int:
        """Bytes to download, as far as they are known."""
        return sum(file.size or 0 for file in self.files)


@cache
def public_models() -> tuple[PublicModel, ...]:
    """All of them, in the order in which they are offered."""
    document = json.loads(Path(__file__).with_name("public_models.json").read_text(encoding="utf-8"))
    return tuple(_model(entry, document["publishers"][entry["publisher"]]) for entry in document["models"])


def shown(name: str) -> str:
    """How a person reads a label's name: "kidney_right" and "Right Kidney" are "Right kidney"."""
    words = [word[0].lower() + word[1:] if word[1:].islower() else word for word in re.split(r"[\s_]+", name) if word]
    side = next((word for word in words if word.lower() in ("left", "right")), None)
    if side is not None:
        words.remove(side)
        words.insert(0, side.lower())
    text = " ".join(words)
    return text[:1].upper() + text[1:]


def _model(entry: dict[str, Any], publisher: dict[str, str]) -> PublicModel:
    licence = dict(entry["licence"])
    stated = licence.pop("stated", "")
    return PublicModel(
        name=entry["name"],
        title=entry["title"],
        publisher=publisher["name"],
        publisher_url=publisher["url"],
        citation=publisher["citation"],
        licence={**licence, "attribution": publisher["name"], "stated_at": stated},
        modality=entry["modality"],
        region=entry["region"],
        channels=tuple(entry["channels"]),
        labels=tuple(shown(name) for name in entry["labels"]),
        raw_labels=tuple(entry["labels"]),
        files=tuple(PublicFile(file["url"], file["bytes"], file["sha256"]) for file in entry["files"]),
        needs=tuple(entry["needs"]),
        recipe=entry["recipe"],
        cpu_seconds=entry["cpu_seconds"],
        note=entry["note"],
        tried=publisher.get("tried", False),
        publisher_seconds=entry.get("publisher_seconds"),
    )
