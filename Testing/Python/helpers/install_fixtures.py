"""Fixtures of the tests of installing; a test file takes them by ``pytest_plugins``."""

from __future__ import annotations

from pathlib import Path

import pytest
from faulty_server import FaultyServer, running
from install_cases import packed
from usema.store import download


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch) -> Path:
    """An empty cache and a new user's settings."""
    monkeypatch.setenv("USEMA_MODELS", str(tmp_path / "Models"))
    monkeypatch.setenv("USEMA_SETTINGS", str(tmp_path / "settings.json"))
    monkeypatch.setattr(download, "FIRST_WAIT", 0.01)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "Models"


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return packed(tmp_path_factory.mktemp("made") / "model")


@pytest.fixture
def server(file):
    with running(FaultyServer(file.read_bytes())) as server:
        yield server
