"""Tables as text that a spreadsheet opens. Standard library only."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from .errors import OutputError

# What a spreadsheet takes for the beginning of a formula, which may start programs and send what stands in other cells:
# the list of OWASP's page "CSV Injection", with the wide characters of East Asian keyboards.
_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def as_csv(header: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    """A table as text; None is an empty cell.

    Names of files, labels and models come from others. A text that a spreadsheet would compute gets an apostrophe in
    front, by which it stays text there; a number stays as it is.
    """
    text = StringIO()
    writer = csv.writer(text)
    for row in (header, *rows):
        writer.writerow([_shown(cell) for cell in row])
    return text.getvalue()


def refuse_foreign_table(path: Path, first: Sequence[str]) -> None:
    """Refuses, before a run, to replace a table whose first columns are not these: it is not USEMA's.

    Raises:
        OutputError: says so.
    """
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            line = file.readline()
    except OSError:  # there is none, or what is there will be told when it is written
        return
    names = [name.strip('" \n') for name in re.split("[,;\t]", line)]  # as a spreadsheet may have saved it
    if line and names[: len(first)] != list(first):
        raise OutputError(
            f"{path} is not a table of USEMA's, which would have this name.", "Rename it, or choose another folder."
        )


def _shown(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULAS) else cell
