"""Reads parts of a model card, for its tests."""

from __future__ import annotations

import re


def section(text: str, title: str) -> str:
    return re.split(r"^## ", text.split(f"\n## {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def table(text: str, title: str) -> list[list[str]]:
    """The rows of a section's table, without its head."""
    lines = [line for line in section(text, title).splitlines() if line.startswith("|")]
    return [line.strip("| ").split(" | ") for line in lines[2:]]
