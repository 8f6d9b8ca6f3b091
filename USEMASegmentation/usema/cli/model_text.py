"""What `usema models show` and `usema models publish` say of a model: about a screen; --json says the rest."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

_WIDTH = 100
_MOST_LINES = 3  # of one text
_MOST_LABELS = 12
_MOST_FIGURES = 6


def of_bundle(document: Mapping[str, Any], sha256: str) -> str:
    """A bundle, by its ``model.json`` and the hash of that."""
    training, size = document["training"], document["weights"]["bytes"]
    networks = [part["architecture"]["name"] for part in document.get("parts", [document])]
    told = (f"{training['cases']} cases" if training["cases"] else "", training["date"])
    rows = [
        *_start(document, size),
        ("intended use", document["intended_use"]),
        ("limits", document["limits"]),
        ("network", _some(networks, _MOST_LABELS)),
        ("trained on", ", ".join(filter(None, [training["dataset"], *told]))),
        *_end(document),
        ("weights", document["weights"]["sha256"]),
        ("model.json", sha256),
    ]
    return _text(rows)


def of_entry(document: Mapping[str, Any]) -> str:
    """An entry of an index, as it stands in ``models.json``."""
    file = document["file"]
    rows = [*_start(document, file["size"]), *_end(document), ("minimum engine", document["minimum_engine"])]
    rows += [("file" if not number else "", url) for number, url in enumerate(file["urls"][:_MOST_LINES])]
    rows += [("sha256", file["sha256"])]
    rows += [("model.json", file["metadata_sha256"])] if file.get("metadata_sha256") else []
    return _text(rows)


def _start(document: Mapping[str, Any], size: int) -> list[tuple[str, str]]:
    return [
        ("name", f"{document['name']} {document['version']}, {f'{size / 1e6:.1f} MB' if size else 'size not stated'}"),
        ("title", document["title"]),
        ("description", document["description"]),
        ("input", f"{document['modality']} of: {document['anatomy']}"),
        ("segments", _some([label["name"] for label in document["labels"]], _MOST_LABELS)),
    ]


def _end(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    licence = document["licence"]
    use = "" if licence["commercial_use"] else ", not for commercial use"
    return [
        ("measured", _some(_figures(document["metrics"]), _MOST_FIGURES) or "nothing reported"),
        ("made by", _made_by(document)),
        ("licence", ": ".join(filter(None, (licence["name"] + use, licence["url"])))),
        ("stated in", licence.get("stated_at") or ""),
        ("citation", document["citation"]),
    ]


def _made_by(document: Mapping[str, Any]) -> str:
    """The publisher of a model that is not of USEMA's own format."""
    for source in (document.get("model") or {}, document.get("source") or {}):
        if isinstance(source, Mapping) and source.get("publisher"):
            return ", ".join(filter(None, [source["publisher"], source.get("publisher_url") or source.get("url")]))
    return ""


def _figures(metrics: Mapping[str, Any], name: str = "") -> Iterator[str]:
    """Single values of the free metrics, the outermost first: 'validation cases 26'."""
    inner = []
    for key, value in metrics.items():
        called = f"{name} {key}".strip().replace("_", " ")
        if isinstance(value, Mapping):
            inner.append((value, called))
        elif isinstance(value, (int, float)):
            yield f"{called} {value:.4g}"
    for value, called in inner:
        yield from _figures(value, called)


def _some(texts, most: int) -> str:
    texts = list(texts)
    more = f", and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def _text(rows: list[tuple[str, str]]) -> str:
    lines = []
    for name, value in rows:
        if not value and name:
            continue
        folded = textwrap.wrap(
            value,
            _WIDTH - 16,
            max_lines=_MOST_LINES,
            placeholder=" ...",
            break_on_hyphens=False,
            break_long_words=False,
        )  # addresses stay whole
        lines += [f"{name if not number else '':<16}{line}" for number, line in enumerate(folded or [""])]
    return "\n".join([*lines, "All of it: --json"])
