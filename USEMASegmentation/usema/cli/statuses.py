"""The statuses that a run leaves in its folder of results: what is in each, and which results they tell of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

STATUS_FOLDER = "status"


def results_in(folder: Path) -> list[Path]:
    """The files that the statuses in a folder of results tell of: results of earlier runs."""
    documents = filter(None, map(read_status, (folder / STATUS_FOLDER).glob("*.json")))
    return [folder / place for document in documents for place in document["outputs"]]


def read_status(path: Path) -> dict[str, Any] | None:
    """A status; None where there is none, or not one of ours."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    document = {"measures": {}, **document} if isinstance(document, dict) else document  # older ones have none
    texts = ("case", "state", "error")
    parts = ("inputs", "outputs", "millilitres", "measures", "model", "settings")
    if not isinstance(document, dict) or not all(isinstance(document.get(key), str) for key in texts):
        return None
    whole = all(isinstance(document.get(key), dict) for key in parts) and isinstance(document.get("warnings"), list)
    return document if whole and {"name", "version"} <= document["model"].keys() and "seconds" in document else None
