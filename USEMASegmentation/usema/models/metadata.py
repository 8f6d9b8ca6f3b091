"""What a bundle's ``model.json`` says, checked against ``bundle.schema.json``. Standard library only."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from ..errors import BundleError
from ..json_schema import problems

SCHEMA_VERSION = 2  # the newest that is read; least_schema_version is what is written
SCHEMA = json.loads(Path(__file__).with_name("bundle.schema.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Label:
    """One class of a model.

    Attributes:
        value: the voxel value in label maps.
        name: what the segment is called.
        color: red, green, blue, each 0 to 255.
        terminology: ``category``, ``type`` and perhaps ``type_modifier``, each a coded concept ``{"scheme", "value",
            "meaning"}``; scheme ``SCT`` is SNOMED CT.
    """

    value: int
    name: str
    color: tuple[int, int, int]
    terminology: dict[str, dict[str, str]]


@dataclass(frozen=True)
class ModelMetadata:
    """What ``model.json`` says; ``bundle.schema.json`` describes each field."""

    schema_version: int
    name: str
    title: str
    version: str
    description: str
    intended_use: str
    limits: str
    modality: str
    anatomy: str
    channels: list[dict[str, str]]
    expected_spacing_mm: dict[str, list[float]]
    expected_intensity_range: list[float] | None
    orientation: str | None
    labels: tuple[Label, ...]
    architecture: dict[str, Any]
    preprocessing: dict[str, Any]
    inference: dict[str, Any]
    training: dict[str, Any]
    metrics: dict[str, Any]
    licence: dict[str, Any]
    citation: str
    weights: dict[str, Any]

    @classmethod
    def from_dict(cls, document: Any, source: str = "model.json") -> ModelMetadata:
        """Checks a parsed ``model.json``. Unknown keys are refused: most are slips of the pen.

        Args:
            document: the parsed JSON.
            source: where it comes from, for the message.

        Raises:
            BundleError: names the first key that is wrong and its value; or the bundle needs a newer USEMA.
        """
        version = document.get("schema_version") if isinstance(document, dict) else None
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise BundleError(
                f"{source} is made for a newer USEMA (schema {version}, this one reads {SCHEMA_VERSION}).",
                "Update USEMA.",
            )
        # chain is lazy: values are only compared once they are known to have the right types.
        for problem in chain(problems(document, SCHEMA), _contradictions(document)):
            raise BundleError(f"{source}: {problem}.", "Ask whoever made the model to correct it.")
        labels = tuple(
            Label(int(label["value"]), label["name"], tuple(map(int, label["color"])), label["terminology"])
            for label in document["labels"]
        )
        return cls(**{**document, "labels": labels})

    def to_dict(self) -> dict[str, Any]:
        """The document that ``from_dict`` reads, ready for JSON."""
        document = asdict(self)
        document["labels"] = [{**label, "color": list(label["color"])} for label in document["labels"]]
        return document


def least_schema_version(document: Mapping[str, Any]) -> int:
    """The oldest version of the schema that knows a document's keys, so that older USEMAs read what they can.

    Args:
        document: of ``model.json``; it need not be valid.
    """
    inference = document.get("inference")
    return 2 if isinstance(inference, Mapping) and "temperature" in inference else 1


def _contradictions(document: dict) -> Iterator[str]:
    """What a valid document may still get wrong, because JSON Schema cannot compare two values."""
    version, least = document["schema_version"], least_schema_version(document)
    if version < least:
        yield f"inference.temperature needs schema_version {least}, and schema_version is {version}"
    values = [label["value"] for label in document["labels"]]
    if values != list(range(1, len(values) + 1)):
        yield f"labels have the values {values}, which should be 1 to {len(values)} in order"
    first: dict[str, int] = {}
    for index, label in enumerate(document["labels"]):
        if first.setdefault(label["name"], index) != index:
            yield f"labels[{index}].name is {label['name']!r}, as labels[{first[label['name']]}].name is"
    spacing = document["expected_spacing_mm"]
    for axis, low, high in zip("xyz", spacing["min"], spacing["max"], strict=True):
        if not low <= high:
            yield f"expected_spacing_mm runs from {low} to {high} along {axis}"
    intensity = document["expected_intensity_range"]
    if intensity is not None and not intensity[0] < intensity[1]:
        yield f"expected_intensity_range runs from {intensity[0]} to {intensity[1]}"
