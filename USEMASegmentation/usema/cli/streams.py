"""What the command prints, and what it does not: letters that a terminal lacks, warnings, lines of libraries."""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import click

from ..errors import printable

DEBUG = "USEMA_DEBUG"  # set it to see tracebacks and what libraries say


class _Warnings(logging.Handler):
    """The engine's own warnings, as sentences on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        click.secho(f"Warning: {printable(record.getMessage())}", fg="yellow", err=True)


_OWN = _Warnings(logging.WARNING)
_NOTHING = logging.NullHandler()


def prepare_streams() -> None:
    """Call once before anything is printed; a second time does no harm.

    An output that is a file in code page 1252, or a terminal in ASCII, must not end the work over one letter: what it
    cannot show becomes "?". Warnings of the engine are shown as sentences, those of libraries only under USEMA_DEBUG.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):  # none, closed, or not a text file of Python's own
            stream.reconfigure(errors="replace")
    logging.getLogger("usema").addHandler(_OWN)
    if DEBUG not in os.environ:
        logging.getLogger().addHandler(_NOTHING)  # else Python prints what no other handler takes
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
        if not sys.warnoptions:
            warnings.simplefilter("ignore")


@contextmanager
def said_by_the_engine(said: list[str]) -> Iterator[None]:
    """Puts into a list what the engine logs as a warning (of how a file was read, for example) in this thread."""
    handler, thread = logging.Handler(logging.WARNING), threading.get_ident()
    handler.addFilter(lambda record: record.thread == thread)
    handler.emit = lambda record: said.append(record.getMessage())
    logger = logging.getLogger("usema")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
