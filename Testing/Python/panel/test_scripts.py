"""Segmenting from scripts: what the options are called, the one worker of all logics, what is kept of the user's."""

from __future__ import annotations

import gc
import sys
import typing
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from slicer_cases import addVolume, children, nodes, pollUntil, transformNode, voxels
from usema.errors import InputError, UsemaError
from usema.serving.client import WorkerClient
from USEMASegmentationLib import Logic
from USEMASegmentationLib.Logic import USEMASegmentationLogic
from USEMASegmentationLib.Parameters import Parameters

pytest_plugins = ["slicer_fixtures"]

MODEL = "tiny"  # its weights are never read here
SHAPE = (24, 32, 24)
ANTERIOR = "hippocampus-mr_1"


@pytest.fixture
def volume(host, tiny):
    array = np.random.default_rng(0).integers(0, 1000, SHAPE).astype(np.int16)
    return addVolume(array, np.diag([-1.0, -1.0, 1.0, 1.0]), "Head")


@pytest.fixture
def scripted(monkeypatch):
    """All logics share a worker from a script; afterwards no process may be left."""
    before, command = children(), [sys.executable, str(Path(__file__).parents[1] / "helpers" / "scripted_worker.py")]
    scripted = SimpleNamespace(fault="none", before=before)
    monkeypatch.setattr(Logic, "WorkerClient", lambda *_: WorkerClient([*command, scripted.fault]))
    yield scripted
    gc.collect()
    assert children() <= before


# What the options are called


def test_a_script_says_the_names_of_the_parameters_or_those_of_nodes(volume, logicWith):
    logic = logicWith("none")
    node = logic.segment(volume, MODEL, labels=["Anterior hippocampus"])
    assert node.GetSegmentation().GetSegmentIDs() == (ANTERIOR,)
    assert logic.segment(inputVolume=volume, modelName=MODEL, segmentation=node) is node
    assert logic.segment(volumeNode=volume, modelName=MODEL, segmentationNode=node, roiNode=None) is node
    assert logic.check(inputVolume=volume, modelName=MODEL).ready
    assert logic.check(Parameters(inputVolume=volume, modelName=MODEL)).ready
    logic.start(volumeNode=volume, modelName=MODEL, channels=None)
    assert pollUntil(logic, "done").segmentation is not node


def test_a_word_that_is_no_option_and_one_said_twice_are_named(volume, logicWith):
    logic = logicWith("none")
    with pytest.raises(InputError, match="no option 'segmentationnode'") as caught:
        logic.segment(volume, MODEL, segmentationnode=None)
    assert "segmentation, existing" in caught.value.hint
    with pytest.raises(InputError, match="'roi' is given twice"):
        logic.segment(volume, MODEL, roi=None, roiNode=None)
    with pytest.raises(InputError, match="Both parameters and device"):
        logic.start(Parameters(inputVolume=volume), device="cpu")
    assert "no option 'model'" in logic.check(inputVolume=volume, model=MODEL).reason


@pytest.mark.parametrize("option", ["labels", "channels"])
def test_a_list_that_is_none_is_refused(volume, logicWith, option):
    value = "Anterior" if option == "labels" else volume
    options = {"inputVolume": volume, "modelName": MODEL, option: value}
    reason = f"The option '{option}' is no list. Give {option}=[...], also for a single one."
    assert logicWith("none").check(**options).reason == reason
    with pytest.raises(InputError):
        logicWith("none").segment(**options)


def test_a_segmentation_that_is_given_is_written_into_unless_told_otherwise(volume, logicWith):
    logic = logicWith("none")
    node = logic.segment(volume, MODEL)
    assert logic.segment(volume, MODEL, segmentationNode=node) is node
    assert node.GetSegmentation().GetNumberOfSegments() == 2
    assert logic.segment(volume, MODEL, segmentationNode=node, existing="new") is not node


