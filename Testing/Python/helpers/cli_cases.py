"""The command `usema`, as a user types it."""

from __future__ import annotations

import re

from click.testing import CliRunner
from usema.cli import main

NON_COMMERCIAL = {
    "name": "CC-BY-NC-4.0",
    "url": "https://creativecommons.org/licenses/by-nc/4.0/",
    "commercial_use": False,
    "attribution": "A department",
}


def usema(*arguments, **options):
    return CliRunner(env={"COLUMNS": "200"}).invoke(
        main, [str(argument) for argument in arguments], catch_exceptions=False, **options
    )


def said(result) -> str:
    return re.sub(r"\s+", " ", result.output)
