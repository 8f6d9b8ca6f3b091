"""How SimpleITK's warnings and errors reach a person: warnings through logging, errors as one short line.

The libraries below ITK (MetaIO, GDCM, the JPEG codecs) print some of theirs straight to the process's standard error.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import SimpleITK as sitk

log = logging.getLogger(__name__)

# Lines of ITK's that tell a place in its source, or (MetaImage) the reason of some earlier, handled failure.
_NOT_FOR_PEOPLE = ("WARNING: In ", "Reason: No such file", "Reason: Success", "Reason: Inappropriate ioctl")
_STDERR = 2
_taken = threading.Lock()


class _Collector(sitk.LoggerBase):
    """Receives what ITK would print; the other Display methods of LoggerBase end up here too."""

    def __init__(self):
        super().__init__()
        self.texts: list[str] = []

    def DisplayText(self, text: str) -> None:
        self.texts.append(text)


@contextmanager
def itk_warnings_logged(path: Path) -> Iterator[None]:
    """Within it ITK and its libraries print nothing; what they said is logged once, with the path, if all went well.

    ITK repeats a warning for the header and for the voxels, and where the block fails the error says it better. The
    collector is one for the process, as ITK's own output is.
    """
    collector = _Collector()
    previous = collector.SetAsGlobalITKLogger()
    printed: list[str] = []
    try:
        with _standard_error_kept(printed):
            yield
    finally:
        previous.SetAsGlobalITKLogger()
    for text in dict.fromkeys(_short(text) for text in [*collector.texts, *printed]):
        log.warning("%s: %s", path, text)


def itk_reason(error: RuntimeError) -> str:
    """The first and the last line of what ITK says, without source files and object addresses."""
    return _short(str(error).partition("ERROR: ")[2] or str(error))


@contextmanager
def _standard_error_kept(printed: list[str]) -> Iterator[None]:
    """What is written to the file descriptor goes into ``printed``; what Python writes goes where it always goes.

    Does nothing where there is no standard error (an application with windows), or another thread does it already.
    """
    if not _taken.acquire(blocking=False):
        yield
        return
    try:
        try:
            shown = os.dup(_STDERR)
        except OSError:
            yield
            return
        python, own = sys.stderr, None
        with tempfile.TemporaryFile() as kept:
            try:
                if _writes_to_descriptor(python):
                    python.flush()
                    own = open(shown, "w", encoding=python.encoding, errors=python.errors, closefd=False, buffering=1)  # noqa: SIM115
                    sys.stderr = own
                os.dup2(kept.fileno(), _STDERR)
                yield
            finally:
                os.dup2(shown, _STDERR)
                if own is not None:
                    sys.stderr = python if sys.stderr is own else sys.stderr
                    own.flush()
                os.close(shown)
                kept.seek(0)
                printed += [line for line in kept.read().decode("utf-8", "replace").splitlines() if line.strip()]
    finally:
        _taken.release()


def _writes_to_descriptor(stream) -> bool:
    try:
        return stream.fileno() == _STDERR
    except (AttributeError, OSError, ValueError):  # no stream, or one that tests and applications put in its place
        return False


def _short(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith(_NOT_FOR_PEOPLE)]
    kept = lines if len(lines) < 3 else [lines[0], lines[-1]]
    return re.sub(
        r" ?\(0x[0-9a-fA-F]+\)|^Exception thrown in SimpleITK \w+: |\S+\.(?:[hc]xx|h):\d+(?: \(\))?: ?",
        "",
        " ".join(kept),
    ).rstrip(".")
