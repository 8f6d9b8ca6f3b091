"""Runs Testing/Benchmarks/paper_data.py, for its tests."""

from __future__ import annotations

import click
from click.testing import CliRunner
from paper_data import main as paper_data


def paper(*arguments: object) -> str:
    """Output of a command that succeeds."""
    result = CliRunner().invoke(paper_data, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def refused(*arguments: object, command: click.Command = paper_data) -> str:
    """What is said by a command that is refused."""
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert result.exit_code == 1, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.output
