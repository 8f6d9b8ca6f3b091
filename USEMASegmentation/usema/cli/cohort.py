"""Many cases into one folder: what is done is known by its hashes, so that a run resumes; a table of all.

    OUT/<path of the input>             the results
    OUT/status/<name>-<hash>.json       one a case: how it was made and what came of it
    OUT/cohort.csv                      the same as a table, of all parts of the cohort that are there

A case is done if its inputs (paths, sizes, times), the model (hash of its model.json, which holds that of the weights)
and the settings are those that its status tells, and its results are there. Then it is not done again, and what a
person has corrected in a result meanwhile stays. What a stopped run left is replaced only if nobody changed it. A run
that fails before it writes anything, because its settings are others for example, leaves a case done that was.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import InputError, UsemaError
from ..files import remove_abandoned, replace_file, sha256_of_file
from ..inference.speeds import FAST
from ..models.bundle import Bundle
from ..models.label_names import chosen
from ..tables import as_csv, refuse_foreign_table
from .case_run import Outcome, Settings
from .cases import Case
from .statistics import cells, columns, rounded
from .statuses import STATUS_FOLDER, read_status

TABLE = "cohort.csv"
DONE, FAILED, BEGUN = "done", "failed", "begun"
_COLUMNS = ("case", "state", "seconds", "warnings", "error", "input", "output", "model", "version")


class Cohort:
    """The cases of a run into ``folder``.

    Args:
        folder: where the results go.
        bundle: the model.
        settings: of the run.
    """

    def __init__(self, folder: Path, bundle: Bundle, settings: Settings):
        self._folder = folder
        self._bundle = bundle
        self._settings = {
            "overlap": settings.overlap,
            "mirror": settings.mirror,
            "interpolate_slices": settings.interpolate_slices,
        }
        if settings.pixel_size is not None:
            self._settings["pixel_size"] = settings.pixel_size
        if settings.speed == FAST:  # absent as before where it is exact, which a preview does not change
            self._settings["speed"] = settings.speed
        if settings.delta is not None:
            self._settings["delta"] = sha256_of_file(settings.delta)
        if settings.only:  # absent as before where all labels are wanted
            self._settings["only"] = [label.name for label in chosen(settings.only, bundle.metadata.result_labels)]

    def left_to_do(self, cases: Sequence[Case]) -> list[Case]:
        """Those that are not done; what a stopped or failed run of the same left behind may be replaced.

        Raises:
            OutputError: a table of somebody else's has the name of that of the cohort.
        """
        refuse_foreign_table(self._folder / TABLE, _COLUMNS[:2])
        for folder in (self._folder, self._folder / STATUS_FOLDER):
            remove_abandoned(folder)
        left = []
        for case in cases:
            told = self.told(case)
            if not _is_done(case, told):
                left.append(self._replaceable(case, told))
            elif told["error"]:
                self._write(case, {**told, "error": ""})  # of a run that was another one
        return left

    def record(self, case: Case, outcome: Outcome, state: str, error: UsemaError | None = None) -> None:
        """Writes the status of a case, whole; of one that is done, and of which nothing was written now, the error."""
        before = read_status(self._status(case)) if state == FAILED and not outcome.written else None
        if before and before["state"] == DONE and case.output.is_file():
            self._write(case, {**before, "error": str(error)})
            return
        document = {
            "case": case.name,
            "state": state,
            **self._identity(case),
            "outputs": {self._place(path): _state(path) for path in outcome.written},
            "millilitres": {name: round(volume, 4) for name, volume in outcome.millilitres.items()},
            "measures": {name: rounded(asdict(measures)) for name, measures in outcome.measures.items()},
            "numbers": outcome.numbers,
            "seconds": outcome.seconds,
            "warnings": outcome.warnings,
            "error": str(error) if error else "",
            "usema": __version__,
            "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        self._write(case, document)

    def _write(self, case: Case, document: dict[str, Any]) -> None:
        # In ASCII, which can tell of names of files that are no text.
        replace_file(self._status(case), json.dumps(document, indent=1).encode("ascii"))

    def write_table(self) -> Path | None:
        """One line a case, of all that have a status, with what its segments measure.

        Returns:
            its path; None without a case.
        """
        rows = [read_status(path) for path in sorted((self._folder / STATUS_FOLDER).glob("*.json"))]
        rows = sorted((row for row in rows if row), key=lambda row: row["case"])
        if not rows:
            return None
        labels = list(dict.fromkeys(name for row in rows for name in row["millilitres"]))
        numbers = list(dict.fromkeys(name for row in rows for name in row.get("numbers", ())))
        table = []
        for row in rows:
            told = {
                **row,
                "warnings": " ".join(row["warnings"]),
                "input": " ".join(row["inputs"]),
                "output": next(iter(row["outputs"]), ""),
                "model": row["model"]["name"],
                "version": row["model"]["version"],
            }
            volumes = [row["millilitres"].get(name, "") for name in labels]
            own = [row.get("numbers", {}).get(name, "") for name in numbers]
            table.append([*(told[column] for column in _COLUMNS), *volumes, *cells(row["measures"], labels), *own])
        path = self._folder / TABLE
        header = [*_COLUMNS, *(f"{name} / ml" for name in labels), *columns(labels), *numbers]
        replace_file(path, as_csv(header, table).encode("utf-8", "replace"))
        return path

    def _identity(self, case: Case) -> dict[str, Any]:
        """What decides what the results are."""
        metadata = self._bundle.metadata
        model = {"name": metadata.name, "version": metadata.version, "sha256": self._bundle.metadata_sha256}
        kinds = ("output", "probabilities", "preview", "objects", "table")
        asked = [kind for kind in kinds if getattr(case, kind) is not None]
        inputs = {str(path.resolve()): _state(path) for path in case.inputs}
        settings = {**self._settings, "results": asked}
        if case.frame:
            settings["frame"] = list(case.frame)
        return {"inputs": inputs, "model": model, "settings": settings}

    def forget(self, cases: Sequence[Case]) -> None:
        """Removes their statuses and the table, which must be of these cases alone, and the folder if it is empty."""
        for path in (*map(self._status, cases), self._folder / TABLE):
            path.unlink(missing_ok=True)
        for folder in (self._folder / STATUS_FOLDER, self._folder):
            with suppress(OSError):  # something else lies in it
                folder.rmdir()

    def told(self, case: Case) -> dict[str, Any] | None:
        """The status of a case, if it is of the same inputs, model and settings."""
        document, identity = read_status(self._status(case)), self._identity(case)
        return document if document and all(document[key] == value for key, value in identity.items()) else None

    def error(self, case: Case) -> str:
        """Why it failed last, whatever the settings; empty if it did not."""
        document = read_status(self._status(case))
        return document["error"] if document else ""

    def _replaceable(self, case: Case, told: dict[str, Any] | None) -> Case:
        there = [path for path in case.outputs if path.exists()]
        own = told and all(told["outputs"].get(self._place(path)) == _state(path) for path in there)
        return replace(case, overwrite=True) if own else case

    def _place(self, path: Path) -> str:
        """From the folder of the results: the same from wherever the command is given."""
        return Path(os.path.relpath(path, self._folder)).as_posix()

    def _status(self, case: Case) -> Path:
        """Short, and of one case only, however long the name of its result and wherever that lies."""
        digest = hashlib.sha256(os.fsencode(self._place(case.output))).hexdigest()[:12]
        name = case.output.name.encode("utf-8", "replace")[:80].decode("utf-8", "ignore")
        return self._folder / STATUS_FOLDER / f"{name}-{digest}.json"


def _is_done(case: Case, told: dict[str, Any] | None) -> bool:
    return bool(told) and told["state"] == DONE and not case.overwrite and all(map(Path.is_file, case.outputs))


def part_of(cases: Sequence[Case], part: str) -> list[Case]:
    """Every n-th case from the i-th on, where ``part`` is "i/n": the same split on every computer.

    Raises:
        InputError: it is no such text.
    """
    found = re.fullmatch(r"(\d+)/(\d+)", part)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise InputError(f"'{part}' is no part.", "Say 1/4 for the first of four, ..., 4/4 for the last.")
    return list(cases[int(found[1]) - 1 :: int(found[2])])


def _state(path: Path) -> list:
    """What tells whether a file, or the files of a folder, have changed, without reading them; empty: out of reach."""
    try:
        if not path.is_dir():
            return [path.stat().st_size, path.stat().st_mtime_ns]
        stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(path.iterdir())]
    except OSError:
        return []
    return [len(stats), hashlib.sha256(json.dumps(stats).encode()).hexdigest()]
