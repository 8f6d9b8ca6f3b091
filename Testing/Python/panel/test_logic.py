"""The logic in a real MRML scene with a worker from a script: what it does when a worker goes wrong.

``test_click.py`` and ``test_click_faults.py`` have the same logic with the real worker.
"""

from __future__ import annotations

import os
import resource
import time

import numpy as np
import pytest
import slicer
import slicer.util
from slicer_cases import addVolume, nodes, pollUntil, transformNode
from usema.errors import Cancelled, InputError, OutputError, UsemaError
from USEMASegmentationLib.Parameters import Parameters, Status

pytest_plugins = ["slicer_fixtures"]

MODEL = "tiny"  # its weights are never read here
SHAPE = (24, 32, 24)


@pytest.fixture
def volume(host, tiny):
    array = np.random.default_rng(0).integers(0, 1000, SHAPE).astype(np.int16)
    return addVolume(array, np.diag([-1.0, -1.0, 1.0, 1.0]), "Head")


# From click to result, with a worker from a script


def test_a_run_goes_from_start_through_progress_to_a_segmentation(volume, logicWith):
    logic = logicWith("none")
    logic.start(Parameters(inputVolume=volume, modelName=MODEL))
    assert logic.busy
    assert logic.status.state == "starting"
    status = pollUntil(logic, "done")
    assert (status.done, status.total, status.secondsLeft) == (1, 4, None)
    assert nodes() == ["Head", "Head Hippocampus: 2"]
    assert status.segmentation.GetName() == "Head Hippocampus"
    assert status.message == "Done in 1 s: Anterior hippocampus 0.02 ml. Nothing was found of: Posterior hippocampus."
    assert not logic.busy


def previewed(volume, logic):
    """A run whose first look is in the scene, and what lets it go on."""
    logic.start(Parameters(inputVolume=volume, modelName=MODEL, speed="preview"))
    while logic.status.done < 2:
        logic.poll()
        time.sleep(0.02)
    assert nodes() == ["Head", "Preview of Head Hippocampus: 2"]
    folder = logic._run.folder.path
    return slicer.util.getNode("Preview of Head Hippocampus"), lambda: (folder / "go on").write_text("")


def test_a_first_look_is_there_until_the_result_is_which_knows_nothing_of_it(volume, logicWith):
    logic = logicWith("preview")
    node, goOn = previewed(volume, logic)
    assert not node.GetSaveWithScene()
    goOn()
    pollUntil(logic, "done")
    assert nodes() == ["Head", "Head Hippocampus: 2"]
    assert logic.secondsBySpeed(MODEL) == {"exact": 84.0, "fast": 30.0}


def test_a_first_look_goes_with_a_run_that_is_cancelled(volume, logicWith):
    logic = logicWith("preview")
    _, goOn = previewed(volume, logic)
    logic.cancel()
    goOn()
    pollUntil(logic, "cancelled")
    assert nodes() == ["Head"]


def test_a_first_look_that_somebody_has_worked_on_is_theirs(volume, logicWith):
    logic = logicWith("preview")
    node, goOn = previewed(volume, logic)
    node.GetSegmentation().AddEmptySegment("mine")
    goOn()
    pollUntil(logic, "done")
    assert nodes() == ["Head", "Preview of Head Hippocampus: 3", "Head Hippocampus: 2"]
    assert node.GetSaveWithScene()


def test_what_is_changed_in_the_panel_during_a_run_does_not_change_the_run(volume, logicWith):
    logic, parameters = logicWith("none"), Parameters(inputVolume=volume, modelName=MODEL, labels=[])
    logic.start(parameters)
    parameters.labels.append("Posterior hippocampus")
    parameters.inputVolume = None
    assert pollUntil(logic, "done").segmentation.GetSegmentation().GetNumberOfSegments() == 2


def test_a_second_click_is_refused_and_the_first_goes_on(volume, logicWith):
    logic, parameters = logicWith("none"), Parameters(inputVolume=volume, modelName=MODEL)
    logic.start(parameters)
    assert not logic.check(parameters).ready
    with pytest.raises(InputError, match="is running"):
        logic.start(parameters)
    pollUntil(logic, "done")
    assert nodes() == ["Head", "Head Hippocampus: 2"]


def test_a_start_that_is_refused_leaves_the_last_status_and_no_worker(volume, logicWith):
    logic = logicWith("none")
    with pytest.raises(InputError, match="No model"):
        logic.start(Parameters(inputVolume=volume))
    assert logic.status == Status()


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ("dies", "worker-died", "exit code 7"),
        ("memory", "memory", "Memory is too small"),
        ("shape", "error", r"\(2, 2, 2\)"),
        ("no file", "output", "nothing.npy"),
        ("floats", "internal", "could not be brought into the scene"),
        ("no numbers", "internal", "KeyError: 'total'"),
    ],
)
def test_a_failure_ends_in_a_message_and_changes_nothing(volume, logicWith, fault, code, words):
    before = nodes()
    logic = logicWith(fault)
    with pytest.raises(UsemaError, match=words) as caught:
        logic.segment(volume, MODEL)
    assert caught.value.code == logic.status.code == code
    assert logic.status.state == "failed"
    assert logic.status.hint
    assert nodes() == before


