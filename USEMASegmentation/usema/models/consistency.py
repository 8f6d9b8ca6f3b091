"""What a document that its schema allows may still get wrong: values that contradict each other, absurd sizes.

Standard library only. JSON Schema cannot compare two values, and what a network's or a preprocessing's own keys may be
is theirs to know; but no size is believed that would end in a failed allocation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .image_rules import has_images, image_contradictions
from .parts import IMAGE, NETWORK_KEYS, NNUNET, SIGMOID, steps_on_the_way
from .region_rules import region_contradictions

# The newest keys: what they stand in -> the version of the schema that brought them.
_NEW_KEYS: dict[str, dict[str, int]] = {
    "": dict.fromkeys(
        (
            "parts",
            "combine",
            "crop_first",
            "find_wanted",
            "pre_resample",
            "postprocess",
            "expected_extent_mm",
            "source",
        ),
        3,
    )
    | dict.fromkeys(("input_colours", "instances", "measurements", "find_regions"), 4),
    "inference": {"temperature": 2, "activation": 3, "region_order": 3, "overlap": 3},
    "preprocessing": {"kind": 3, "resampling": 3, "fit": 4},
    "licence": {"open": 3, "stated_at": 3},
}

# No real network comes near: the widest layers have some hundred channels, the longest tiles 512 voxels.
MOST_IN_CONFIG = 4096  # the largest number in an architecture's configuration
MOST_ITEMS = 256  # of a list in it
MOST_DEPTH = 8
MOST_PATCH_SIDE = 4096
MOST_PATCH_VOXELS = 2**26  # four times 256 x 256 x 256
MOST_CASCADE_CHANNELS = 256


def needed_versions(document: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """The keys of a document, which need not be valid, that came after version 1, and what each needs."""
    for inside, keys in _NEW_KEYS.items():
        holder = document.get(inside) if inside else document
        for key, version in keys.items():
            if isinstance(holder, Mapping) and key in holder:
                yield f"{inside}.{key}".strip("."), version
    if isinstance(document.get("inference"), Mapping) and isinstance(document["inference"].get("temperature"), list):
        yield "a list in inference.temperature", 3
    if has_images(document):
        yield "the kind image of preprocessing", 4
    if isinstance(document.get("licence"), Mapping) and document["licence"].get("url") == "":
        yield "an empty licence.url", 5
    training = document.get("training")
    if isinstance(training, Mapping):
        for key in ("cases", "iterations", "date"):
            if key in training and training[key] is None:
                yield f"null in training.{key}", 3
    for label in document["labels"] if isinstance(document.get("labels"), list) else ():
        terminology = label.get("terminology") if isinstance(label, Mapping) else None
        if isinstance(terminology, Mapping) and {"region", "region_modifier"} & set(terminology):
            yield "a label's terminology.region", 3
            return


def contradictions(document: dict) -> Iterator[str]:
    """What is wrong with a document that follows the schema, a sentence each."""
    version = document["schema_version"]
    for key, least in needed_versions(document):
        if version < least:
            yield f"{key} needs schema_version {least}, and schema_version is {version}"
    values = [label["value"] for label in document["labels"]]
    if values != list(range(1, len(values) + 1)):
        yield f"labels have the values {_shown(values)}, which should be 1 to {len(values)} in order"
    names = [label["name"] for label in document["labels"]]
    yield from (f"labels[{i}].name is {name!r}, as labels[{j}].name is" for i, j, name in _repeated(names))
    for key in ("expected_spacing_mm", "expected_extent_mm"):
        if key in document:
            for axis, low, high in zip("xyz", document[key]["min"], document[key]["max"], strict=True):
                if not low <= high:
                    yield f"{key} runs from {low} to {high} along {axis}"
    intensity = document["expected_intensity_range"]
    if intensity is not None and not intensity[0] < intensity[1]:
        yield f"expected_intensity_range runs from {intensity[0]} to {intensity[1]}"
    yield from _networks(document, len(values))
    yield from _postprocess(document.get("postprocess", ()), document, len(values))
    yield from region_contradictions(document, len(values))
    if "find_regions" in document:
        finder = document["find_regions"]["finder"]
        network = {key: finder[key] for key in NETWORK_KEYS}
        yield from _network(network, "find_regions.finder.", len(finder["labels"]))
    yield from image_contradictions(document)


def _networks(document: dict, labels: int) -> Iterator[str]:
    here = [key for key in NETWORK_KEYS if key in document]
    if "parts" not in document:
        missing = [key for key in NETWORK_KEYS if key not in here]
        yield from (f"the document has no {key!r}" for key in missing)
        if "combine" in document:
            yield "combine says how parts become one result, and there are no parts"
        if not missing:
            yield from _network(document, "", labels)
            if document["inference"].get("activation") == SIGMOID:
                yield from _made(document["inference"].get("region_order", []), labels)
        if "part" in document.get("crop_first", {}):
            yield f"crop_first.part is {document['crop_first']['part']!r}, and there are no parts"
    else:
        yield from (f"{key} stands beside parts, each of which has its own" for key in here)
        yield from _parts(document["parts"], document, labels)
    crop = document.get("crop_first")
    if crop is not None and ("part" in crop) == ("model" in crop):
        yield "crop_first should name either a part or a model"


def _parts(parts: Sequence[dict], document: dict, labels: int) -> Iterator[str]:
    names = [part["name"] for part in parts]
    yield from (f"parts[{i}].name is {name!r}, as parts[{j}].name is" for i, j, name in _repeated(names))
    finder = document.get("crop_first", {}).get("part")
    if finder is not None and finder not in names:
        yield f"crop_first.part is {finder!r}, which is none of the parts {_shown(names)}"
    steps = steps_on_the_way(document)
    for index, part in enumerate(parts):
        where = f"parts[{index}]."
        yield from (f"{where}folds[{i}] is {fold!r} again" for i, _, fold in _repeated(part["folds"]))
        if "previous" in part and part["previous"] not in names[:index]:
            yield f"{where}previous is {part['previous']!r}, which is no earlier part"
        if "previous" in part and labels > MOST_CASCADE_CHANNELS:
            yield f"{where}previous would bring {labels} channels, more than {MOST_CASCADE_CHANNELS}"
        yield from _network(part, where, labels)
    results = [part for part in parts if part["name"] not in steps]
    if not results:
        yield f"no part makes the result: {_shown(names)} are all steps on the way"
    yield from _made([value for part in results for value in _values(part, labels)], labels)
    if document.get("combine") == "probabilities":
        kinds = {(part["inference"].get("activation", "softmax"), tuple(_values(part, labels))) for part in results}
        if len(kinds) > 1:
            yield "combine is probabilities, and the parts do not have the same classes"


def _made(values: Sequence[int], labels: int) -> Iterator[str]:
    for value in sorted(set(range(1, labels + 1)) - set(values))[:1]:
        yield f"the label {value} is made by no network"


def _values(part: dict, labels: int) -> list[int]:
    """The labels that a part writes."""
    if part["inference"].get("activation") == SIGMOID:
        return part["inference"].get("region_order", [])
    return part.get("labels", list(range(1, labels + 1)))


def _network(part: dict, where: str, labels: int) -> Iterator[str]:
    """A network's own keys: in a part, or at the top of a model without parts."""
    inference = part["inference"]
    sigmoid = inference.get("activation") == SIGMOID
    if sigmoid != ("region_order" in inference):
        yield f"{where}inference.region_order belongs to the activation sigmoid, and only to it"
    if sigmoid and where and "labels" in part:
        yield f"{where}labels belongs to the activation softmax; with sigmoid region_order names the labels"
    key = "inference.region_order" if sigmoid else "labels"
    for value in _values(part, labels) if where or sigmoid else ():  # at the top, labels are the model's own
        if value > labels:
            yield f"{where}{key} has {value}, which is no label"
            break
    temperature = inference.get("temperature")
    if isinstance(temperature, list) and (not sigmoid or len(temperature) != len(inference.get("region_order", []))):
        yield f"{where}inference.temperature has {len(temperature)} numbers, and should have one for each region"
    for place, problem in _absurd(part["architecture"]["config"], f"{where}architecture.config", 0):
        yield f"{place} {problem}"
    if part["preprocessing"].get("kind", NNUNET) in (NNUNET, IMAGE):
        patch = part["preprocessing"].get("patch_size", ())
        sides = [side for side in patch if isinstance(side, (int, float))] if isinstance(patch, list) else []
        if (
            any(side > MOST_PATCH_SIDE for side in sides)
            or math.prod(max(side, 1) for side in sides) > MOST_PATCH_VOXELS
        ):
            yield f"{where}preprocessing.patch_size is {_shown(patch)}, more voxels than any tile has"


