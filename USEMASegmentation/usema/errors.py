"""Errors that a user can act on. Standard library only.

Each carries a stable ``code`` for programs, a message that names the offending value, and a ``hint`` that says what
to do next. Anything else that escapes the engine is a defect and may show a traceback.
"""

from __future__ import annotations

import re

# Control characters but tab and line feed, and those that turn the direction of what follows.
_NOT_TO_BE_SEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """A text that a terminal only shows, whoever named the file in it: an escape character becomes "\\x1b"."""
    return _NOT_TO_BE_SEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class UsemaError(Exception):
    """Base of every expected error.

    Args:
        message: what is wrong, with the user's own value in it.
        hint: what the user can do next; may be empty.
    """

    code = "error"

    def __init__(self, message: str, hint: str = ""):
        super().__init__(message)
        self.message = printable(message)
        self.hint = printable(hint)

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class InputError(UsemaError):
    """A volume, file or option that cannot be used as it is."""

    code = "input"


class OutputError(UsemaError):
    """A result that cannot be written where it should go."""

    code = "output"


class BundleError(UsemaError):
    """A model bundle that is incomplete, altered, or made for a newer engine."""

    code = "bundle"


class StoreError(UsemaError):
    """A model that could not be downloaded or put into the cache. What came before it is as it was."""

    code = "store"


class DeviceError(UsemaError):
    """A device that is not there, or that ran out of memory on the last step of the memory ladder."""

    code = "device"


class MissingDependencyError(UsemaError):
    """An optional package that the requested work needs is not installed."""

    code = "dependency"


class NoPlaceError(MissingDependencyError):
    """Nothing of this user's can be kept: there is no home folder. What keeps nothing runs all the same."""

    code = "place"


class Cancelled(UsemaError):
    """The user asked to stop. Nothing was written."""

    code = "cancelled"
