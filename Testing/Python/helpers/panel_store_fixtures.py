"""Fixtures of the tests of models in the panel; a test file takes them by ``pytest_plugins``."""

from __future__ import annotations

import pytest
from model_shop import impatient_worker, open_shop
from usema.store import indexes


@pytest.fixture
def shop(tmp_path):
    with open_shop(tmp_path / "shop") as shop:
        yield shop


@pytest.fixture
def offered(shop):
    """A shop that offers a small model."""
    shop.offer("tiny", title="Tiny (MR)")
    indexes.refresh()
    shop.requests.clear()
    return shop


@pytest.fixture
def impatient(app, monkeypatch):
    """The store's worker gives up at once where it would try again for a quarter of a minute."""
    from USEMASegmentationLib import ModelStore  # not before the application is there

    monkeypatch.setattr(ModelStore, "WorkerClient", lambda *_: impatient_worker())