def test_the_parameter_node_keeps_every_option_and_nothing_else(monkeypatch):
    """The application's wrapper reads the annotations and defaults of a class."""
    kept = SimpleNamespace(Choice=lambda values: values, WithinRange=lambda *span: span)
    kept.parameterNodeWrapper = lambda cls: cls
    monkeypatch.setitem(sys.modules, "slicer.parameterNodeWrapper", kept)
    monkeypatch.delitem(sys.modules, "USEMASegmentationLib.ParameterNode", raising=False)
    from USEMASegmentationLib.ParameterNode import USEMASegmentationParameterNode as Node

    del sys.modules["USEMASegmentationLib.ParameterNode"]  # no other test may find this one
    kinds, default = typing.get_type_hints(Node, include_extras=True), Parameters()
    names = [one.name for one in fields(Parameters)]
    assert list(kinds) == [*names, "overlapOfModel"]
    assert (Node.overlap, Node.overlapOfModel, default.overlap) == (0.5, True, None)
    for name in set(names) - {"overlap"}:
        wanted = getattr(default, name)
        assert getattr(Node, name, wanted) == wanted
        assert hasattr(Node, name) or not wanted  # without a default, the wrapper takes "", None or []
    assert kinds["inputVolume"] is slicer.vtkMRMLScalarVolumeNode
    assert kinds["channels"] == list[slicer.vtkMRMLScalarVolumeNode]
    assert kinds["labels"] == list[str]
    assert kinds["overlap"].__metadata__ == ((0, 0.9),)
    assert kinds["existing"].__metadata__ == (("new", "replace", "keep"),)
    assert kinds["overwriteCorrections"] is bool


# One worker


def test_logics_that_come_and_go_leave_no_worker_behind(volume, scripted):
    for _ in range(4):
        assert USEMASegmentationLogic().segment(volume, MODEL)
        gc.collect()
        assert children() <= scripted.before


def test_a_panel_and_scripts_share_one_worker_until_the_last_lets_go(volume, scripted):
    panel = USEMASegmentationLogic()
    panel.segment(volume, MODEL)
    (process,) = children() - scripted.before
    with USEMASegmentationLogic() as logic:
        for _ in range(2):
            logic.segment(volume, MODEL)
            assert children() - scripted.before == {process}
        panel.shutdown()
        assert children() - scripted.before == {process}
        logic.segment(volume, MODEL)
    assert children() <= scripted.before


def test_two_logics_may_ask_at_the_same_time(volume, scripted):
    one, other = USEMASegmentationLogic(), USEMASegmentationLogic()
    one.start(Parameters(inputVolume=volume, modelName=MODEL))
    other.start(Parameters(inputVolume=volume, modelName=MODEL))
    assert pollUntil(other, "done").segmentation is not pollUntil(one, "done").segmentation
    one.shutdown()
    other.shutdown()


def test_releasing_memory_ends_the_worker_that_nobody_needs_and_spares_a_run_of_another(volume, scripted):
    scripted.fault = "waits"
    one, other = USEMASegmentationLogic(), USEMASegmentationLogic()
    one.start(Parameters(inputVolume=volume, modelName=MODEL))
    pollUntil(one, "running")
    assert not other.releaseMemory()
    assert one.poll().state == "running"
    one.cancel()
    pollUntil(one, "cancelled")
    assert other.releaseMemory()
    assert children() <= scripted.before


