"""What tests of the worker share."""

from __future__ import annotations

import pytest
from usema.serving.client import WorkerClient


@pytest.fixture(scope="module")
def client():
    """A client whose worker serves a whole file of tests."""
    client = WorkerClient()
    client.start()
    yield client
    client.stop()
