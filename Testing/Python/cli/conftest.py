"""The model of the command line's tests."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def model(tiny_model) -> Path:
    return tiny_model
