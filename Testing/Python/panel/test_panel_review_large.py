"""Review and refine on segments that take long to look at: the panel goes on meanwhile, and a click finds the truth."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import slicer
import slicer.util
from panel_cases import isShown, waitUntil
from slicer_cases import voxels

pytest_plugins = ["panel_fixtures", "review_fixtures"]

ANTERIOR = "hippocampus-mr_1"


@pytest.fixture
def large(reviewed, monkeypatch):
    """A panel whose segments count as large, with the section closed; what is looked at waits for ``gate``."""
    from USEMASegmentationLib import Steps
    from USEMASegmentationLib.Scene.EditMask import Held

    panel, volume, node = reviewed
    panel.reviewSection.ui.reviewCollapsibleButton.collapsed = True
    panel.reviewSection.close()
    monkeypatch.setattr(Steps, "SMALL", 0)
    gate, look = threading.Event(), Held.editsOn

    def editsOn(*arguments):
        if threading.current_thread() is not threading.main_thread():
            assert gate.wait(30), "nobody opened the gate"
        return look(*arguments)

    monkeypatch.setattr(Held, "editsOn", editsOn)
    panel.updateState()
    yield panel, volume, node, gate
    gate.set()


def opened(panel, gate):
    ui = panel.reviewSection.ui
    ui.reviewCollapsibleButton.collapsed = False
    gate.set()
    waitUntil(lambda: isShown(ui.thresholdGroup))
    return ui


def paint(node, volume, index: int = 3) -> int:
    """The user paints in a slice; gives how many voxels are new."""
    array = voxels(node, ANTERIOR, volume).astype(np.uint8)
    before = array.sum()
    array[index, 2:8, 2:8] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(array, node, ANTERIOR, volume)
    slicer.app.processEvents()
    return int(array.sum() - before)


def events() -> None:
    for _ in range(5):
        slicer.app.processEvents()


def test_the_section_says_that_it_looks_and_shows_then_what_it_always_shows(large):
    panel, _, _, gate = large
    ui = panel.reviewSection.ui
    ui.reviewCollapsibleButton.collapsed = False
    events()
    assert ui.reviewHintLabel.text == "Looking at the segments..."
    assert not isShown(ui.thresholdGroup)
    opened(panel, gate)
    assert not isShown(ui.reviewHintLabel)
    assert ui.thresholdSelector.count == 2
    assert not panel.reviewSection._timer.active


def test_a_stroke_is_counted_beside_and_a_click_does_not_wait_for_the_timer(large):
    panel, volume, node, gate = large
    ui = opened(panel, gate)
    gate.clear()
    count = paint(node, volume)
    events()
    assert "Paint or erase" in ui.refineLabel.text  # of before
    gate.set()
    waitUntil(lambda: ui.refineLabel.text == f"{count} voxels of new strokes to follow.")
    gate.clear()
    paint(node, volume, 5)
    ui.refineButton.click()
    assert ui.refineLabel.text == "Following the strokes..."
    assert not ui.refineButton.enabled
    gate.set()
    waitUntil(lambda: "have followed" in ui.refineLabel.text)
    (case,) = panel.reviewSection.cases
    assert set(np.flatnonzero(case.refined()[1].on(case.box).any(axis=(1, 2)))) == {3, 5}


@pytest.mark.parametrize("how", ["another", "closed", "folded"])
def test_what_is_left_while_it_is_looked_at_is_let_go(large, how):
    panel, volume, node, gate = large
    ui = opened(panel, gate)
    gate.clear()
    paint(node, volume)
    events()
    if how == "another":
        panel._parameterNode.segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        events()
        assert "No segment of this segmentation was made by a model" in ui.reviewHintLabel.text
    elif how == "closed":
        slicer.mrmlScene.Clear(False)
        assert "Segment first" in ui.reviewHintLabel.text
    else:
        ui.reviewCollapsibleButton.collapsed = True
    gate.set()
    waitUntil(lambda: not panel.reviewSection._timer.active)
    if how == "another":
        panel._parameterNode.segmentation = node
        waitUntil(lambda: "new strokes to follow" in ui.refineLabel.text)


def test_clicks_that_still_wait_are_given_up_with_the_section(large):
    panel, volume, node, gate = large
    ui, before = opened(panel, gate), voxels(node, ANTERIOR, volume)
    paint(node, volume)
    waitUntil(lambda: ui.refineButton.enabled)
    gate.clear()
    count = paint(node, volume, 5)
    for button in (ui.refineButton, ui.findRegionsButton, ui.acceptSliceButton):
        button.click()
    ui.reviewCollapsibleButton.collapsed = True
    gate.set()
    ui.reviewCollapsibleButton.collapsed = False
    waitUntil(lambda: ui.refineLabel.text == f"{2 * count} voxels of new strokes to follow.")
    events()
    assert ui.refineButton.enabled
    assert not panel.reviewSection.regions.review.searched
    assert {int((voxels(node, ANTERIOR, volume) != before).sum())} == {2 * count}


def test_doubtful_regions_are_looked_for_beside_and_those_of_another_result_are_let_go(large, monkeypatch):
    from USEMASegmentationLib.Review import GuidedReview

    panel, volume, node, gate = large
    ui = opened(panel, gate)
    look, search = threading.Event(), GuidedReview.find
    monkeypatch.setattr(GuidedReview, "find", lambda *arguments: look.wait(30) and search(*arguments))
    ui.findRegionsButton.click()
    events()
    assert ui.regionLabel.text == "Looking for doubtful regions..."
    assert not ui.findRegionsButton.enabled
    gate.clear()
    paint(node, volume)
    events()
    time.sleep(0.2)
    events()  # the timer comes, and does not wait for what is looked at
    assert not gate.is_set()
    assert panel.reviewSection._looking is not None
    gate.set()
    look.set()
    waitUntil(lambda: ui.findRegionsButton.enabled)
    found = len(panel.reviewSection.regions.review.items)
    assert f"0 of {found} done" in ui.regionLabel.text
    assert ui.acceptRegionButton.enabled
    look.clear()
    ui.findRegionsButton.click()
    node.GetSegmentation().AddEmptySegment("mine")
    panel.updateState()
    look.set()
    waitUntil(lambda: not panel.reviewSection.regions._timer.active)
    assert ui.findRegionsButton.enabled
    assert len(panel.reviewSection.regions.review.items) == found


def test_who_has_just_painted_need_not_wait_for_the_next_region(large):
    panel, volume, node, gate = large
    ui, regions = opened(panel, gate), panel.reviewSection.regions
    ui.findRegionsButton.click()
    waitUntil(lambda: ui.findRegionsButton.enabled and regions.review.index == 0)
    gate.clear()
    paint(node, volume)
    events()
    ui.nextRegionButton.click()  # it would wait for ever here
    assert not gate.is_set()
    ui.acceptSliceButton.click()
    assert regions.review.index == 0
    assert ui.slicesList.count == 0
    gate.set()
    waitUntil(lambda: regions.review.index == 1 and ui.slicesList.count > 0)


def test_each_state_of_a_segment_is_looked_at_once(large):
    from USEMASegmentationLib.Scene.KnownEdits import KnownEdits

    _, volume, node, gate = large
    gate.set()
    known, ids = KnownEdits(), node.GetSegmentation().GetSegmentIDs()
    first = known.of(node, ids, volume)
    assert set(first) == set(ids)
    assert known.of(node, ids, volume)[ANTERIOR] is first[ANTERIOR]
    count = paint(node, volume)
    then = known.of(node, ids, volume)
    assert first[ANTERIOR].changed.count == 0
    slicer.vtkSlicerSegmentationsModuleLogic.SetSegmentStatus(node.GetSegmentation().GetSegment(ANTERIOR), 2)
    node.GetSegmentation().GetSegment(ANTERIOR).SetColor(1, 0, 0)
    assert known.of(node, ids, volume)[ANTERIOR] is then[ANTERIOR]
    assert then[ANTERIOR].changed.count == count


@pytest.fixture
def slow(large, monkeypatch):
    """The same with its section open; what a threshold needs waits for ``prepared``, and for nothing at first."""
    from USEMASegmentationLib.Review import Threshold

    panel, volume, node, gate = large
    prepared, gaps = threading.Event(), Threshold.gaps
    prepared.threads = set()

    def waiting(*arguments):
        prepared.threads.add(threading.current_thread())
        assert prepared.wait(30), "nobody let it be prepared"
        return gaps(*arguments)

    monkeypatch.setattr(Threshold, "gaps", waiting)
    yield panel, volume, node, opened(panel, gate), prepared
    prepared.set()


def outlines() -> list:
    return list(slicer.util.getNodes("USEMA preview*").values())


def test_the_outline_is_made_beside_and_is_what_apply_writes(slow, monkeypatch):
    from USEMASegmentationLib.Scene.SegmentChange import SegmentChange

    panel, volume, node, ui, prepared = slow
    written, prepare = [], SegmentChange.of
    monkeypatch.setattr(SegmentChange, "of", lambda *one: written.append(threading.current_thread()) or prepare(*one))
    before = voxels(node, ANTERIOR, volume)
    ui.thresholdSlider.value = 0.5
    ui.thresholdSlider.value = 1.5
    events()
    assert ui.thresholdLabel.text == "Making the outline..."
    assert not outlines()
    assert not ui.thresholdApplyButton.enabled
    prepared.set()
    waitUntil(lambda: ui.thresholdApplyButton.enabled)
    (outline,) = outlines()
    shown = voxels(outline, "preview", volume)
    assert shown.sum() > before.sum()
    prepared.clear()
    ui.thresholdApplyButton.click()
    assert ui.thresholdLabel.text == "Applying..."
    assert not ui.thresholdSlider.enabled
    prepared.set()
    waitUntil(lambda: ui.thresholdSlider.enabled)
    assert (voxels(node, ANTERIOR, volume) == shown).all()
    assert not outlines()
    waitUntil(lambda: panel.reviewSection._looking is None)
    assert ui.thresholdSlider.value == 1.5
    assert all(one.changed.count == 0 for one in panel.reviewSection.cases[0].edits().values())
    assert threading.main_thread() not in {*prepared.threads, *written}
    panel.ui.segmentEditor.undo()
    assert (voxels(node, ANTERIOR, volume) == before).all()
    waitUntil(lambda: ui.thresholdSlider.value == 0)


def test_a_stroke_while_it_is_applied_stays_the_users(slow):
    panel, volume, node, ui, prepared = slow
    prepared.set()
    before = voxels(node, ANTERIOR, volume)
    ui.thresholdSlider.value = 1.5
    waitUntil(lambda: ui.thresholdApplyButton.enabled)
    shown = voxels(outlines()[0], "preview", volume)
    prepared.clear()
    ui.thresholdApplyButton.click()
    stroke = shown & ~before
    stroke[len(stroke) // 2 :] = False
    assert stroke.any()
    slicer.util.updateSegmentBinaryLabelmapFromArray((before | stroke).astype(np.uint8), node, ANTERIOR, volume)
    events()
    prepared.set()
    waitUntil(lambda: ui.thresholdSlider.enabled and panel.reviewSection._looking is None)
    assert (voxels(node, ANTERIOR, volume) == shown).all()
    changed = panel.reviewSection.cases[0].edits()[1].changed
    assert (changed.on(tuple(slice(0, length) for length in stroke.shape)) == stroke).all()


@pytest.mark.parametrize("how", ["cancelled", "another segment", "folded", "closed"])
@pytest.mark.parametrize("applying", [False, True])
def test_what_a_threshold_has_begun_ends_with_its_reason(slow, how, applying):
    _, volume, node, ui, prepared = slow
    before = voxels(node, ANTERIOR, volume)
    if applying:
        prepared.set()
    ui.thresholdSlider.value = 1.5
    if applying:
        waitUntil(lambda: ui.thresholdApplyButton.enabled)
        prepared.clear()
        ui.thresholdApplyButton.click()
    waitUntil(lambda: prepared.threads)
    if how == "cancelled":
        ui.thresholdCancelButton.click()
    elif how == "another segment":
        ui.thresholdSelector.setCurrentIndex(1)
    elif how == "folded":
        ui.reviewCollapsibleButton.collapsed = True
    else:
        slicer.mrmlScene.Clear(False)
    prepared.set()
    for one in prepared.threads:
        one.join(30)
    time.sleep(0.05)
    events()
    assert not outlines()
    if how == "folded" and applying:  # it was asked for, and can be undone
        waitUntil(lambda: (voxels(node, ANTERIOR, volume) != before).any())
    elif how != "closed":
        assert (voxels(node, ANTERIOR, volume) == before).all()
        assert ui.thresholdSlider.enabled


def test_python_ends_after_what_is_computed_beside(tmp_path, root):
    # A thread that is broken off inside of NumPy aborts the application.
    code = """
import sys, time
from pathlib import Path
from USEMASegmentationLib.Steps import Aside
def work():
    time.sleep(0.3)
    Path(sys.argv[1]).write_text("done")
Aside(work)
"""
    environment = {**os.environ, "PYTHONPATH": str(root / "USEMASegmentation")}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "end")], env=environment, check=True, timeout=60)
    assert (tmp_path / "end").read_text() == "done"