def test_the_last_words_of_a_worker_are_in_the_details_and_in_the_diagnostics(volume, logicWith):
    logic = logicWith("dies")
    with pytest.raises(UsemaError):
        logic.segment(volume, MODEL)
    assert "the last words" in logic.status.detail
    assert "the last words" in logic.diagnostics()


@pytest.mark.parametrize(("fault", "words"), [("dies", "exit code 7"), ("no numbers", "KeyError")])
def test_after_a_failure_the_next_click_starts_a_new_worker(volume, logicWith, fault, words):
    logic = logicWith(fault)
    for _ in range(2):
        with pytest.raises(UsemaError, match=words):
            logic.segment(volume, MODEL)


def test_garbage_on_the_protocol_is_passed_over(volume, logicWith):
    logic = logicWith("garbage")
    assert logic.segment(volume, MODEL).GetName() == "Head Hippocampus"
    assert "this is no JSON" in logic.diagnostics()


def test_a_worker_that_never_answers_is_given_up(volume, logicWith):
    logic = logicWith("silent", start_seconds=0.2)
    with pytest.raises(UsemaError, match="did not answer"):
        logic.segment(volume, MODEL)
    assert nodes() == ["Head"]


@pytest.mark.parametrize("fault", ["silent", "waits", "hangs"])
def test_cancel_ends_a_worker_that_has_not_begun_one_that_listens_and_one_that_does_not(
    volume, logicWith, fault, monkeypatch
):
    monkeypatch.setattr("usema.serving.client.CANCEL_SECONDS", 0.5)
    logic = logicWith(fault)
    logic.start(Parameters(inputVolume=volume, modelName=MODEL))
    if fault != "silent":
        pollUntil(logic, "running")
    logic.cancel()
    logic.cancel()
    assert logic.status.state == "cancelling"
    assert pollUntil(logic, "cancelled").message == "The segmentation was cancelled."
    assert nodes() == ["Head"]


def test_a_result_that_comes_after_cancel_is_not_written(volume, logicWith):
    logic = logicWith("none")
    logic.start(Parameters(inputVolume=volume, modelName=MODEL))
    folder = logic._run.folder.path
    deadline = time.monotonic() + 30
    while not (folder / "labels.npy").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    logic.cancel()
    pollUntil(logic, "cancelled")
    assert nodes() == ["Head"]


def test_cancel_without_a_run_does_nothing(volume, logicWith):
    logic = logicWith("none")
    logic.cancel()
    assert logic.status == Status()
    logic.segment(volume, MODEL)
    logic.cancel()
    assert logic.status.state == "done"


def test_a_volume_removed_during_the_run_cancels_it(volume, logicWith):
    logic = logicWith("waits")
    logic.start(Parameters(inputVolume=volume, modelName=MODEL))
    pollUntil(logic, "running")
    slicer.mrmlScene.RemoveNode(volume)
    assert "removed" in pollUntil(logic, "cancelled").message
    assert nodes() == []


def test_a_closed_scene_cancels_the_run_and_the_next_one_works(host, volume, logicWith):
    logic = logicWith("waits")
    logic.start(Parameters(inputVolume=volume, modelName=MODEL))
    pollUntil(logic, "running")
    host.scene.Clear(0)
    again = addVolume(np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE), np.eye(4))
    assert again.GetID() == volume.GetID()  # which is why IDs cannot tell
    pollUntil(logic, "cancelled")
    assert nodes() == ["Volume"]
    assert logicWith("none").segment(again, MODEL)


def test_nothing_is_written_into_a_scene_that_is_being_loaded(host, volume, logicWith):
    logic = logicWith("none")
    logic.start(Parameters(inputVolume=volume, modelName=MODEL))
    folder = logic._run.folder.path
    host.scene.StartState(slicer.vtkMRMLScene.ImportState)
    deadline = time.monotonic() + 30
    while not (folder / "labels.npy").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for _ in range(20):
        assert logic.poll().state in ("starting", "running")  # what the worker says is heard all the same
        time.sleep(0.02)
    assert nodes() == ["Head"]
    host.scene.EndState(slicer.vtkMRMLScene.ImportState)
    pollUntil(logic, "done")


def test_a_run_is_cancelled_while_a_scene_is_being_loaded(host, volume, logicWith):
    logic = logicWith("none")
    logic.start(Parameters(inputVolume=volume, modelName=MODEL))
    host.scene.StartState(slicer.vtkMRMLScene.ImportState)
    pollUntil(logic, "running")
    deadline = time.monotonic() + 30
    while logic._result is None:
        assert time.monotonic() < deadline
        logic.poll()
    logic.cancel()
    assert pollUntil(logic, "cancelled").hint == "Nothing was written."
    host.scene.EndState(slicer.vtkMRMLScene.ImportState)
    assert nodes() == ["Head"]


