"""How SimpleITK's warnings and errors reach a person: warnings through logging, errors as one short line."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import SimpleITK as sitk

log = logging.getLogger(__name__)

# Lines of ITK's that tell a place in its source, or (MetaImage) the reason of some earlier, handled failure.
_NOT_FOR_PEOPLE = ("WARNING: In ", "Reason: No such file")


class _Collector(sitk.LoggerBase):
    """Receives what ITK would print; the other Display methods of LoggerBase end up here too."""

    def __init__(self):
        super().__init__()
        self.texts: list[str] = []

    def DisplayText(self, text: str) -> None:
        self.texts.append(text)


@contextmanager
def itk_warnings_logged(path: Path) -> Iterator[None]:
    """Within it ITK prints nothing; what it warned of is logged once, with the path, if the block succeeds.

    ITK repeats a warning for the header and for the voxels, and where the block fails the error says it better. The
    collector is one for the process, as ITK's own output is.
    """
    collector = _Collector()
    previous = collector.SetAsGlobalITKLogger()
    try:
        yield
    finally:
        previous.SetAsGlobalITKLogger()
    for text in dict.fromkeys(_short(text) for text in collector.texts):
        log.warning("%s: %s", path, text)


def itk_reason(error: RuntimeError) -> str:
    """The first and the last line of what ITK says, without source files and object addresses."""
    return _short(str(error).partition("ERROR: ")[2] or str(error))


def _short(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith(_NOT_FOR_PEOPLE)]
    kept = lines if len(lines) < 3 else [lines[0], lines[-1]]
    return re.sub(r" ?\(0x[0-9a-fA-F]+\)", "", " ".join(kept)).rstrip(".")
