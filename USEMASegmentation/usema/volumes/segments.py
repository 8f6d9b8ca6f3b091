"""Coded concepts in the words of 3D Slicer: one line of text for files and for segments. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping

# The names under which 3D Slicer has the lists that SNOMED CT codes of segments come from.
_TYPES = "Segmentation category and type - DICOM master list"
_REGIONS = "Anatomic codes - DICOM master list"


def terminology_entry(codes: Mapping[str, Mapping[str, str] | None]) -> str:
    """Slicer's serialised TerminologyEntry: list~category~type~modifier~list~region~modifier.

    Args:
        codes: "category", "type" and perhaps "type_modifier", each {"scheme", "value", "meaning"} or None.
    """
    triples = []
    for part in ("category", "type", "type_modifier"):
        code = codes.get(part) or {}
        triples.append("^".join(tag_text(code.get(key, "")) for key in ("scheme", "value", "meaning")))
    return "~".join([_TYPES, *triples, _REGIONS, "^^", "^^"])


def tag_text(value: object) -> str:
    """Text in one line and without the sign that separates tags in files."""
    return " ".join(str(value).replace("|", "/").split())
