"""Voxels go to the worker and come back a moment at a time: nothing is lost, whatever happens between two moments.

Everything counts as large here: each slab is a moment of its own, and what can be done beside is done in a thread.
"""

from __future__ import annotations

import gc
import threading
import time

import numpy as np
import pytest
import slicer
import slicer.util
from slicer_cases import ANTERIOR, GRIDS, MODEL, addVolume, blobs, nodes, pollUntil, segmentOf, voxels, write
from usema.errors import InputError, UsemaError
from usema.volumes.segments import WRITTEN_KEY
from USEMASegmentationLib import Steps
from USEMASegmentationLib.CorrectionsCount import CorrectionsCount
from USEMASegmentationLib.Parameters import Parameters
from USEMASegmentationLib.Scene import EditMask, ResultWriter
from USEMASegmentationLib.Scene.EditMask import tagOf
from USEMASegmentationLib.Scene.SegmentVoxels import arrayOf, newImage

pytest_plugins = ["slicer_fixtures"]


@pytest.fixture
def slow(monkeypatch):
    """A pause wherever one may be."""
    monkeypatch.setattr(Steps, "SMALL", 0)
    monkeypatch.setattr(Steps, "_SLAB", 1)
    monkeypatch.setattr(Steps.Steps.go, "__defaults__", (0.0,))


@pytest.fixture
def large(host, tiny):
    array = np.random.default_rng(0).integers(0, 1000, (24, 32, 24)).astype(np.int16)
    return addVolume(array, np.diag([-1.0, -1.0, 1.0, 1.0]), "Head")


def started(logic, volume, **options):
    logic.start(Parameters(inputVolume=volume, modelName="tiny", **options))
    assert logic.isMoving
    return logic


@pytest.fixture
def gate(slow, monkeypatch):
    """No result is made ready before it is set."""
    gate, compute = threading.Event(), ResultWriter.compute
    monkeypatch.setattr(ResultWriter, "compute", lambda *given: gate.wait(100) and compute(*given))
    yield gate
    gate.set()


def receiving(logic):
    """A run whose result has come, and waits at the gate."""
    deadline = time.monotonic() + 100
    while not (logic._answered and logic.isMoving and threading.active_count() > 1):
        assert time.monotonic() < deadline
        logic.poll()
        time.sleep(0.001)
    for _ in range(100):  # by now its thread waits
        logic.poll()
    return logic


def test_a_result_that_came_in_moments_is_the_one_that_came_at_once(large, logicWith, slow, monkeypatch):
    logic = started(logicWith("none"), large)
    assert logic.status.message == "Passing the volume to the engine"
    assert logic.busy
    inMoments = pollUntil(logic, "done")
    monkeypatch.setattr(Steps, "SMALL", 2**20)
    atOnce = logic.segment(large, "tiny")
    names = inMoments.segmentation.GetSegmentation().GetSegmentIDs()
    assert names == atOnce.GetSegmentation().GetSegmentIDs()
    for name in names:
        assert (voxels(inMoments.segmentation, name, large) == voxels(atOnce, name, large)).all()
        one, other = segmentOf(inMoments.segmentation, name), segmentOf(atOnce, name)
        assert tagOf(one, WRITTEN_KEY) == tagOf(other, WRITTEN_KEY) != ""


def test_voxels_that_change_while_they_are_sent_are_sent_anew(large, logicWith, slow):
    logic = started(logicWith("waits"), large)
    slicer.util.arrayFromVolume(large)[...] = 7
    slicer.util.arrayFromVolumeModified(large)
    pollUntil(logic, "running")
    assert (np.load(logic._run.folder.path / "channel-0.npy") == 7).all()
    logic.shutdown()


def test_voxels_that_change_all_the_time_end_the_run_with_a_reason(large, logicWith, slow):
    logic = started(logicWith("waits"), large)
    while logic.busy:
        large.GetImageData().Modified()
        logic.poll()
    assert logic.status.state == "failed"
    assert "'Head' change all the time" in logic.status.message
    assert nodes() == ["Head"]


