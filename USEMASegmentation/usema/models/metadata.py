"""What a bundle's ``model.json`` says, checked against ``bundle.schema.json``. Standard library only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from ..errors import BundleError
from ..json_schema import problems
from .consistency import contradictions, needed_versions
from .image_rules import RGB
from .parts import IMAGE, NETWORK_KEYS, Part, finder_of, parts_of, steps_on_the_way
from .region_rules import region_labels

SCHEMA_VERSION = 5  # the newest that is read; least_schema_version is what is written
_NULLABLE = ("expected_intensity_range", "orientation")  # null is what they say; other keys are then absent
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
    """What ``model.json`` says; ``bundle.schema.json`` describes each field.

    ``architecture``, ``preprocessing`` and ``inference`` of a model with several parts are those of its last part,
    the main one of a cascade: good for a line in a table. What runs the model asks ``networks``.
    """

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
    parts: list[dict[str, Any]] | None = None
    combine: str = "labels"
    crop_first: dict[str, Any] | None = None
    find_wanted: dict[str, Any] | None = None
    find_regions: dict[str, Any] | None = None
    pre_resample: dict[str, Any] | None = None
    postprocess: list[dict[str, Any]] | None = None
    expected_extent_mm: dict[str, list[float]] | None = None
    source: dict[str, Any] | None = None
    input_colours: str | None = None
    instances: dict[str, Any] | None = None
    measurements: list[str] | None = None

    @cached_property
    def networks(self) -> tuple[Part, ...]:
        """The networks in the order in which they run; one for a model without parts."""
        return parts_of(self.to_dict())

    @cached_property
    def finder(self) -> Part | None:
        """The network that finds the regions of ``find_regions``."""
        return finder_of(self.to_dict())

    @cached_property
    def region_values(self) -> tuple[int, ...]:
        """The values of the labels that only the regions of ``find_regions`` have."""
        return tuple(region_labels({"find_regions": self.find_regions}))

    @cached_property
    def steps_on_the_way(self) -> frozenset[str]:
        """The names of parts that add nothing to the result themselves."""
        return steps_on_the_way(self.to_dict())

    @cached_property
    def takes_images(self) -> bool:
        """Whether the model is for two-dimensional images; else it is for volumes."""
        return any(part.kind == IMAGE for part in self.networks)

    @cached_property
    def result_labels(self) -> tuple[Label, ...]:
        """The labels that a result has: all but the rim of objects, whose pixels belong to these."""
        rim = (self.instances or {}).get("boundary")
        return tuple(label for label in self.labels if label.name != rim)

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """What each image or volume that the model takes is called; red, green and blue come in one image."""
        if self.input_colours == RGB:
            return ("Image in colour",)
        return tuple(channel["name"] for channel in self.channels)

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
        for problem in chain(problems(document, SCHEMA), contradictions(document)):
            raise BundleError(f"{source}: {problem}.", "Ask whoever made the model to correct it.")
        labels = tuple(
            Label(int(label["value"]), label["name"], tuple(map(int, label["color"])), label["terminology"])
            for label in document["labels"]
        )
        parts = document.get("parts")
        main = {key: parts[-1][key] for key in NETWORK_KEYS} if parts else {}
        return cls(**{**main, **document, "labels": labels})

    def to_dict(self) -> dict[str, Any]:
        """The document that ``from_dict`` reads, ready for JSON."""
        document = {key: value for key, value in asdict(self).items() if value is not None or key in _NULLABLE}
        document["labels"] = [{**label, "color": list(label["color"])} for label in document["labels"]]
        for key in NETWORK_KEYS if self.parts else ("combine",):
            del document[key]
        return document


def least_schema_version(document: Mapping[str, Any]) -> int:
    """The oldest version of the schema that knows a document's keys, so that older USEMAs read what they can.

    Args:
        document: of ``model.json``; it need not be valid.
    """
    return max([1, *(version for _, version in needed_versions(document))])
