"""The panel's choices, kept in the scene: the fields of ``Parameters``, from which the logic makes a copy.

Only the application has ``slicer.parameterNodeWrapper``.
"""

from __future__ import annotations

from dataclasses import MISSING, Field, fields
from typing import Annotated

import slicer
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper

from .Parameters import Parameters


def _kind(option: Field):
    """The type that the wrapper needs to keep an option and to connect it to a widget."""
    kept = option.metadata
    if "node" in kept:
        return getattr(slicer, kept["node"])
    if "nodes" in kept:
        return list[getattr(slicer, kept["nodes"])]
    if "texts" in kept:
        return list[str]
    kind = type(_default(option))
    if "choices" in kept:
        return Annotated[kind, Choice(kept["choices"])]
    return Annotated[kind, WithinRange(*kept["span"])] if "span" in kept else kind


def _default(option: Field):
    """The wrapper knows no number that may be None: it keeps a number, and beside it whether that counts."""
    return option.metadata.get("shown", option.default)


def _members() -> dict:
    options = fields(Parameters)
    kinds = {one.name: _kind(one) for one in options}
    # Without a default, the wrapper takes "", None or [].
    defaults = {one.name: _default(one) for one in options if _default(one) not in (MISSING, None, "")}
    unless = [one.metadata["unless"] for one in options if "unless" in one.metadata]
    kinds |= dict.fromkeys(unless, bool)
    return {"__annotations__": kinds, "__module__": __name__, **defaults, **dict.fromkeys(unless, True)}


USEMASegmentationParameterNode = parameterNodeWrapper(type("USEMASegmentationParameterNode", (), _members()))