def test_a_worker_that_lacked_a_package_is_not_asked_again(volume, tiny, tmp_path):
    """It would not see what was installed since, and would go on for half an hour."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ModuleNotFoundError('No module named torch')")
    client = WorkerClient(environment={"PYTHONPATH": str(tmp_path)})
    logic = USEMASegmentationLogic(client)
    with pytest.raises(UsemaError, match="torch"):
        logic.segment(volume, MODEL)
    assert not client.running
    logic.shutdown()


# What is kept


def paint(node, volume):
    array = voxels(node, ANTERIOR, volume).astype(np.uint8)
    array[10:12, 20:24, 10:12] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(array, node, ANTERIOR, volume)
    return 16


def test_how_many_corrected_voxels_would_go_is_known_before_and_told_after(volume, logicWith):
    logic = logicWith("none")
    node = logic.segment(volume, MODEL)
    asked = {"inputVolume": volume, "modelName": MODEL, "segmentation": node}
    assert logic.corrections(**asked).voxels == 0
    painted = paint(node, volume)
    assert logic.corrections(**asked).voxels == painted
    assert logic.corrections(**asked).millilitres == pytest.approx(painted / 1000)
    assert logic.corrections(**asked, existing="keep").voxels == 0
    assert logic.corrections(**asked, labels=["Posterior hippocampus"]).voxels == 0
    assert logic.corrections(inputVolume=volume, modelName=MODEL).voxels == 0
    assert logic.corrections(**{**asked, "modelName": "no-such"}).voxels == 0
    volume.SetSpacing(0, 1, 1)  # ``check`` tells the reason
    assert logic.corrections(**asked).voxels == 0
    volume.SetSpacing(1, 1, 1)
    logic.segment(**asked)
    assert logic.status.keptVoxels == painted
    assert f"{painted} corrected voxels were kept." in logic.status.message
    assert voxels(node, ANTERIOR, volume)[10:12, 20:24, 10:12].all()
    logic.segment(**asked, overwriteCorrections=True)
    assert logic.status.keptVoxels == 0
    assert not voxels(node, ANTERIOR, volume)[10:12, 20:24, 10:12].any()


def test_a_segmentation_chosen_in_the_panel_during_the_run_does_not_change_where_the_result_goes(volume, logicWith):
    logic = logicWith("none")
    node = logic.segment(volume, MODEL)
    parameters = Parameters(inputVolume=volume, modelName=MODEL, segmentation=node, existing="replace")
    logic.start(parameters)
    parameters.segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Other")
    assert pollUntil(logic, "done").segmentation is node
    assert "Other: 0" in nodes()


# Volumes that change during a run


def test_a_grid_that_changes_during_a_run_is_refused(volume, logicWith):
    logic = logicWith("none")
    logic.start(Parameters(inputVolume=volume, modelName=MODEL))
    volume.SetSpacing(1, 1, 5)
    status = pollUntil(logic, "failed")
    assert "grid of the volume 'Head' was changed" in status.message
    assert nodes() == ["Head"]


def test_voxels_that_change_during_a_run_are_told_and_nothing_that_is_there_is_replaced(volume, logicWith):
    logic = logicWith("none")
    node = logic.segment(volume, MODEL)
    logic.start(Parameters(inputVolume=volume, modelName=MODEL, segmentation=node, existing="replace"))
    slicer.util.updateVolumeFromArray(volume, np.random.default_rng(1).integers(0, 9, SHAPE).astype(np.int16))
    status = pollUntil(logic, "done")
    assert status.segmentation is not node
    assert any("voxels of 'Head' were changed" in one and "new segmentation" in one for one in status.warnings)


def test_an_image_that_is_touched_but_not_changed_is_no_change(volume, logicWith):
    logic = logicWith("none")
    logic.start(Parameters(inputVolume=volume, modelName=MODEL))
    slicer.util.updateVolumeFromArray(volume, slicer.util.arrayFromVolume(volume).copy())
    volume.SetName("Renamed")
    assert pollUntil(logic, "done").warnings == []


def test_a_transform_that_moves_the_volume_during_a_run_moves_its_result(volume, logicWith):
    logic = logicWith("none")
    logic.start(Parameters(inputVolume=volume, modelName=MODEL))
    transform = transformNode(np.diag([1.0, -1.0, -1.0, 1.0]))
    volume.SetAndObserveTransformNodeID(transform.GetID())
    assert pollUntil(logic, "done").segmentation.GetTransformNodeID() == transform.GetID()


# What outlives a scene


def test_neither_status_nor_shutdown_keeps_a_segmentation_that_is_gone(host, volume, logicWith):
    logic = logicWith("none")
    alive = vtk.vtkWeakReference()
    alive.Set(logic.segment(volume, MODEL))
    assert logic.status.segmentation is alive.Get()
    host.scene.Clear(0)
    gc.collect()
    assert alive.Get() is None
    assert logic.status.segmentation is None
    assert logic.status.state == "done"


def test_no_node_is_kept_after_shutdown(volume, logicWith):
    logic = logicWith("none")
    node = logic.segment(volume, MODEL)
    logic.shutdown()
    assert logic.status.segmentation is None
    alive = vtk.vtkWeakReference()
    alive.Set(node)
    slicer.mrmlScene.RemoveNode(node)
    del node
    gc.collect()
    assert alive.Get() is None
