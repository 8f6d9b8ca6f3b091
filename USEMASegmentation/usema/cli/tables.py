"""Tables and lines whose texts stand as they are: a name such as "Kidney [left]" or "a:heart:b" is no markup."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import printable


def add_row(table: Table, *cells: object) -> None:
    """A row of plain texts; rich would take brackets in strings for styles and words in colons for emoji."""
    table.add_row(*(Text(printable(str(cell))) for cell in cells))


def print_table(table: Table) -> None:
    """On stdout; where nobody looks, one line per row, for grep."""
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 200)
    console.print(table)


def say(console: Console, line: str, style: str = "") -> None:
    """One plain line, however long: what follows a pipe must not be broken."""
    console.print(Text(printable(line), style=style), soft_wrap=True)
