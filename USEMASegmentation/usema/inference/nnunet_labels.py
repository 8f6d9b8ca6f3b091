"""Labels and regions as nnU-Net's dataset.json names them. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import BundleError

_UNSUPPORTED = "Ask whoever trained the model for its dataset.json as nnU-Net used it."


def labels_of(dataset: Mapping, where: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """What a model makes of the labels of nnU-Net's dataset.json.

    Args:
        dataset: its content.
        where: where it comes from, for messages.

    Returns:
        the names of the values 1, 2, 3, ... (a label to be ignored is none of them); and of regions the value that each
        writes, in the order of the network's outputs: empty for labels of which a voxel has one.

    Raises:
        BundleError: the values have gaps, or contradict each other.
        KeyError, TypeError, ValueError: something is missing or of another kind.
    """
    values = {name: _value(value) for name, value in dataset["labels"].items() if name != "ignore"}
    if values.get("background") != 0:
        raise BundleError(f"{where}: dataset.json has no label 'background' with the value 0.", _UNSUPPORTED)
    regions = {name: value for name, value in values.items() if value not in (0, (0,))}
    if not any(isinstance(value, tuple) for value in regions.values()):
        ordered = sorted(regions, key=regions.__getitem__)
        found = [regions[name] for name in ordered]
        if not found or found != list(range(1, len(found) + 1)):
            raise BundleError(f"{where}: the labels have the values {found}.", "They should be 1, 2, 3, ... in order.")
        _refuse_ignored(dataset, len(found), where)
        return tuple(ordered), ()
    order = tuple(int(value) for value in dataset.get("regions_class_order") or ())
    if len(order) != len(regions) or sorted(set(order)) != list(range(1, max(order) + 1)):
        raise BundleError(
            f"{where}: regions_class_order is {list(order)} for {len(regions)} regions.",
            "It should name a value from 1 on for each region, without gaps.",
        )
    _refuse_ignored(dataset, max(max(_values_of(value)) for value in regions.values()), where)
    return _region_names(regions, order), order


def _values_of(value: int | tuple[int, ...]) -> tuple[int, ...]:
    """The label values of a region, or of a single label."""
    return value if isinstance(value, tuple) else (value,)


def _value(value: Any) -> int | tuple[int, ...]:
    """A label's value; of a region, its values. A list of one is that one."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        values = tuple(int(item) for item in value)
        return values if len(values) != 1 else values[0]
    return int(value)


def _refuse_ignored(dataset: Mapping, last: int, where: str) -> None:
    """What training ignored has no output, and is the last value."""
    ignored = dataset["labels"].get("ignore")
    if ignored is not None and ignored != last + 1:
        raise BundleError(f"{where}: the label 'ignore' is {ignored}, and should be {last + 1}.", _UNSUPPORTED)


def _region_names(regions: Mapping[str, int | tuple[int, ...]], order: Sequence[int]) -> tuple[str, ...]:
    """What each value is: the last region that writes it, without those that overwrite it later."""
    named, items = {}, list(regions.items())
    for index, value in enumerate(order):
        name, own = items[index][0], set(_values_of(items[index][1]))
        later = [other for other, values in items[index + 1 :] if own & set(_values_of(values))]
        # What lies in another of them needs no mention.
        outer = [a for a in later if not any(set(_values_of(regions[a])) < set(_values_of(regions[b])) for b in later)]
        named[value] = f"{name} without {' and '.join(outer)}" if outer else name
    return tuple(named[value] for value in sorted(named))
