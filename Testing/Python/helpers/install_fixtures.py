"""Fixtures of the tests of installing; a test file takes them by ``pytest_plugins``, with ``download_fixtures``.

All files share the fixtures of all plugins, so each name stands in one of them only.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from faulty_server import FaultyServer, running
from install_cases import packed


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """A small model."""
    return packed(tmp_path_factory.mktemp("made") / "model")


@pytest.fixture
def model_server(file, own_network):
    """Serves it."""
    with running(FaultyServer(file.read_bytes())) as server:
        yield server
