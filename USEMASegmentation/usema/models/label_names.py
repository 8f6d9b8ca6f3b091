"""Names of labels, however they are written: "Left kidney", kidney_left and "left kidney" are one.

Standard library only.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from ..errors import InputError
from .metadata import Label

_SIDES = ("left", "right")


def same(name: str) -> str:
    """What all ways to write a name have in common: lower case, words joined by "_", the side last."""
    words = [word for word in re.split(r"[\s_\-]+", name.lower()) if word]
    return "_".join(sorted(words, key=lambda word: word in _SIDES))


def chosen(names: Sequence[str], labels: Sequence[Label]) -> tuple[Label, ...]:
    """The labels that are meant, in the model's order.

    Args:
        names: each of one label, or of several with commas between.
        labels: the model's.

    Raises:
        InputError: a name is none of theirs; says which are known.
    """
    known = {same(label.name): label for label in labels}
    meant = set()
    for text in names:
        # A name may hold a comma itself.
        for name in [text] if same(text) in known else filter(None, map(str.strip, text.split(","))):
            if same(name) not in known:
                raise InputError(f"The model has no label {name!r}.", _known(same(name), known))
            meant.add(known[same(name)].value)
    if names and not meant:
        raise InputError("No label was named.", _known("", known))
    return tuple(label for label in labels if label.value in meant)


def _known(name: str, known: dict[str, Label]) -> str:
    alike = [key for key in known if name and name in key] or difflib.get_close_matches(name, known, 5)
    like = f"Did you mean {' or '.join(known[key].name for key in alike[:5])}? " if alike else ""
    return f"{like}It has: {', '.join(label.name for label in known.values())}."
