"""Fixtures of the tests of reviewing; a test file takes them by ``pytest_plugins``."""

from __future__ import annotations

import pytest
from review_cases import Scene, writeFound
from usema.inference.predictor import Predictor
from usema.models.bundle import read_bundle
from usema.resources import bundled_models, sample_volume
from usema.volumes.volume import read_volume


@pytest.fixture(scope="session")
def found():
    """What the bundled model finds in the sample, with margins."""
    predictor = Predictor(read_bundle(bundled_models()["hippocampus-mr"]), "cpu")
    return predictor.segment(read_volume(sample_volume()), overlap=0.0, margins=True)


@pytest.fixture
def scene(host, found, request):
    """The sample and that result, fresh."""
    return Scene(host, found, lambda: request.getfixturevalue("worker"))


@pytest.fixture
def reviewed(app, openPanel, found, request):
    """A panel with a result of the bundled model in it, its section open: (panel, volume, segmentation).

    Its worker follows the script that the test's parameter names, or only the panel.
    """
    from panel_cases import loadSample

    panel = openPanel(getattr(request, "param", "none"))
    volume = loadSample(app)
    node = writeFound(found, volume)
    panel._parameterNode.segmentation = node
    panel.reviewSection.ui.reviewCollapsibleButton.collapsed = False
    return panel, volume, node