@pytest.mark.parametrize("way", ["cancelled", "volume removed", "scene closed"])
def test_a_run_ends_while_its_voxels_are_sent(host, large, logicWith, slow, way):
    logic = started(logicWith("none"), large)
    {
        "cancelled": logic.cancel,
        "volume removed": lambda: slicer.mrmlScene.RemoveNode(large),
        "scene closed": lambda: slicer.mrmlScene.Clear(False),
    }[way]()
    status = pollUntil(logic, "cancelled")
    assert status.hint == "Nothing was written."
    assert not logic.busy
    assert logic._worker.hello is None  # nothing was asked


@pytest.mark.parametrize("way", ["cancelled", "volume removed", "given up"])
def test_a_run_ends_while_its_result_is_made_ready(large, logicWith, gate, way):
    logic = receiving(started(logicWith("none"), large))
    {
        "cancelled": logic.cancel,
        "volume removed": lambda: slicer.mrmlScene.RemoveNode(large),
        "given up": logic.shutdown,
    }[way]()
    assert pollUntil(logic, "cancelled")
    assert not any("Hippocampus" in name for name in nodes())
    assert not logic.busy


def test_an_edit_while_the_result_is_made_ready_is_kept(large, logicWith, gate):
    logic = logicWith("none")
    gate.set()
    node = logic.segment(large, "tiny")
    name = node.GetSegmentation().GetSegmentIDs()[0]
    gate.clear()
    receiving(started(logic, large, segmentation=node, existing="replace"))
    array = voxels(node, name, large).astype(np.uint8)
    array[20, 20:24, 20:24] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(array, node, name, large)
    gate.set()
    assert pollUntil(logic, "done").keptVoxels == 16
    assert voxels(node, name, large)[20, 20:24, 20:24].all()


def test_a_target_removed_while_the_result_is_made_ready_costs_no_result(large, logicWith, gate):
    logic = logicWith("none")
    gate.set()
    node = logic.segment(large, "tiny")
    gate.clear()
    receiving(started(logic, large, segmentation=node, existing="replace"))
    slicer.mrmlScene.RemoveNode(node)
    gate.set()
    status = pollUntil(logic, "done")
    assert status.segmentation is not node
    assert any("A new segmentation was made." in one for one in status.warnings)


def test_an_image_keeps_its_voxels_when_python_has_forgotten_them(host):
    box = (slice(3, 203), slice(0, 100), slice(5, 105))
    array = np.random.default_rng(0).integers(0, 3, (200, 100, 100)).astype(np.uint8)
    image, segment = newImage(array.copy(), box, GRIDS["oblique"]), slicer.vtkSegment()
    segment.AddRepresentation("Binary labelmap", image)
    del image
    for _ in range(5):
        gc.collect()
        np.ones((200, 100, 100), np.uint8)  # would lie where the voxels were
    assert (arrayOf(segment.GetRepresentation("Binary labelmap")) == array).all()


def test_images_of_a_result_have_no_margins_and_their_voxels_are_their_own(host, head):
    labels = blobs()
    node = write(labels, head)
    image = segmentOf(node, ANTERIOR).GetRepresentation("Binary labelmap")
    assert image is segmentOf(node, f"{MODEL.name}_2").GetRepresentation("Binary labelmap")
    filled = np.argwhere(labels)
    x0, x1, y0, y1, z0, z1 = image.GetExtent()
    assert [z0, y0, x0, z1, y1, x1] == [*filled.min(axis=0), *filled.max(axis=0)]
    before, labels[...] = labels.copy(), 0
    assert (voxels(node, ANTERIOR, head) == (before == 1)).all()


