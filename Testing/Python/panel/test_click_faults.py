"""Faults of the real worker in a real scene: each ends in a clear message, the scene untouched, no process left."""

from __future__ import annotations

import os
import resource
import signal

import numpy as np
import pytest
import slicer
import torch
from bundles import write_tiny_bundle
from slicer_cases import addVolume, children, labelsOf, nodes, pollUntil
from usema.errors import BundleError, MissingDependencyError, UsemaError
from usema.models.bundle_writing import write_bundle
from usema.serving.client import WorkerClient
from USEMASegmentationLib.Logic import USEMASegmentationLogic
from USEMASegmentationLib.Parameters import Parameters

pytest_plugins = ["slicer_fixtures"]


@pytest.fixture
def volume(hippocampus):
    return hippocampus


def test_a_worker_killed_in_the_middle_costs_one_result_and_nothing_else(volume, large, own):
    before = children()
    earlier = own.segment(volume, "tiny")
    labels, names = labelsOf(earlier, volume), nodes()
    own.start(Parameters(inputVolume=large, modelName="tiny", segmentation=earlier, existing="replace"))
    pollUntil(own, "running")
    (process,) = children() - before
    os.kill(process, signal.SIGKILL)
    status = pollUntil(own, "failed")
    assert status.code == "worker-died"
    assert "SIGKILL" in status.message
    assert nodes() == names
    assert (labelsOf(earlier, volume) == labels).all()
    own.segment(volume, "tiny", segmentationNode=earlier, existing="replace")
    assert (labelsOf(earlier, volume) == labels).all()


def test_memory_that_runs_out_in_the_middle_is_called_so_and_the_next_click_works(volume, large, own):
    before = children()
    own.start(Parameters(inputVolume=large, modelName="tiny"))
    pollUntil(own, "running")
    (process,) = children() - before
    _, most = resource.prlimit(process, resource.RLIMIT_AS)
    resource.prlimit(process, resource.RLIMIT_AS, (2**20, most))
    status = pollUntil(own, "failed")
    assert status.code in ("memory", "device")
    assert "memory is too small" in status.message.lower()
    assert nodes() == ["hippocampus_001_0000", "Large"]
    resource.prlimit(process, resource.RLIMIT_AS, (most, most))
    own.segment(volume, "tiny")
    assert children() - before == {process}


def test_cancel_right_after_the_first_click_and_in_the_middle_of_the_second(large, own):
    own.start(Parameters(inputVolume=large, modelName="tiny"))
    own.cancel()
    assert pollUntil(own, "cancelled").message == "The segmentation was cancelled."
    own.start(Parameters(inputVolume=large, modelName="tiny"))
    assert pollUntil(own, "running").total > 100
    own.cancel()
    assert pollUntil(own, "cancelled").done < 100
    assert nodes() == ["Large"]


def test_a_volume_removed_or_a_scene_closed_in_the_middle_stops_the_worker(host, large, logic):
    logic.start(Parameters(inputVolume=large, modelName="tiny"))
    pollUntil(logic, "running")
    slicer.mrmlScene.RemoveNode(large)
    assert "removed" in pollUntil(logic, "cancelled").message
    slicer.mrmlScene.AddNode(large)
    logic.start(Parameters(inputVolume=large, modelName="tiny"))
    pollUntil(logic, "running")
    host.scene.Clear(0)
    assert "scene closed" in pollUntil(logic, "cancelled").message
    assert nodes() == []


def test_an_altered_model_is_not_run(volume, worker, tmp_path, monkeypatch):
    (tmp_path / "Models").mkdir()
    bundle = write_tiny_bundle(tmp_path / "Models" / "tiny")
    weights = bundle.path / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    monkeypatch.setenv("USEMA_RESOURCES", str(tmp_path))
    logic = USEMASegmentationLogic(worker)
    with pytest.raises(BundleError, match="was altered"):
        logic.segment(volume, "tiny")
    weights.write_bytes(data[:-1])
    assert "truncated" in logic.check(Parameters(inputVolume=volume, modelName="tiny")).reason
    assert logic.models() == []
    assert nodes() == ["hippocampus_001_0000"]


def test_without_torch_the_message_says_what_is_missing(volume, tiny, tmp_path):
    (tmp_path / "without" / "torch").mkdir(parents=True)
    (tmp_path / "without" / "torch" / "__init__.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'torch'\")"
    )
    client = WorkerClient(environment={"PYTHONPATH": str(tmp_path / "without")})
    logic = USEMASegmentationLogic(client)
    with pytest.raises(MissingDependencyError, match="torch"):
        logic.segment(volume, "tiny")
    logic.shutdown()
    assert not client.running


def test_a_volume_that_cannot_be_segmented_is_named(logic, host):
    with pytest.raises(UsemaError, match="The volume 'Constant' has the value 1 in every voxel"):
        logic.segment(addVolume(np.ones((30, 30, 30), np.int16), np.eye(4), "Constant"), "tiny")
    hole = np.random.default_rng(0).random((30, 30, 30))
    hole[3, 4, 5] = np.nan
    with pytest.raises(UsemaError, match="NaN"):  # in the middle of ordinary values: only the engine looks for it
        logic.segment(addVolume(hole, np.eye(4), "Hole"), "tiny")
    assert nodes() == ["Constant", "Hole"]


def test_an_empty_result_says_why_and_still_shows_what_was_looked_for(volume, worker, tmp_path, monkeypatch):
    (tmp_path / "Models").mkdir()
    bundle = write_tiny_bundle(tmp_path / "tiny")
    weights = bundle.load_weights()
    head = next(name for name in reversed(weights) if name.endswith("bias") and weights[name].shape == (3,))
    weights[head] = torch.tensor([100.0, 0, 0])  # background everywhere
    metadata = bundle.metadata.to_dict()
    del metadata["weights"], metadata["schema_version"]
    write_bundle(tmp_path / "Models" / "tiny", metadata, weights)
    monkeypatch.setenv("USEMA_RESOURCES", str(tmp_path))
    logic = USEMASegmentationLogic(worker)
    node = logic.segment(volume, "tiny")
    assert node.GetSegmentation().GetSegmentIDs() == ("hippocampus-mr_1", "hippocampus-mr_2")
    assert not labelsOf(node, volume).any()
    assert logic.status.message == "Nothing was found: the segments are empty."
    assert any("The highest probability" in one or "the highest probability" in one for one in logic.status.warnings)
    assert any("Is this the right model" in one for one in logic.status.warnings)
