"""The labels of an Auto3DSeg model, from the ``labels.csv`` beside it. Standard library only."""

from __future__ import annotations

import csv
import io
from typing import Any

from ..errors import BundleError
from .labels import described
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


def labels_of(source: Source, place: str, count: int) -> list[dict[str, Any]]:
    """The labels 1 to ``count`` of ``model.json``: names and codes of the file, colours of our own.

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
    labels = described([named[value]["Name"].strip() for value in range(1, count + 1)])
    for label in labels:
        label["name"] = shown(label["name"])
        codes = _codes(named[label["value"]])
        if {"category", "type"} <= set(codes):
            label["terminology"] = codes
    return labels


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
