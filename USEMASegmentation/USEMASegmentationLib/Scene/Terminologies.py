"""Codes of labels that 3D Slicer's own list lacks, so that its terminology selector shows them.

Slicer's list knows a hippocampus on the right, on the left or on both sides, but no anterior one. Segments with such a
code name a list of our own, which is made here from the models on this computer.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import slicer
from usema.store.library import library
from usema.volumes.segments import OWN_TYPES, needs_own_list

_SCHEMA = "https://raw.githubusercontent.com/qiicr/dcmqi/master/doc/segment-context-schema.json#"
_told = ""  # the list that the application has


def offer() -> None:
    """Gives the application the list, if it has changed; does nothing where the application has no terminologies."""
    global _told
    labels = [label for model in library().models if model.bundle for label in model.bundle.metadata.labels]
    text = json.dumps(document(labels), indent=1)
    if not hasattr(slicer.modules, "terminologies") or text == _told:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "USEMA.term.json"
        path.write_text(text, "utf-8")
        slicer.modules.terminologies.logic().LoadTerminologyFromFile(str(path))
    _told = text


def document(labels: Iterable) -> dict:
    """The list, in the form that Slicer reads: categories, types and their modifiers.

    Args:
        labels: of models, with ``color`` and ``terminology``; those that Slicer's own list has are left out.
    """
    categories: dict[str, dict] = {}
    for label in labels:
        codes = label.terminology
        if not codes or not needs_own_list(codes):
            continue
        category = _entry(categories, codes["category"], showAnatomy="true", Type={})
        kind = _entry(category["Type"], codes["type"], recommendedDisplayRGBValue=list(label.color), Modifier={})
        _entry(kind["Modifier"], codes["type_modifier"], recommendedDisplayRGBValue=list(label.color))
    return {
        "SegmentationCategoryTypeContextName": OWN_TYPES,
        "@schema": _SCHEMA,
        "SegmentationCodes": {"Category": _listed(categories)},
    }


def _entry(known: dict[str, dict], code: Mapping[str, str], **more) -> dict:
    """The entry of a code among those that are known already."""
    names = {"CodeMeaning": "meaning", "CodingSchemeDesignator": "scheme", "CodeValue": "value"}
    return known.setdefault(code["value"], {**{key: code[name] for key, name in names.items()}, **more})


def _listed(entries: dict[str, dict]) -> list[dict]:
    """As lists, where there were dictionaries by code."""
    return [
        {key: _listed(value) if isinstance(value, dict) else value for key, value in one.items()}
        for one in entries.values()
    ]
