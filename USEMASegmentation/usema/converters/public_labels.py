"""The labels of a public model before its file is here: names, colours and codes. Standard library only."""

from __future__ import annotations

from typing import Any

from . import brainchop
from .labels import described
from .public import PublicModel


def labels_of(model: PublicModel) -> list[dict[str, Any]]:
    """As in ``labels`` of ``model.json``; the values of an Auto3DSeg model are known only when its file is here."""
    known = brainchop.labels_of(model.name) if model.recipe["format"] == brainchop.FORMAT else None
    return known or described(model.labels)
