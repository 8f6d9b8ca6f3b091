"""JSON from elsewhere: what nobody writes on purpose is refused with the reason, all else is read."""

from __future__ import annotations

import json

import pytest
from usema import strict_json


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"a": -Infinity}', "-Infinity is not JSON"),
        ('{"a": 1e400}', "1e400 is too large"),
        ("[" * 1000 + "]" * 1000, "deeper than 64"),
        ("[" * 200 + "]" * 200, "deeper than 64"),
        ('{"a":' * 100 + "1" + "}" * 100, "deeper than 64"),
        ("[" * 10**6, "deeper than 64"),
        ('["\\u001b[2J"]', r"holds the character '\\x1b'"),
        ('["\\u009b2J"]', r"holds the character '\\x9b'"),
        ('{"\\u0000": 1}', r"holds the character '\\x00'"),
        ('["Left\\u202etfel"]', "holds the character"),
        ('["\\ud800"]', "holds the character"),
        ("9" * 5000, "."),
    ],
)
def test_what_nobody_writes_on_purpose_is_refused(text, reason):
    with pytest.raises(ValueError, match=reason):
        strict_json.loads(text.encode())


def test_what_is_no_utf_8_is_refused():
    with pytest.raises(ValueError, match="utf-8"):
        strict_json.loads(b'"\xff"')


def test_all_else_is_read_as_it_stands():
    document = {
        "a": [1, 2.5, -1e300, None, True, "Überblick, 脳\n\t\r"],
        "": {},
        "deep": json.loads("[" * 50 + "]" * 50),
    }
    assert strict_json.loads(json.dumps(document).encode()) == document
