"""The labels of an Auto3DSeg model, from the ``labels.csv`` beside it. Standard library only."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from ..errors import BundleError
from ..models.label_names import same
from .labels import described, spoken
from .public import shown
from .source import Source

_LARGEST = 2**20  # bytes; 117 labels with their codes have some 30 kB
_COLUMNS = {  # what model.json calls a code: what the publisher's columns begin with
    "category": "SegmentedPropertyCategoryCodeSequence",
    "type": "SegmentedPropertyTypeCodeSequence",
    "type_modifier": "SegmentedPropertyTypeModifierCodeSequence",
    "region": "AnatomicRegionSequence",
    "region_modifier": "AnatomicRegionModifierSequence",
}
_PARTS = {"scheme": "CodingSchemeDesignator", "value": "CodeValue", "meaning": "CodeMeaning"}
_GET_AGAIN = "Get model.pt and labels.csv of one model, from one zip."


def labels_of(source: Source, place: str, count: int, promised: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The labels 1 to ``count`` of ``model.json``: names and codes of the file, colours of our own.

    Args:
        source, place: of the file.
        count: what the network makes.
        promised: the names that the shelf has of the labels, in any order; used where they are those of the file.

    Raises:
        BundleError: the file is no such table, or does not name exactly these labels.
    """
    where = source.shown(place)
    rows = _rows(source, place, where)
    named: dict[int, dict[str, str]] = {}
    for line, row in rows:
        text = (row.get("LabelValue") or "").strip()
        if not text.isdecimal() or not (row.get("Name") or "").strip():
            raise BundleError(f"{where}, line {line}: a row needs a LabelValue and a Name, not {text!r}.", _GET_AGAIN)
        value = int(text)
        if value in named:
            raise BundleError(f"{where}, line {line}: the label {value} is there a second time.", _GET_AGAIN)
        if value:  # 0 is background
            named[value] = row
    if sorted(named) != list(range(1, count + 1)):
        raise BundleError(
            f"{where} names {len(named)} labels, {_listed(sorted(named))}; the network beside it has {count}.",
            _GET_AGAIN,
        )
    rows_by_value = [named[value] for value in range(1, count + 1)]
    labels = described(_as_promised(rows_by_value, promised) or [row["Name"].strip() for row in rows_by_value])
    for label in labels:
        label["name"] = shown(label["name"])
        codes = _codes(named[label["value"]])
        if {"category", "type"} <= set(codes):
            label["terminology"] = codes
    return labels


def _as_promised(rows: Sequence[dict[str, str]], promised: Sequence[str]) -> list[str] | None:
    """The promised name of each row, by what its codes say or its own name; None where they do not all fit."""
    known = {same(name): name for name in promised}
    names = []
    for row in rows:
        means = {key: {"meaning": text} for key, text in _meanings(row).items()}
        says = [spoken(means)] if "type" in means else []
        names += [known[same(text)] for text in [*says, row["Name"]] if same(text) in known][:1]
    return names if len(names) == len(rows) and sorted(names) == sorted(promised) else None


def _meanings(row: dict[str, str]) -> dict[str, str]:
    texts = {key: (row.get(f"{column}.CodeMeaning") or "").strip() for key, column in _COLUMNS.items()}
    return {key: text for key, text in texts.items() if text}


def _rows(source: Source, place: str, where: str) -> list[tuple[int, dict[str, str]]]:
    with source.open(place) as stream:
        data = stream.read(_LARGEST + 1)
    try:
        if len(data) > _LARGEST:
            raise ValueError(f"it is larger than {_LARGEST} bytes")
        reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        missing = [column for column in ("LabelValue", "Name") if column not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f"it has no column {missing[0]}")
        return [(reader.line_num, row) for row in reader if any(row.values())]
    except (ValueError, csv.Error) as error:
        raise BundleError(f"{where} is no table of labels: {error}.", _GET_AGAIN) from error


def _codes(row: dict[str, str]) -> dict[str, dict[str, str]]:
    codes = {}
    for key, column in _COLUMNS.items():
        code = {name: (row.get(f"{column}.{part}") or "").strip() for name, part in _PARTS.items()}
        if all(code.values()):
            codes[key] = code
    return codes


def _listed(values: list[int]) -> str:
    text = ", ".join(map(str, values))
    return text if len(text) <= 60 else text[:57] + "..."
