"""Which of two versions is newer, by the rules of semver.org (2.0.0, clause 11). Standard library only."""

from __future__ import annotations

from typing import Any


def key(version: str) -> tuple[Any, ...]:
    """Sorts versions: 0.9.0 < 0.10.0-rc.1 < 0.10.0-rc.2 < 0.10.0.

    Args:
        version: ``major.minor.patch`` or ``major.minor.patch-word.number``; anything else sorts before all versions.
    """
    numbers, dash, suffix = version.partition("-")
    try:
        release = tuple(map(int, numbers.split(".")))
    except ValueError:
        return ((-1,), True, ())
    # Of two identifiers, a number is smaller than a word; a version without any is the release itself.
    words = tuple((not word.isdecimal(), int(word) if word.isdecimal() else word) for word in suffix.split("."))
    return (release, not dash, words if dash else ())


def newer(version: str, other: str) -> bool:
    """Whether ``version`` comes after ``other``."""
    return key(version) > key(other)
