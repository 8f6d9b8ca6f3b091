"""Progress where nobody watches: a line now and then, none for a short run."""

from __future__ import annotations

import pytest
from usema.cli.progress import _lines, duration


def test_a_log_gets_a_line_after_ten_seconds_and_then_every_thirty():
    told, now = [], 0.0
    update = _lines("a.nii", told.append, clock=lambda: now)
    for second in range(100):
        now = float(second)
        update(second + 1, 100, 99.0 - second)
    assert told == [
        "a.nii: tile 11 of 100, about 89 s left",
        "a.nii: tile 41 of 100, about 59 s left",
        "a.nii: tile 71 of 100, about 29 s left",
    ]


def test_a_short_run_and_the_last_tile_say_nothing():
    told, now = [], 0.0
    update = _lines("a.nii", told.append, clock=lambda: now)
    update(1, 2, None)
    now = 500.0
    update(2, 2, 0.0)
    assert told == []


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (89, "89 s"), (90, "2 min"), (3599, "1 h 0 min"), (9000, "2 h 30 min")]
)
def test_durations_are_read_at_a_glance(seconds, text):
    assert duration(seconds) == text
