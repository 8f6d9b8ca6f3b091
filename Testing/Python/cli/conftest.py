"""The model of the command line's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from bundles import write_tiny_bundle


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """A small untrained one, a folder that no test changes."""
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny").path
