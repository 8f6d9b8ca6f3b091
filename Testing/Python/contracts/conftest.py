"""Compares what others rely on with what was promised, line by line."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path

import pytest

WRITE = "USEMA_WRITE_CONTRACTS"


@pytest.fixture
def promised():
    """``promised(name, lines)`` fails where the lines are not those of ``name.txt`` in this folder."""

    def check(name: str, lines: Iterable[str]) -> None:
        file = Path(__file__).with_name(f"{name}.txt")
        found = [line.rstrip() for line in lines]
        if os.environ.get(WRITE) == "1":
            file.write_text("\n".join(found) + "\n", encoding="utf-8")
        kept = file.read_text(encoding="utf-8").splitlines()
        difference = list(difflib.unified_diff(kept, found, "promised", "found", lineterm="", n=1))
        if difference:
            pytest.fail(
                f"{name} is not what was promised:\n" + "\n".join(difference) + "\n\n"
                "Scripts, scenes, files or servers of others rely on these lines. If nobody meant to change them, mend "
                "the code. If they are to change: leave the old name working beside the new one where it can be, raise "
                "the version of what has one (protocol, schema), say it in the README, and write the file with\n"
                f"    {WRITE}=1 python -m pytest Testing/Python/contracts\n"
                "Its difference belongs into the same commit as the change.",
                pytrace=False,
            )

    return check
