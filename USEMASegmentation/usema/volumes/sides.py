"""Left and right of the same structure: pairs by their names, and how much they differ. Standard library only."""

from __future__ import annotations

import re
from collections.abc import Mapping

_SIDE = re.compile(r"\b(left|right)\b", re.IGNORECASE)


def pairs(millilitres: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """(left, right) of each structure that is there on both sides, by its name without the side."""
    sides: dict[str, dict[str, float]] = {}
    for name, amount in millilitres.items():
        if len(found := _SIDE.findall(name)) == 1:
            rest = " ".join(_SIDE.sub("", name).split())
            sides.setdefault(rest.casefold(), {"name": rest})[found[0].lower()] = amount
    return {one["name"]: (one["left"], one["right"]) for one in sides.values() if {"left", "right"} <= one.keys()}


def asymmetry(left: float, right: float) -> float | None:
    """Left minus right over the mean of both; None where there is neither."""
    return 2 * (left - right) / (left + right) if left + right else None


def asymmetry_text(millilitres: Mapping[str, float]) -> str:
    """The volumes and the asymmetry of each structure that is there on both sides; empty where there is none."""
    texts = []
    for name, (left, right) in pairs(millilitres).items():
        differ = asymmetry(left, right)
        if differ is not None:
            volumes = f"{name}: left {left:.2f} ml, right {right:.2f} ml"
            texts.append(f"{volumes}, left minus right {100 * differ:+.1f} % of their mean")
    return "; ".join(texts)
