"""A small index, for tests that change something in it."""

from __future__ import annotations

import json

from usema.store import index

ENTRY = {
    "name": "liver-ct",
    "title": "Liver (CT)",
    "description": "The whole liver.",
    "version": "1.0.0",
    "modality": "CT",
    "anatomy": "Abdomen",
    "labels": [{"name": "Liver", "color": [221, 130, 101]}],
    "file": {"urls": ["liver-ct-1.0.0.usema"], "size": 10, "sha256": "0" * 64},
    "licence": {
        "name": "CC-BY-NC-4.0",
        "url": "https://creativecommons.org/licenses/by-nc/4.0/",
        "commercial_use": False,
        "attribution": "A department",
    },
    "citation": "Somebody 2020",
    "minimum_engine": "0.1.0",
    "metrics": {"dice": {"liver": 0.95}},
}


def document(**changes) -> dict:
    return {"schema_version": 1, "title": "A department", "models": [{**ENTRY, **changes}]}


def parsed(content, place: str = "https://models.example.org/a/models.json") -> index.Index:
    return index.parse(json.dumps(content).encode(), place)
