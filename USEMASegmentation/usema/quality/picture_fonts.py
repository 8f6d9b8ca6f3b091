"""Fonts for the names in a picture: matplotlib's own lacks Japanese and Chinese, emoji and more."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from pathlib import Path

_OWN = "DejaVu Sans"  # comes with matplotlib
_BOXES = ("Last Resort", "Noto Sans Last", ".LastResort")  # have every letter, drawn as a box that names its script


def fonts_for(texts: Iterable[str]) -> tuple[list[str], set[str]]:
    """Families of fonts of this computer that together have the letters of the texts, and the letters that none has.

    Fonts of pixels (most emoji) are passed over: matplotlib cannot scale them.
    """
    from matplotlib import font_manager

    families, missing = [_OWN], {letter for text in texts for letter in text if not letter.isspace()}
    missing -= _letters(font_manager.findfont(_OWN))
    known = {entry.fname: entry.name for entry in font_manager.fontManager.ttflist}
    others = {file: family for file, family in known.items() if family != _OWN and not family.startswith(_BOXES)}
    for file, family in sorted(others.items()) if missing else ():
        if found := missing & _letters(file):
            families.append(family)
            missing -= found
        if not missing:
            break
    return families, missing


def without(text: str, missing: set[str]) -> str:
    """The text with "?" for letters that no font has; what is only a mark on or between letters goes."""
    marks = {letter for letter in missing if unicodedata.category(letter) in ("Mn", "Me", "Cf")}
    return "".join("?" if letter in missing else letter for letter in text if letter not in marks)


def _letters(file: str | Path) -> set[str]:
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(str(file))
        return {chr(code) for code in font.get_charmap()} if font.scalable else set()
    except (OSError, RuntimeError):  # deleted since matplotlib looked, or damaged
        return set()
