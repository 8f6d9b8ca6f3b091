"""Fixtures of the tests of downloads; a test file takes them by ``pytest_plugins``."""

from __future__ import annotations

from pathlib import Path

import pytest
from download_cases import CONTENT
from faulty_server import FaultyServer, running
from usema.store import download

PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
TRUST_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@pytest.fixture
def own_network(monkeypatch):
    """Short waits, and nothing of this computer's network settings."""
    monkeypatch.setattr(download, "FIRST_WAIT", 0.01)
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in TRUST_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server(own_network):
    """Serves CONTENT."""
    with running(FaultyServer(CONTENT)) as server:
        yield server


@pytest.fixture
def target(tmp_path, own_network) -> Path:
    """Where to; its folder is not there yet."""
    return tmp_path / "cache" / "model.usema"
