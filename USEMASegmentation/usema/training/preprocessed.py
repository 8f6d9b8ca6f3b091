"""Whether what nnU-Net preprocessed is the whole data set, as it is now.

nnU-Net trains on the files that it finds. A preprocessing that was ended in the middle, or cases that were added later,
would make it train on a part of the data and say so nowhere. So a record beside the preprocessed data keeps which cases
they were made of, and which configurations are complete.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import InputError, UsemaError
from ..files import replace_file

RECORD = "usema_cases.json"
_ARRAYS = (".npz", ".b2nd")  # of nnU-Net 2.5, and of later ones


@dataclass(frozen=True)
class _Record:
    description_sha256: str  # of dataset.json
    cases: dict[str, list[int]]  # name -> sizes of its files
    complete: tuple[str, ...] = ()  # configurations


class Preprocessed:
    """The preprocessed data of one data set.

    Args:
        dataset: the raw folder.
        cases: as ``raw_dataset.cases_of`` has them.
        runs: the folder of runs.
        plans: name of nnU-Net's plans.
    """

    def __init__(self, dataset: Path, cases: Mapping[str, list[int]], runs: Path, plans: str):
        self.folder = runs / "preprocessed" / dataset.name
        self._dataset, self._runs, self._plans = dataset, runs, plans
        description = (dataset / "dataset.json").read_bytes()
        self._now = _Record(hashlib.sha256(description).hexdigest(), dict(cases))

    def is_complete(self, configuration: str) -> bool:
        """Whether a configuration holds every case of the data set as it is now.

        What is half, or of other cases, is removed, so that nnU-Net begins it anew.

        Raises:
            InputError: a training in this folder of runs has begun with other cases.
        """
        record = self._read()
        if record is None and self.folder.is_dir():
            record = self._adopt()
        if record is not None and (record.cases, record.description_sha256) != (
            self._now.cases,
            self._now.description_sha256,
        ):
            if self._trained():
                changes = _changes(record, self._now)
                raise InputError(
                    f"{self._dataset} is not what the training in {self._runs} began with: {changes}.",
                    "Choose another folder for the runs, or put the data set back as it was.",
                )
            shutil.rmtree(self.folder)
            record = None
        complete = record.complete if record else ()
        if configuration in complete and self._whole(configuration) >= self._now.cases.keys():
            return True
        if record is not None:
            complete = tuple(each for each in complete if each != configuration)
            self._write(complete)
        # With no configuration complete, the plans may be half as well.
        half = self._configuration(configuration) if complete else self.folder
        if half.is_dir():
            shutil.rmtree(half)
        return False

    def finish(self, configuration: str) -> None:
        """Notes that nnU-Net has preprocessed a configuration.

        Raises:
            UsemaError: cases are missing all the same.
        """
        missing = sorted(self._now.cases.keys() - self._whole(configuration))
        if missing:
            raise UsemaError(
                f"nnU-Net preprocessed {len(self._now.cases) - len(missing)} of {len(self._now.cases)} cases; "
                f"{_some(missing)} did not come out.",
                "Its lines above may say why; run the command again.",
            )
        record = self._read()
        before = record.complete if record else ()
        self._write((*(each for each in before if each != configuration), configuration))

    def _configuration(self, configuration: str) -> Path:
        return self.folder / f"{self._plans}_{configuration}"

    def _whole(self, configuration: str) -> set[str]:
        """Names of the cases that have both their files."""
        folder = self._configuration(configuration)
        found = {path.stem for path in folder.glob("*.pkl")}
        return {name for name in found if any((folder / f"{name}{ending}").is_file() for ending in _ARRAYS)}

    def _adopt(self) -> _Record | None:
        """The record of data that were preprocessed without one; None where no configuration is complete.

        Raises:
            InputError: they lack cases, and a training has begun with them.
        """
        every = {
            path.name.removeprefix(f"{self._plans}_"): path
            for path in self.folder.glob(f"{self._plans}_*")
            if path.is_dir()
        }
        complete = tuple(
            name
            for name, path in every.items()
            if self._whole(name) == self._now.cases.keys() and all(map(_is_intact, path.iterdir()))
        )
        if not complete and self._trained():
            least = max((self._whole(name) for name in every), key=len, default=set())
            raise InputError(
                f"The training in {self._runs} began with {len(least)} of the {len(self._now.cases)} cases of "
                f"{self._dataset}.",
                "Choose another folder for the runs.",
            )
        if not complete:
            return None
        self._write(complete)
        return self._read()

    def _trained(self) -> bool:
        return any((self._runs / "results" / self._dataset.name).glob("*/fold_*/checkpoint_*.pth"))

    def _read(self) -> _Record | None:
        try:
            document = json.loads((self.folder / RECORD).read_text(encoding="utf-8"))
            return _Record(document["description_sha256"], document["cases"], tuple(document["complete"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _write(self, complete: tuple[str, ...]) -> None:
        document = {**asdict(self._now), "complete": complete}
        replace_file(self.folder / RECORD, json.dumps(document, indent=1).encode("utf-8"))


def _is_intact(path: Path) -> bool:
    """Whether a file has its end; nothing is unpickled."""
    if path.suffix == ".npz":
        return zipfile.is_zipfile(path)  # its directory stands at the end
    if path.suffix == ".pkl":
        return path.read_bytes()[-1:] == b"."  # pickle's last instruction
    return True


def _changes(before: _Record, now: _Record) -> str:
    added, gone = sorted(now.cases.keys() - before.cases.keys()), sorted(before.cases.keys() - now.cases.keys())
    other = sorted(case for case in now.cases.keys() & before.cases.keys() if now.cases[case] != before.cases[case])
    parts = [
        f"{what}: {len(cases)} ({_some(cases)})"
        for cases, what in ((added, "cases added"), (gone, "gone"), (other, "with other files"))
        if cases
    ]
    return ", ".join(parts) or "another dataset.json"


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
