"""What ``find_regions`` of a document says: which labels its regions make, and what may be wrong with it.

Standard library only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

FINDER = "finder"  # the name of the rough network, where its weights are called by it
FINDER_PREFIX = f"{FINDER}.only."


def region_labels(document: Mapping[str, Any]) -> list[int]:
    """The values of the labels that regions make, region by region; the network itself makes all others."""
    regions = (document.get("find_regions") or {}).get("regions", ())
    return [value for region in regions for value in region["labels"]]


def region_contradictions(document: Mapping[str, Any], labels: int) -> Iterator[str]:
    """What is wrong with ``find_regions`` of a document that follows the schema and has so many labels."""
    how = document.get("find_regions")
    if how is None:
        return
    where = "find_regions"
    if "expected_extent_mm" not in document:
        yield f"{where} needs expected_extent_mm, which tells a crop from what holds regions"
    for key in ("parts", "crop_first", "find_wanted", "pre_resample"):
        if key in document:
            yield f"{where} stands beside {key}, and one of the two has to go"
    for key in ("labels", "medial"):
        for name in how.get(key, ()):
            if name not in how["finder"]["labels"]:
                yield f"{where}.{key} has {name!r}, which is no label of the finder"
    yield from _regions(how["regions"], where, labels, region_labels(document))


def _regions(regions: list[dict], where: str, labels: int, made: list[int]) -> Iterator[str]:
    sides = [region.get("side") for region in regions]
    if len(regions) > 1 and (None in sides or len(set(sides)) < len(sides)):
        yield f"{where}.regions are {len(regions)}, and each should have a side of its own"
    own = labels - len(set(made))
    for index, region in enumerate(regions):
        here = f"{where}.regions[{index}]"
        for value in region["labels"]:
            if value > labels:
                yield f"{here}.labels has {value}, which is no label"
                return
            if made.count(value) > 1:
                yield f"{here}.labels has {value}, which is made more than once"
                return
        if len(region["labels"]) != own:
            yield f"{here}.labels are {len(region['labels'])}, and the network has {own} labels of its own"
        least, most = region["expected_ml"]
        if not least < most:
            yield f"{here}.expected_ml runs from {least} to {most}"
