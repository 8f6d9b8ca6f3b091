"""Names, colours and codes of labels that a model of another program knows by name alone. Standard library only."""

from __future__ import annotations

import colorsys
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ..models.label_names import same

_KEYS = ("category", "type", "type_modifier", "region", "region_modifier")
_TISSUE = {"scheme": "SCT", "value": "85756007", "meaning": "Tissue"}
_GOLDEN = 0.618034  # of a turn from hue to hue: neighbours differ however many there are


def described(names: Sequence[str]) -> list[dict[str, Any]]:
    """The labels 1, 2, 3, ... of ``model.json``.

    Codes and colours come from ``label_codes.json``, whose source it names, where that knows the name or its codes say
    it; others are any tissue, in a colour of their own.

    Args:
        names: as the model has them; a name that is there twice gets its number behind it.
    """
    labels = []
    for value, name in enumerate(names, 1):
        terminology, color = _table().get(same(name)) or ({"category": _TISSUE, "type": _TISSUE}, None)
        unique = name if name.strip() and name not in names[: value - 1] else f"{name.strip()} ({value})".strip()
        labels.append(
            {"value": value, "name": unique, "color": color or palette_color(value), "terminology": terminology}
        )
    return labels


def spoken(terminology: Mapping[str, Mapping[str, str]]) -> str:
    """What codes say in words, as the Auto3DSeg models' publisher writes it: "Left Kidney", "Cyst in Left Kidney"."""
    words = {key: code["meaning"] for key, code in terminology.items()}
    what = f"{words.get('type_modifier', '')} {words['type']}".strip()
    where = f"{words.get('region_modifier', '')} {words.get('region', '')}".strip()
    return what if where in ("", what) else f"{what} in {where}"


def meaning(name: str) -> str:
    """What the code of a label of that name means, without the side; empty where none is known."""
    terminology, _ = _table().get(same(name)) or ({}, None)
    return terminology["type"]["meaning"] if terminology else ""


@cache
def _table() -> dict[str, tuple[dict[str, dict[str, str]], list[int] | None]]:
    document = json.loads(Path(__file__).with_name("label_codes.json").read_text(encoding="utf-8"))
    codes = [dict(zip(("scheme", "value", "meaning"), code, strict=True)) for code in document["codes"]]
    table = {}
    for name, (places, color) in document["labels"].items():
        coded = {key: codes[place] for key, place in zip(_KEYS, places, strict=True) if place is not None}
        table[same(name)] = (coded, color)
    return {same(spoken(coded)): (coded, color) for coded, color in reversed(table.values())} | table


def palette_color(value: int) -> list[int]:
    """Red, green, blue of a label that nobody gave a colour."""
    red, green, blue = colorsys.hsv_to_rgb(value * _GOLDEN % 1, 0.55, 0.85)
    return [round(255 * part) for part in (red, green, blue)]
