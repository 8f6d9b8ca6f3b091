"""What segments measure, as a table: a file of one case, columns of `cohort.csv`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from ..errors import OutputError
from ..files import refuse_existing, replace_file
from ..tables import as_csv
from ..volumes.measures import Measures

SUFFIXES = (".csv", ".json")
# Of a label in a table of many cases: its volume first, as it always was.
_TITLES = {
    "voxels": "voxels",
    "mean": "mean",
    "sd": "sd",
    "median": "median",
    "longest_diameter_mm": "longest diameter / mm",
}


def check_statistics(path: Path, overwrite: bool) -> None:
    """Refuse a file of statistics before the run. Raises OutputError."""
    if path.suffix.lower() not in SUFFIXES:
        raise OutputError(f"Statistics are a .csv or .json file, not '{path.name}'.", "Give such a name.")
    refuse_existing(path, overwrite)
    if not path.parent.is_dir():
        raise OutputError(f"The folder {path.parent} does not exist.", "Create it first.")


def write_statistics(path: Path, measured: Mapping[str, Measures], overwrite: bool) -> None:
    """One row, or one object, a segment.

    Raises:
        OutputError: there is such a file meanwhile, or it cannot be written.
    """
    refuse_existing(path, overwrite)
    rows = [{"segment": name, **rounded(asdict(one))} for name, one in measured.items()]
    if path.suffix.lower() == ".json":
        text = json.dumps(rows, indent=1, ensure_ascii=False)
    else:
        text = as_csv(["segment", *(field.name for field in fields(Measures))], (row.values() for row in rows))
    try:
        replace_file(path, text.encode("utf-8"))
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}.") from error


def rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers as precise as a table needs them; None where nothing was found."""
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in values.items()}


def columns(labels: Sequence[str]) -> list[str]:
    """The titles of the measures of labels in a table of cases, their volumes apart."""
    return [f"{label} {title}" for label in labels for title in _TITLES.values()]


def cells(measured: Mapping[str, Mapping[str, Any]], labels: Sequence[str]) -> list[Any]:
    """What stands under :func:`columns`; empty where it was not measured, or nothing was found."""
    values = (measured.get(label, {}).get(name) for label in labels for name in _TITLES)
    return ["" if value is None else value for value in values]
