"""A data set in nnU-Net's raw layout: its dataset.json, its cases, and what its labels mean."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError

_LAYOUT = "nnU-Net's documentation describes the layout of a dataset."


@dataclass(frozen=True)
class Labels:
    """The labels that a network learns.

    Attributes:
        names: of the values 1, 2, 3, ...
        region_order: where the network says yes or no of regions: the value that each of its outputs writes, in order;
            else empty.
        keys: value -> what nnU-Net calls it in its summary of the validation: "1", or of a region "(1, 2)".
        ignored: the value of what was not labelled, which nobody learns; None: everything is labelled.
    """

    names: tuple[str, ...]
    region_order: tuple[int, ...]
    keys: dict[int, str]
    ignored: int | None


def read_json(path: Path) -> dict[str, Any]:
    """A file with a JSON object. Raises InputError where it is missing or is none."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing.", "Check the path.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON: {error}.", "Correct it.") from None
    if not isinstance(document, dict):
        raise InputError(f"{path} holds {type(document).__name__}, and should hold an object: {{...}}.", "Correct it.")
    return document


def labels_of(description: dict[str, Any], path: Path) -> Labels:
    """What the labels of a dataset.json mean, listed in whatever order.

    Raises:
        InputError: nnU-Net could not learn them; the message names the first that is wrong.
    """
    hint = "nnU-Net wants labels 'name: value', background 0, the others 1, 2, 3, ..., and 'ignore' the last."
    given = description.get("labels")
    if not isinstance(given, dict) or not all(map(_is_value, given.values())):
        raise InputError(f"{path}: the labels are {given!r}.", hint)
    values = {name: value[0] if isinstance(value, list) and len(value) == 1 else value for name, value in given.items()}
    ignored = values.pop("ignore", None)
    if values.pop("background", None) != 0:
        raise InputError(f"{path}: no label 'background' has the value 0: {given}.", hint)
    every = sorted({item for value in values.values() for item in (value if isinstance(value, list) else [value])})
    if not every or every != list(range(1, len(every) + 1)) or ignored not in (None, len(every) + 1):
        raise InputError(f"{path}: the labels have the values {given}.", hint)
    if not any(isinstance(value, list) for value in values.values()):
        if len(values) != len(every):
            raise InputError(f"{path}: two labels have one value: {given}.", hint)
        names = tuple(sorted(values, key=values.__getitem__))
        return Labels(names, (), {value: str(value) for value in every}, ignored)
    order = description.get("regions_class_order")
    writes = order if isinstance(order, list) else []
    if len(writes) != len(values) or sorted(writes) != list(range(1, len(writes) + 1)):
        raise InputError(
            f"{path}: the labels are regions, {given}, and regions_class_order is {order!r}.",
            f"It names the value that each of the {len(values)} regions writes: 1 to {len(values)}, each once.",
        )
    names, keys = {}, {}
    for index, (value, (name, region)) in enumerate(zip(writes, values.items(), strict=True)):
        later = [other for other, own in list(values.items())[index + 1 :] if _items(own) & _items(region)]
        names[value] = f"{name} without {' and '.join(later)}" if later else name
        # As nnU-Net has it: a list of one is a tuple of one.
        keys[value] = str(tuple(given[name])) if isinstance(given[name], list) else str(region)
    return Labels(tuple(names[value] for value in sorted(names)), tuple(writes), keys, ignored)


def cases_of(dataset: Path) -> dict[str, list[int]]:
    """Name of each training case -> the sizes in bytes of its label map and its images.

    Raises:
        InputError: the folder is not such a data set, or a case is not whole.
    """
    for part in ("dataset.json", "imagesTr", "labelsTr"):
        if not (dataset / part).exists():
            raise InputError(f"{dataset} has no {part}.", _LAYOUT)
    path = dataset / "dataset.json"
    description = read_json(path)
    missing = [key for key in ("channel_names", "file_ending", "labels", "numTraining") if key not in description]
    if missing:
        raise InputError(f"{path} has no '{missing[0]}'.", _LAYOUT)
    labels_of(description, path)
    ending = str(description["file_ending"])
    found = {file.name.removesuffix(ending): [file] for file in visible_files(dataset / "labelsTr", ending)}
    for image in visible_files(dataset / "imagesTr", ending):
        case = image.name.removesuffix(ending)[:-5]  # without _0000: a file for each channel, or a picture in colour
        if case not in found:
            raise InputError(f"{dataset / 'labelsTr'} has no labels of {case}, which imagesTr has.", _LAYOUT)
        found[case].append(image)
    for case, files in found.items():
        if len(files) == 1:
            raise InputError(f"{dataset / 'imagesTr'} has no {case}_0000{ending}, and labelsTr has {case}.", _LAYOUT)
    if len(found) != description["numTraining"]:
        raise InputError(
            f"{path} says that there are {description['numTraining']} training cases, and there are {len(found)}.",
            "Correct numTraining, or add what is missing.",
        )
    return {case: [file.stat().st_size for file in files] for case, files in sorted(found.items())}


def visible_files(folder: Path, ending: str) -> list[Path]:
    """The files of a folder with an ending, without those that file managers hide (.DS_Store, ._case.nii.gz)."""
    return sorted(path for path in folder.iterdir() if path.name.endswith(ending) and not path.name.startswith("."))


def _items(value: int | list[int]) -> set[int]:
    return set(value) if isinstance(value, list) else {value}


def _is_value(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(_is_value(item) and not isinstance(item, list) for item in value)
    return isinstance(value, int) and not isinstance(value, bool)