def test_a_script_in_the_middle_of_a_batch_of_changes_is_told_so_instead_of_waiting_for_ever(host, volume, logicWith):
    logic = logicWith("none")
    host.scene.StartState(slicer.vtkMRMLScene.BatchProcessState)
    with pytest.raises(InputError, match="batch of changes"):
        logic.segment(volume, MODEL)
    logic.start(Parameters(inputVolume=volume, modelName=MODEL))

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        logic.finish(interrupt)
    assert logic.status.state == "cancelled"
    host.scene.EndState(slicer.vtkMRMLScene.BatchProcessState)
    assert logic.segment(volume, MODEL)


def test_a_volume_that_was_cropped_meanwhile_does_not_get_a_result_of_another_size(volume, logicWith):
    logic = logicWith("none")
    logic.start(Parameters(inputVolume=volume, modelName=MODEL))
    slicer.util.updateVolumeFromArray(volume, np.zeros((5, 6, 7), np.int16))
    assert "was changed" in pollUntil(logic, "failed").message
    assert nodes() == ["Head"]


def test_a_transform_hardened_meanwhile_does_not_harm(volume, logicWith):
    volume.SetAndObserveTransformNodeID(transformNode(np.diag([1.0, 1.0, 1.0, 1.0])).GetID())
    logic = logicWith("none")
    logic.start(Parameters(inputVolume=volume, modelName=MODEL))
    volume.HardenTransform()
    assert pollUntil(logic, "done").segmentation.GetTransformNodeID() is None


def test_a_target_removed_meanwhile_costs_no_result(volume, logicWith):
    target = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Mine")
    logic = logicWith("none")
    logic.start(Parameters(inputVolume=volume, modelName=MODEL, segmentation=target, existing="keep"))
    slicer.mrmlScene.RemoveNode(target)
    status = pollUntil(logic, "done")
    assert status.warnings == ["The segmentation was removed. A new segmentation was made."]
    assert nodes() == ["Head", "Head Hippocampus: 2"]


def test_the_panel_can_save_the_state_for_undo_right_before_the_result(host, volume, logicWith):
    logic = logicWith("none")
    target = logic.segment(volume, MODEL)
    editor, called = host.editor(target, volume), []

    def save(node):
        called.append(node)
        editor.SaveStateForUndo()

    logic.beforeWriting = save
    logic.segment(volume, MODEL, segmentationNode=target, existing="keep")
    assert called == [target]
    assert nodes()[-1] == "Head Hippocampus: 4"
    editor.Undo()
    assert nodes()[-1] == "Head Hippocampus: 2"
    logic.segment(volume, MODEL)
    assert called == [target]  # a new segmentation has nothing to undo


def test_an_exception_in_the_wait_hook_cancels_and_comes_through(volume, logicWith):
    logic = logicWith("waits")

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        logic.segment(volume, MODEL, wait=interrupt)
    assert logic.status.state == "cancelled"


def test_shutdown_in_the_middle_leaves_nothing(host, volume, logicWith):
    logic = logicWith("hangs")
    logic.start(Parameters(inputVolume=volume, modelName=MODEL))
    pollUntil(logic, "running")
    logic.shutdown()
    assert logic.status.state == "cancelled"
    assert os.listdir(host.app.temporaryPath) == []
    assert nodes() == ["Head"]


def test_memory_can_be_released_during_and_between_runs(volume, logicWith):
    logic = logicWith("none")
    logic.releaseMemory()
    logic.start(Parameters(inputVolume=volume, modelName=MODEL))
    logic.releaseMemory()
    assert logic.status.state == "cancelled"
    assert logic.segment(volume, MODEL)
    logic.releaseMemory()
    assert logic.segment(volume, MODEL)


# The temporary folder


def test_a_temporary_folder_that_is_not_there_is_named(host, volume, logicWith):
    logic, there = logicWith("none"), host.app.temporaryPath
    host.app.temporaryPath = f"{there}/missing"
    with pytest.raises(OutputError, match="missing"):
        logic.segment(volume, MODEL)
    assert logic.status == Status()
    host.app.temporaryPath = there
    assert logic.segment(volume, MODEL)


def test_a_full_disk_is_named_and_leaves_no_file(host, volume, logicWith):
    logic, limits = logicWith("none"), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))  # less than the volume takes
    try:
        with pytest.raises(OutputError, match="cannot be written to the temporary folder"):
            logic.segment(volume, MODEL)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(host.app.temporaryPath) == []
    assert logic.status == Status()


def test_cancelled_is_an_error_of_its_own_for_scripts(volume, logicWith):
    logic = logicWith("waits")
    with pytest.raises(Cancelled):
        logic.segment(volume, MODEL, wait=logic.cancel)


def test_the_roi_is_told_in_the_provenance(volume, logicWith):
    logic = logicWith("none")
    assert logic.segment(volume, MODEL).GetAttribute("USEMA.roi") == "whole volume"
    roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "R")
    roi.SetCenter(-10, -12, 11)
    roi.SetSize(10, 10, 10)
    node = logic.segment(volume, MODEL, roiNode=roi)
    assert node.GetAttribute("USEMA.roi") == "i 5-15, j 7-17, k 6-16"
    assert logic.status.message.startswith("Done in 1 s in the region of interest: Anterior")