def test_what_was_corrected_is_counted_a_moment_at_a_time(host, head, tiny, slow, monkeypatch):
    node = write(blobs(), head)
    array = voxels(node, ANTERIOR, head).astype(np.uint8)
    array[0, :3, :3] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(array, node, ANTERIOR, head)
    parameters = Parameters(inputVolume=head, modelName="tiny", segmentation=node, existing="replace")
    count, answers = CorrectionsCount(), []
    while not answers or answers[-1] is None:
        answers.append(count.soon(parameters))
    assert len(answers) > 1
    assert answers[-1].voxels == 9
    assert count.soon(parameters) is answers[-1]
    array[0, :3, :3] = 0
    slicer.util.updateSegmentBinaryLabelmapFromArray(array, node, ANTERIOR, head)
    assert count.soon(parameters) is None
    assert count.now(parameters).voxels == 0


@pytest.mark.parametrize("closed", [False, True])
def test_events_that_come_in_the_middle_of_a_step_neither_carry_it_on_nor_break_it(closed):
    done = []

    def work():
        done.append("first")
        if closed:
            steps.close()
        else:
            assert not steps.go()
        done.append("still first")
        yield
        done.append("second")
        return 7

    steps = Steps.Steps(work())
    assert steps.go() is not closed
    assert steps.value == (None if closed else 7)
    assert done == ["first", "still first", "second"][: 2 if closed else 3]


@pytest.mark.parametrize("error", [MemoryError("no room"), InputError("elsewhere")])
def test_a_count_that_failed_is_made_anew(host, head, tiny, monkeypatch, error):
    def failing(*_):
        raise error
        yield

    parameters = Parameters(inputVolume=head, modelName="tiny", segmentation=write(blobs(), head), existing="replace")
    count = CorrectionsCount()
    with monkeypatch.context() as patch:
        patch.setattr(EditMask, "counting", failing)
        if isinstance(error, UsemaError):
            assert count.now(parameters) == EditMask.Corrections()
        else:
            with pytest.raises(MemoryError):
                count.now(parameters)
    for _ in range(10):
        found = count.soon(parameters)
    assert found is not None


def test_what_fails_beside_the_main_thread_is_said(large, logicWith, slow, monkeypatch):
    def compute(*_):
        raise MemoryError("no room")

    monkeypatch.setattr(ResultWriter, "compute", compute)
    assert "no room" in pollUntil(started(logicWith("none"), large), "failed").message
    assert nodes() == ["Head"]


@pytest.mark.parametrize("way", ["edited", "another opened", "removed", "nothing"])
def test_what_the_user_does_after_the_state_was_saved_for_undo(large, logicWith, way):
    logic, saved, isSaved = logicWith("none"), [], [True]
    node = logic.segment(large, "tiny")
    name = node.GetSegmentation().GetSegmentIDs()[0]

    def save(target):
        saved.append(voxels(target, name, large).sum())
        isSaved[0] = True
        return lambda: isSaved[0]

    logic.beforeWriting = save
    logic.start(Parameters(inputVolume=large, modelName="tiny", segmentation=node, existing="replace"))
    while not saved:
        logic.poll()
    assert logic.status.segmentation is None  # saved, and not yet written
    if way == "edited":
        array = voxels(node, name, large).astype(np.uint8)
        array[20, 20:24, 20:24] = 1
        slicer.util.updateSegmentBinaryLabelmapFromArray(array, node, name, large)
    elif way == "another opened":
        isSaved[0] = False
    elif way == "removed":
        slicer.mrmlScene.RemoveNode(node)
    status = pollUntil(logic, "done")
    if way == "removed":
        assert status.segmentation is not node
        assert any("A new segmentation was made." in one for one in status.warnings)
    else:
        assert status.segmentation is node
    assert len(saved) == (2 if way in ("edited", "another opened") else 1)
    if way == "edited":
        assert saved[1] - saved[0] == status.keptVoxels == 16
        assert voxels(node, name, large)[20, 20:24, 20:24].all()


# The result is shown in turns


