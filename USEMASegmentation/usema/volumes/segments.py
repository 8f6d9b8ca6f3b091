"""What a label looks like as a segment of 3D Slicer, in a file or in a scene. Standard library only.

Whoever writes a segment, the command line into .seg.nrrd or the panel into a scene, takes its looks from here: a result
of the one is known to the other as its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

PREFIX = "USEMA."  # of the tags that tell where a segment comes from
TERMINOLOGY_TAG = "TerminologyEntry"
LABEL_KEY = "label"  # the model's name for it, whatever the user calls the segment
ID_KEY = "id"  # the ID under which it was written: a copy that the user makes has another
WRITTEN_KEY = "written"  # the model's voxels, see `masks`
RUN_KEY = "run"  # which margins are these voxels', the newest first, see `margins`
THRESHOLD_KEY = "threshold"  # what was added to the label's margin since, in steps
REFINED_KEY = "refined"  # the corrections that a refinement has followed already, see `masks`
# What is told of a result whose model had learned from corrections.
LEARNED_KEYS = ("adaptation", "adaptedFrom", "deltaSha256")

# The names under which 3D Slicer has the lists that SNOMED CT codes of segments come from.
_TYPES = "Segmentation category and type - DICOM master list"
_REGIONS = "Anatomic codes - DICOM master list"
# The list that the panel adds, and the only modifiers that Slicer's own has: left, right, right and left.
OWN_TYPES = "Segmentation category and type - USEMA"
_LATERALITY = {"7771000", "24028007", "51440002"}


class ModelLabel(Protocol):
    """What a label of a model must tell.

    ``color`` is red, green, blue from 0 to 255. ``terminology`` has the codes "category", "type" and, or None,
    "type_modifier", each a dict with "scheme" ("SCT"), "value" and "meaning".
    """

    value: int
    name: str
    color: tuple[int, int, int]
    terminology: Mapping[str, Mapping[str, str] | None] | None


@dataclass(frozen=True)
class SegmentLook:
    """All of a segment but its voxels. ``color`` is red, green, blue from 0 to 1; ``tags`` are text by full name."""

    id: str
    name: str
    color: tuple[float, float, float]
    tags: dict[str, str]


def segment_id(model: str, value: int) -> str:
    """The ID of the segment that a model's label becomes."""
    return f"{tag_text(model)}_{value}" if model else f"Segment_{value}"


def segment_look(label: ModelLabel, provenance: Mapping[str, str], taken: str = "") -> SegmentLook:
    """How a label is written.

    Args:
        provenance: how the result was made, text by name; "model" is the model's name.
        taken: the ID to write under, where the usual one belongs to another segment.
    """
    own = taken or segment_id(provenance.get("model", ""), label.value)
    tags = {TERMINOLOGY_TAG: terminology_entry(label.terminology)} if label.terminology else {}
    for key, value in {**provenance, LABEL_KEY: label.name, ID_KEY: own}.items():
        tags[PREFIX + key] = tag_text(value)
    return SegmentLook(own, label.name, tuple(channel / 255 for channel in label.color), tags)


def terminology_entry(codes: Mapping[str, Mapping[str, str] | None]) -> str:
    """Slicer's serialised TerminologyEntry: list~category~type~modifier~list~region~modifier.

    Args:
        codes: "category", "type" and perhaps "type_modifier", "region" and "region_modifier", each {"scheme", "value",
            "meaning"} or None.
    """

    def triple(part: str) -> str:
        code = codes.get(part) or {}
        return "^".join(_code_text(code.get(key, "")) for key in ("scheme", "value", "meaning"))

    types = OWN_TYPES if needs_own_list(codes) else _TYPES
    where = map(triple, ("region", "region_modifier"))
    return "~".join([types, *map(triple, ("category", "type", "type_modifier")), _REGIONS, *where])


def needs_own_list(codes: Mapping[str, Mapping[str, str] | None]) -> bool:
    """Whether Slicer's own list lacks the modifier, such as "anterior", so that its selector could not show it."""
    modifier = codes.get("type_modifier")
    return bool(modifier) and modifier.get("value") not in _LATERALITY


def tag_text(value: object) -> str:
    """Text in one line and without the sign that separates tags in files."""
    return " ".join(str(value).replace("|", "/").split())


def millilitres(voxels: int, spacing: tuple[float, float, float]) -> float:
    """The volume of so many voxels; ``spacing`` in millimetres."""
    x, y, z = spacing
    return voxels * x * y * z / 1000


def _code_text(value: object) -> str:
    """Also without the signs that separate codes and their parts: Slicer's parser knows no way to quote them."""
    return tag_text(str(value).replace("~", "-").replace("^", " "))
