"""JSON from elsewhere: what Python's own reader lets through, and nobody writes on purpose, is refused.

Standard library only.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

MAX_DEPTH = 64  # of what USEMA reads, nothing needs 10
# Tabs and line breaks may stand in a description. The rest moves the cursor of a terminal, or worse.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202d\u202e\ud800-\udfff]")


def loads(data: bytes) -> Any:
    """The value of a JSON text in UTF-8.

    Args:
        data: all of it; whoever reads it from somewhere limits its size.

    Raises:
        ValueError: it is no JSON, or nested deeper than ``MAX_DEPTH``, or holds a number that is not finite, a control
            character, or half of a surrogate pair; the text says which.
    """
    try:
        document = json.loads(data.decode("utf-8"), parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError:
        raise _too_deep() from None
    level = [document]
    for _ in range(MAX_DEPTH):
        for value in level:
            for text in [value] if isinstance(value, str) else value if isinstance(value, dict) else ():
                if found := _CONTROL.search(text):
                    raise ValueError(f"{text[:40]!r} holds the character {found[0]!r}")
        level = [inner for value in level for inner in _inside(value)]
        if not level:
            return document
    raise _too_deep()


def _inside(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _too_deep() -> ValueError:
    return ValueError(f"it is nested deeper than {MAX_DEPTH}")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large")
    return number


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