@pytest.fixture
def turns(large, logicWith):
    """(logic, volume, what was done in which turn): a run whose result is in the scene, and not yet shown."""
    logic, done = logicWith("none"), []

    def showing(segmentation):
        for part in ("chosen", "views", "editor"):
            done.append((part, logic.turn))
            yield Steps.NextTurn()

    logic.afterWriting, logic.turn, poll = showing, 0, logic.poll

    def turn():
        logic.turn += 1
        return poll()

    logic.poll = turn
    logic.start(Parameters(inputVolume=large, modelName="tiny", show3D=True))
    while logic.status.segmentation is None:
        logic.poll()
        assert logic.busy
    return logic, large, done


def test_each_part_of_showing_has_a_turn_of_its_own_and_so_has_each_surface(turns):
    logic, _, done = turns
    made, first = {}, logic.turn
    while logic.busy:
        status = logic.poll()
        segmentation = status.segmentation.GetSegmentation()
        for name in segmentation.GetSegmentIDs():
            surface = segmentation.GetSegment(name).GetRepresentation("Closed surface")
            if surface is not None and surface.GetNumberOfPoints():
                made.setdefault(name, logic.turn)
    assert status.state == "done"
    assert [part for part, _ in done] == ["chosen", "views", "editor"]
    numbers = [*(number for _, number in done), *made.values()]
    assert len(numbers) > 3
    assert numbers == sorted(set(numbers))
    assert numbers[0] > first  # not in that in which it was written
    assert status.segmentation.GetDisplayNode().GetVisibility3D()


@pytest.mark.parametrize("part", [1, 3, 4])
@pytest.mark.parametrize("way", ["result removed", "scene closed"])
def test_a_result_that_goes_between_two_turns_is_left_alone(turns, way, part):
    logic, _, done = turns
    while len(done) < min(part, 3) or (part > 3 and not hasSurface(logic.status.segmentation)):
        logic.poll()
    before = list(done)
    if way == "scene closed":
        slicer.mrmlScene.Clear(False)
    else:
        slicer.mrmlScene.RemoveNode(logic.status.segmentation)
    status = pollUntil(logic, "done")
    assert (done, status.segmentation) == (before, None)
    assert status.message == "The result was removed, or the scene closed, before all of it was shown."
    assert not logic.busy
    if way == "scene closed":
        assert nodes() == []


@pytest.mark.parametrize("way", ["cancelled", "volume removed", "another click", "given up"])
def test_what_is_written_stays_whatever_comes_between_two_turns(turns, way):
    logic, volume, done = turns
    node = logic.status.segmentation
    if way == "another click":
        with pytest.raises(UsemaError, match="running"):
            logic.start(Parameters(inputVolume=volume, modelName="tiny"))
    else:
        {
            "cancelled": logic.cancel,
            "volume removed": lambda: slicer.mrmlScene.RemoveNode(volume),
            "given up": logic.releaseMemory,
        }[way]()
    status = pollUntil(logic, "done")
    assert status.segmentation is node
    assert len(done) == (0 if way == "given up" else 3)
    assert slicer.mrmlScene.IsNodePresent(node)
    if way in ("cancelled", "another click"):
        assert logic.segment(volume, "tiny") is not node


def test_what_fails_while_it_is_shown_costs_no_result(large, logicWith, caplog):
    logic = logicWith("none")

    def showing(segmentation):
        yield Steps.NextTurn()
        raise RuntimeError("no view")

    logic.afterWriting = showing
    assert logic.segment(large, "tiny", show3D=True) is not None
    assert hasSurface(logic.status.segmentation)
    assert "no view" in caplog.text


def hasSurface(node) -> bool:
    segmentation = node.GetSegmentation()
    surfaces = [
        segmentation.GetSegment(one).GetRepresentation("Closed surface") for one in segmentation.GetSegmentIDs()
    ]
    return any(one is not None and one.GetNumberOfPoints() for one in surfaces)
