"""Tables as text that a spreadsheet opens. Standard library only."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from io import StringIO
from typing import Any

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


def _shown(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULAS) else cell