def _absurd(value: Any, place: str, depth: int) -> Iterator[tuple[str, str]]:
    """Numbers and lists in a configuration that would ask for more memory than any computer has."""
    if depth > MOST_DEPTH:
        yield place, "is nested too deep"
    elif isinstance(value, (int, float)) and not abs(value) <= MOST_IN_CONFIG:  # so that NaN counts as well
        yield place, f"is {_shown(value)}, more than {MOST_IN_CONFIG}"
    elif isinstance(value, (list, dict)):
        if len(value) > MOST_ITEMS:
            yield place, f"has {len(value)} entries, more than {MOST_ITEMS}"
            return
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in entries:
            yield from _absurd(inner, f"{place}.{key}" if isinstance(value, dict) else f"{place}[{key}]", depth + 1)


# What each step of postprocess has beside "step" and "volume_grid": what it may have, and what it has to have.
_STEP_KEYS: dict[str, tuple[set[str], set[str]]] = {
    "keep_largest": ({"labels", "connectivity", "count"}, set()),
    "remove_small": ({"labels", "connectivity", "volume_mm3"}, {"volume_mm3"}),
    "number_downwards": ({"labels", "volume_mm3"}, {"labels", "volume_mm3"}),
    "grow": ({"distance_mm"}, {"distance_mm"}),
    "keep_within": ({"part", "part_labels"}, {"part", "part_labels"}),
    "ellipse": ({"labels"}, {"labels"}),
}


