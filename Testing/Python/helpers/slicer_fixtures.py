"""Fixtures of the tests of the Slicer side; a test file takes them by ``pytest_plugins``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from bundles import write_tiny_bundle
from slicer_cases import GRIDS, MrmlHost, addVolume, blobs, children, commandOf, write
from usema.serving.client import WorkerClient
from USEMASegmentationLib.Logic import USEMASegmentationLogic

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # more make so small a network slower


@pytest.fixture
def host(tmp_path):
    """A real scene; at its end no temporary file may be left."""
    host = MrmlHost(tmp_path)
    yield host
    assert os.listdir(host.app.temporaryPath) == []
    host.close()


@pytest.fixture(scope="session")
def tinyFolder(tmp_path_factory):
    """Resources with the model "tiny" alone: untrained, so that it finds something everywhere, and quick."""
    folder = tmp_path_factory.mktemp("resources")
    (folder / "Models").mkdir()
    write_tiny_bundle(folder / "Models" / "tiny", orientation="LPS")
    return folder


@pytest.fixture
def tiny(tinyFolder, monkeypatch):
    monkeypatch.setenv("USEMA_RESOURCES", str(tinyFolder))
    return tinyFolder


@pytest.fixture(scope="session")
def worker():
    """One real worker for all tests that do it no harm; it takes seconds to start."""
    before = children()
    client = WorkerClient(environment=ONE_THREAD)
    yield client
    client.stop()
    assert children() <= before, [commandOf(one) for one in children() - before]


@pytest.fixture
def logic(host, tiny, worker):
    return USEMASegmentationLogic(worker)


@pytest.fixture
def own(host, tiny):
    """A logic with a worker of its own, to be harmed."""
    before = children()
    logic = USEMASegmentationLogic(WorkerClient(environment=ONE_THREAD))
    yield logic
    logic.shutdown()
    assert children() <= before


@pytest.fixture
def hippocampus(host, data):
    return host.loadVolume(data / "nnUNet_raw/Dataset004_Hippocampus/imagesTr/hippocampus_001_0000.nii.gz")


@pytest.fixture
def head(host):
    """An oblique volume as large as ``blobs``."""
    array = np.random.default_rng(0).integers(0, 100, blobs().shape).astype(np.int16)
    return addVolume(array, GRIDS["oblique"], "Head")


@pytest.fixture
def result(head):
    """A segmentation of ``head`` with ``blobs`` in it."""
    return write(blobs(), head)


@pytest.fixture
def large(host):
    """Takes the tiny model ten seconds: time enough to disturb it."""
    array = np.random.default_rng(0).integers(0, 1000, (96, 96, 96)).astype(np.int16)
    return addVolume(array, np.diag([-1.0, -1.0, 1.0, 1.0]), "Large")


@pytest.fixture
def logicWith(host):
    """Makes a logic whose worker has a fault; afterwards no process may be left."""
    logics = []

    def make(fault, **options):
        client = WorkerClient([sys.executable, str(Path(__file__).with_name("scripted_worker.py")), fault], **options)
        logics.append((USEMASegmentationLogic(client), client))
        return logics[-1][0]

    yield make
    for logic, client in logics:
        logic.shutdown()
        assert not client.running
