"""The benchmarks' own modules on the path, and the paper's data sets, prepared from stand-ins of their downloads."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "Benchmarks"))

from paper_commands import paper
from recipe_downloads import make_downloads


@pytest.fixture(scope="session")
def downloads(tmp_path_factory) -> dict[str, Path]:
    return make_downloads(tmp_path_factory.mktemp("downloads"))


@pytest.fixture(scope="session")
def raw(downloads, tmp_path_factory) -> Path:
    """Every data set, prepared by the command that `show` prints."""
    output = tmp_path_factory.mktemp("raw")
    for name, folder in downloads.items():
        line = next(line for line in paper("show", name).splitlines() if " prepare " in line)
        words = [{"FOLDER": folder, "RAW": output}.get(word, word) for word in shlex.split(line)]
        assert words[:2] == ["python", "Testing/Benchmarks/paper_data.py"]
        paper(*words[2:])
    return output
