"""What only a model for two-dimensional images may say, and what such a model may not. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .parts import IMAGE, NNUNET

RGB = "rgb"
_ONLY_IMAGES = ("input_colours", "instances", "measurements")
# What needs a third dimension, or lengths in millimetres that an image may not have.
_NEVER_IMAGES = ("crop_first", "find_wanted", "find_regions", "pre_resample", "expected_extent_mm")


def has_images(document: Mapping[str, Any]) -> bool:
    """Whether any network of a document, which need not be valid, is for images."""
    return IMAGE in _kinds(document)


def image_contradictions(document: dict) -> Iterator[str]:
    """What is wrong with what a document that follows the schema says of images, a sentence each."""
    kinds = _kinds(document)
    if IMAGE not in kinds:
        yield from (
            f"{key} belongs to models for images, whose preprocessing.kind is image" for key in _given(document)
        )
        if any("fit" in holder for holder in _preprocessings(document)):
            yield "preprocessing.fit belongs to models for images, whose preprocessing.kind is image"
        if any(step["step"] == "ellipse" for step in document.get("postprocess", ())):
            yield "postprocess has ellipse, which belongs to models for images, whose preprocessing.kind is image"
        return
    if set(kinds) != {IMAGE}:
        yield f"some parts are for images and others are not: {', '.join(kinds)}"
    yield from (f"{key} is nothing that a model for images has" for key in _NEVER_IMAGES if key in document)
    if document["orientation"] is not None:
        yield f"orientation is {document['orientation']!r}, and a model for images takes images as they are stored"
    for step in document.get("postprocess", ()):
        if "volume_mm3" in step or "distance_mm" in step:
            yield f"postprocess has {step['step']} with millimetres, which an image may not have"
    if document.get("input_colours") == RGB and len(document["channels"]) != 3:
        yield f"input_colours is rgb, and there are {len(document['channels'])} channels, not 3"
    for preprocessing in _preprocessings(document):
        patch = preprocessing.get("patch_size")
        if isinstance(patch, list) and len(patch) != 2:
            yield f"preprocessing.patch_size has {len(patch)} numbers, and an image has 2 dimensions"
        if len(preprocessing.get("fit", ["absent"])) != 1:
            yield "preprocessing.fit should name either longest_side or to_spacing"
    if any("fit" in preprocessing for preprocessing in _preprocessings(document)):
        if document.get("combine") == "probabilities":
            yield "combine is probabilities, which images that are fitted first do not have"
        if any("previous" in part for part in document.get("parts", ())):
            yield "a part has previous, which images that are fitted first do not have"
    yield from _instances(document)


def _instances(document: dict) -> Iterator[str]:
    names = [label["name"] for label in document["labels"]]
    split = document.get("instances")
    if split is None:
        if "objects" in document.get("measurements", ()):
            yield "measurements has objects, and the model has no instances"
        return
    for key in ("label", "boundary"):
        if split.get(key, names[0]) not in names:
            yield f"instances.{key} is {split[key]!r}, which is no label"
    if split.get("boundary") == split["label"]:
        yield f"instances.boundary is {split['label']!r}, as instances.label is"


def _given(document: Mapping[str, Any]) -> list[str]:
    return [key for key in _ONLY_IMAGES if key in document]


def _preprocessings(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    parts = document.get("parts")
    holders = [document] if not isinstance(parts, list) else parts
    found = [holder.get("preprocessing") for holder in holders if isinstance(holder, Mapping)]
    return [one for one in found if isinstance(one, Mapping)]


def _kinds(document: Mapping[str, Any]) -> list[Any]:
    return [preprocessing.get("kind", NNUNET) for preprocessing in _preprocessings(document)]
