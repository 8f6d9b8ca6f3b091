"""What the tests of results call the volume and the segmentation of ``slicer_fixtures``."""

from __future__ import annotations

import pytest


@pytest.fixture
def volume(head):
    return head


@pytest.fixture
def node(result):
    return result
