"""A file or series of several volumes, such as a beating heart: each frame is a case, then all are put together.

Into a folder, each frame becomes a file, and ``volumes.csv`` tells the volumes over time. Into one file, frames wait in
a folder beside it until all are done, so that a run that was stopped goes on; then the folder goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import OutputError
from ..files import refuse_existing, replace_file
from ..tables import as_csv, refuse_foreign_table
from ..volumes.frames import FrameList, find_frames
from ..volumes.writing import IMAGE_SUFFIXES, result_stem, result_suffix
from .cases import Case, Target, refuse_replacing
from .cohort import Cohort
from .finding import real

_VOLUMES = "volumes.csv"
_COLUMNS = ("frame", "at")  # the first of that table


@dataclass(frozen=True)
class Sequence4D:
    """The frames of one input.

    Attributes:
        source: the case as if it were one volume.
        names: what tells each frame from the others.
        step: from one to the next, as :class:`FrameList` has it.
        cases: one a frame.
        together: they become one file in the end.
    """

    source: Case
    names: tuple[str, ...]
    step: float
    cases: tuple[Case, ...]
    together: bool

    @property
    def folder(self) -> Path:
        """Where the frames go."""
        return self.cases[0].output.parent

    @property
    def table(self) -> Path:
        """Of the volumes over time."""
        if not self.together:
            return self.folder / _VOLUMES
        return self.source.output.with_name(f"{result_stem(self.source.output)}.{_VOLUMES}")

    def check(self) -> None:
        """Refuse, before the run, what could not be written or put together after it. Raises OutputError."""
        if not self.together:
            refuse_foreign_table(self.table, _COLUMNS)
            return
        if result_suffix(self.source.output) not in IMAGE_SUFFIXES:
            raise OutputError(
                f"{self.source.name} has {len(self.cases)} frames, which {self.source.output.name} cannot hold.",
                f"Give {', '.join(IMAGE_SUFFIXES)}, or a folder for a file a frame (-o FOLDER/ --format .seg.nrrd).",
            )
        if self.source.probabilities or self.source.preview or self.source.statistics:
            raise OutputError(
                f"{self.source.name} has {len(self.cases)} frames; probabilities, previews and statistics are of one.",
                "Give folders for them and for the result (-o FOLDER/).",
            )
        refuse_replacing(self.source.output, set(map(real, self.source.inputs)))
        for path in (self.source.output, self.table):
            refuse_existing(path, self.source.overwrite)

    def finish(self, cohort: Cohort) -> tuple[Path, ...]:
        """Tell the volumes over time and, where that was asked for, make one file of all frames.

        Returns:
            what was written; nothing where a frame is missing.

        Raises:
            OutputError: a file cannot be written; the frames stay.
        """
        told = [cohort.told(case) for case in self.cases]
        if not all(document and document["state"] == "done" for document in told):
            return ()
        labels = list(dict.fromkeys(name for document in told for name in document["millilitres"]))
        rows = [
            [number, name, *(document["millilitres"].get(label) for label in labels)]
            for number, (name, document) in enumerate(zip(self.names, told, strict=True), 1)
        ]
        text = as_csv([*_COLUMNS, *(f"{label} / ml" for label in labels)], rows)
        try:
            replace_file(self.table, text.encode("utf-8", "replace"))
        except OSError as error:
            raise OutputError(f"{self.table} cannot be written: {error.strerror}.") from error
        if not self.together:
            return (self.table,)
        self._put_together()
        for case in self.cases:
            case.output.unlink(missing_ok=True)
        cohort.forget(self.cases)
        return self.source.output, self.table

    def clear(self, cohort: Cohort) -> None:
        """Leave no folder of waiting frames where none is finished."""
        if self.together and not any(path.exists() for case in self.cases for path in case.outputs):
            cohort.forget(self.cases)

    def _put_together(self) -> None:
        from ..volumes.volume import load_volume
        from ..volumes.writing import write_label_frames

        volumes = [load_volume(case.output) for case in self.cases]
        first = volumes[0].geometry
        for case, volume in zip(self.cases, volumes, strict=True):
            if not volume.geometry.same_grid(first):
                raise OutputError(
                    f"The frames of {self.source.name} do not lie on one grid: {case.output.name} differs.",
                    f"Take them from {self.folder}, one by one.",
                )
        path, overwrite = self.source.output, self.source.overwrite
        write_label_frames(path, [volume.array for volume in volumes], first, self.step, overwrite)


def split_into_frames(cases: Sequence[Case], output: Target, channels: int) -> tuple[list[Case], list[Sequence4D]]:
    """Each case of several frames as so many cases.

    Args:
        output: where the results go, as the user said it.
        channels: of the model. With more than one, a fourth dimension may be that of channels: it is refused when it
            is read.

    Raises:
        OutputError: the results could not be put together.
    """
    split, sequences, tables = [], [], {}
    for case in cases:
        found = find_frames(case.inputs[0]) if channels == len(case.inputs) == 1 else None
        if found is None:
            split.append(case)
            continue
        frames = _frames(case, found, output.is_file)
        sequence = Sequence4D(case, found.names, found.step, frames, output.is_file)
        sequence.check()
        other = tables.setdefault(sequence.table, case)
        if other is not case:
            raise OutputError(
                f"{other.inputs[0]} and {case.inputs[0]} would share {sequence.table}.",
                "Rename one of them, or give each its own folder.",
            )
        split += sequence.cases
        sequences.append(sequence)
    return split, sequences


def _frames(case: Case, found: FrameList, together: bool) -> tuple[Case, ...]:
    digits = len(str(len(found)))

    def place(path: Path | None, number: int) -> Path | None:
        if path is None:
            return None
        folder = path.with_name(f"{path.name}.frames" if together else result_stem(path))
        return folder / f"frame-{number:0{digits}}{path.name[len(result_stem(path)) :]}"

    return tuple(
        replace(
            case,
            name=f"{case.name}, frame {number} of {len(found)}",
            output=place(case.output, number),
            probabilities=place(case.probabilities, number),
            preview=place(case.preview, number),
            frame=(number - 1, len(found)),
        )
        for number in range(1, len(found) + 1)
    )