def _postprocess(steps: Sequence[dict], document: dict, labels: int) -> Iterator[str]:
    parts = [part["name"] for part in document.get("parts", ())]
    for index, step in enumerate(steps):
        where = f"postprocess[{index}]"
        known, needed = _STEP_KEYS[step["step"]]
        for key in sorted(set(step) - {"step", "volume_grid"} - known):
            yield f"{where}.{key} is nothing that {step['step']} has"
        for key in sorted(needed - set(step)):
            yield f"{where} has no {key!r}"
        if step.get("connectivity", 26) not in (6, 18, 26):
            yield f"{where}.connectivity is {step['connectivity']}, none of 6, 18 and 26"
        if "part" in step and step["part"] not in parts:
            yield f"{where}.part is {step['part']!r}, which is none of the parts {_shown(parts)}"
        if step["step"] == "number_downwards" and (
            step.get("volume_grid") or (document["orientation"] or "  ")[2] != "S"
        ):
            yield f"{where} counts along z, and orientation is {document['orientation']!r}, not towards the head"
        wanted = step.get("labels", [])
        if step["step"] == "number_downwards" and wanted != list(
            range(min(wanted, default=0), max(wanted, default=0) + 1)
        ):
            yield f"{where}.labels are {_shown(wanted)}, which should be one after the other"
        for value in wanted:
            if value > labels:
                yield f"{where}.labels has {value}, which is no label"
                break
    grids = [bool(step.get("volume_grid")) for step in steps]
    if grids != sorted(grids):
        yield "postprocess has a step on the grid of pre_resample after one on the volume's own"


def _repeated(names: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """(index, index of the first, name) of names that were there before."""
    first: dict[str, int] = {}
    for index, name in enumerate(names):
        if name in first:
            yield index, first[name], name
        first.setdefault(name, index)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
