"""The networks of a model, one or several, as ``model.json`` describes them. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .region_rules import FINDER, region_labels

SOFTMAX, SIGMOID = "softmax", "sigmoid"
NNUNET = "nnunet"  # the kind of preprocessing where none is named
IMAGE = "image"  # the kind of models for two-dimensional images

# The keys of a model with a single network that a model with parts has in each of them.
NETWORK_KEYS = ("architecture", "preprocessing", "inference")


@dataclass(frozen=True)
class Part:
    """One network of a model, or several of one architecture that are averaged.

    Attributes:
        name: "" for the only network of a model without parts.
        folds: of a model without parts, ("",).
        architecture, preprocessing, inference: as in ``bundle.schema.json``.
        values: the model's label for each output of the network, in order. With softmax the first is 0, background;
            elsewhere 0 is a class that is dropped.
        previous: the name of the part whose labels are further input channels; None: no cascade.
    """

    name: str
    folds: tuple[str, ...]
    architecture: dict[str, Any]
    preprocessing: dict[str, Any]
    inference: dict[str, Any]
    values: tuple[int, ...]
    previous: str | None = None

    @property
    def prefixes(self) -> tuple[str, ...]:
        """What the names of each fold's weights begin with in the file of weights."""
        return tuple(f"{self.name}.{fold}." for fold in self.folds) if self.name else ("",)

    @property
    def activation(self) -> str:
        """SOFTMAX: one class a voxel; or SIGMOID: a yes or no for each region."""
        return self.inference.get("activation", SOFTMAX)

    @property
    def outputs(self) -> int:
        """Channels of the network's logits: classes with background, or regions."""
        return len(self.values)

    @property
    def kind(self) -> str:
        """The kind of preprocessing."""
        return self.preprocessing.get("kind", NNUNET)

    @property
    def temperatures(self) -> tuple[float, ...]:
        """What the logits are divided by: one number, or one for each region."""
        temperature = self.inference.get("temperature", 1.0)
        return tuple(map(float, temperature)) if isinstance(temperature, list) else (float(temperature),)


def parts_of(document: Mapping[str, Any]) -> tuple[Part, ...]:
    """The networks of a valid ``model.json``, in the order in which they run."""
    count = len(document["labels"])
    if not document.get("parts"):
        described = {"name": "", "folds": [""], **{key: document[key] for key in NETWORK_KEYS}}
        if (elsewhere := region_labels(document)) and document["inference"].get("activation") != SIGMOID:
            described["labels"] = [value for value in range(1, count + 1) if value not in elsewhere]
        return (_part(described, count),)
    return tuple(_part(part, count) for part in document["parts"])


def finder_of(document: Mapping[str, Any]) -> Part | None:
    """The rough network of a valid ``model.json`` whose regions are found first; its values are its own labels."""
    how = document.get("find_regions")
    if how is None:
        return None
    described = {key: how["finder"][key] for key in NETWORK_KEYS}
    return _part({"name": FINDER, "folds": ["only"], **described}, len(how["finder"]["labels"]))


def steps_on_the_way(document: Mapping[str, Any]) -> frozenset[str]:
    """The names of parts that others need and that add nothing to the result themselves: the finder of the region,
    earlier stages of cascades, and what only says where labels may stay."""
    names = {part.get("previous") for part in document.get("parts") or ()}
    names |= {step.get("part") for step in document.get("postprocess") or ()}
    names.add((document.get("crop_first") or {}).get("part"))
    return frozenset(name for name in names if name is not None)


def _part(described: Mapping[str, Any], count: int) -> Part:
    inference = described["inference"]
    if inference.get("activation") == SIGMOID:
        values = inference["region_order"]
    else:
        values = [0, *described.get("labels", range(1, count + 1))]
    return Part(
        name=described["name"],
        folds=tuple(described["folds"]),
        **{key: described[key] for key in NETWORK_KEYS},
        values=tuple(map(int, values)),
        previous=described.get("previous"),
    )


def head_bytes(config: dict) -> float:
    """Of a MeshNet on 256^3 voxels: all of a layer where it has norms, else the planes that are kept at a time."""
    channels, dilations = math.ceil(config["channels"] / 8) * 8, config["dilations"]
    planes = 256 if config.get("norm", "none") != "none" else min(60, 2 * sum(dilations))
    return 4 * 256**2 * channels * planes + 3 * 4 * 256**3
