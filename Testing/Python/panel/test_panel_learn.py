"""Learn from my corrections, clicked through with an engine that follows a script: what is offered, asked and kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import slicer
import slicer.util
from panel_cases import isShown, waitUntil
from review_cases import ANTERIOR, METADATA, POSTERIOR, writeFound
from slicer_cases import voxels
from USEMASegmentationLib.Scene import KeptDelta
from USEMASegmentationLib.Scene.EditMask import tagOf

pytest_plugins = ["panel_fixtures", "review_fixtures"]


def draw(panel, volume, node, index: int = 3) -> np.ndarray:
    """The user paints in an axial slice, a step of its own; bool, where."""
    panel.ui.segmentEditor.saveStateForUndo()
    array = voxels(node, ANTERIOR, volume).astype(np.uint8)
    place = (slice(index, index + 1), slice(2, 8), slice(2, 8))
    array[place] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(array, node, ANTERIOR, volume)
    slicer.app.processEvents()
    drawn = np.zeros(array.shape, bool)
    drawn[place] = True
    return drawn


def rows(panel) -> list[str]:
    widget = panel.reviewSection.ui.slicesList
    return [widget.item(row).text() for row in range(widget.count)]


def tick(panel, row: int, ticked: bool) -> None:
    import qt

    state = qt.Qt.Checked if ticked else qt.Qt.Unchecked
    panel.reviewSection.ui.slicesList.item(row).setCheckState(state)


def learn(panel) -> None:
    panel.reviewSection.ui.learnButton.click()
    assert panel.logic.learning.busy, panel.ui.messageLabel.text
    waitUntil(lambda: not panel.logic.learning.busy)


def both(node, volume) -> np.ndarray:
    return voxels(node, ANTERIOR, volume) + 2 * voxels(node, POSTERIOR, volume).astype(np.uint8)


def test_slices_with_strokes_are_offered_and_what_is_missing_is_said(reviewed):
    panel, volume, node = reviewed
    ui = panel.reviewSection.ui
    assert not ui.learnButton.enabled
    assert "No slice is ticked" in ui.learnLabel.text
    assert not isShown(ui.slicesList)
    draw(panel, volume, node)
    assert rows(panel) == ["Axial slice 3: 36 voxels corrected"]
    assert ui.learnButton.enabled
    assert "1 slice is ticked, and must be right" in ui.learnLabel.text
    assert "about" in ui.learnLabel.text
    tick(panel, 0, False)
    assert not ui.learnButton.enabled
    tick(panel, 0, True)
    assert ui.learnButton.enabled
    panel.ui.segmentEditor.undo()
    slicer.app.processEvents()
    assert rows(panel) == []


@pytest.mark.parametrize(("clicks", "way"), [(0, "propagated"), (1, "learned")])
def test_whether_the_model_itself_learns_is_the_users_choice(reviewed, clicks, way):
    panel, volume, node = reviewed
    draw(panel, volume, node)
    for _ in range(clicks):
        panel.reviewSection.ui.modelLearnsCheckBox.click()
    learn(panel)
    assert tagOf(node.GetSegmentation().GetSegment(ANTERIOR), "adaptation") == way


def test_the_slice_that_a_view_shows_can_be_accepted(reviewed):
    panel, _, _ = reviewed
    ui = panel.reviewSection.ui
    assert not ui.acceptSliceButton.enabled
    views = [slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceNode", name) for name in ("Red", "Yellow", "Askew")]
    for view, orientation in zip(views, ("Axial", "Sagittal", "Axial"), strict=True):
        view.SetMappedInLayout(1)
        view.SetOrientation(orientation)
    world = panel.reviewSection.cases[0].worldOf((12, 20, 15))
    for view in views:
        view.JumpSlice(*world)
    views[2].SetSliceToRASByNTP(0.6, 0, 0.8, 0, 1, 0, *world, 0)
    panel.updateState()
    panel.reviewSection.learn.update()
    assert [ui.viewSelector.itemText(row) for row in range(ui.viewSelector.count)] == ["Red view", "Yellow view"]
    ui.viewSelector.setCurrentIndex(1)
    ui.acceptSliceButton.click()
    ui.viewSelector.setCurrentIndex(0)
    ui.acceptSliceButton.click()
    assert rows(panel) == ["Axial slice 12: accepted", "Sagittal slice 15: accepted"]
    views[0].SetSliceToRASByNTP(0.6, 0, 0.8, 0, 1, 0, *world, 0)
    ui.acceptSliceButton.click()
    assert "shows no slice of the volume" in panel.ui.messageLabel.text
    views[0].SetOrientation("Axial")
    assert ui.learnButton.enabled
    for view in views:
        view.JumpSlice(*panel.reviewSection.cases[0].worldOf((0, 0, 0)))
    ui.slicesList.setCurrentRow(1)
    shown = [views[1].GetSliceToRAS().GetElement(row, 3) for row in range(3)]
    assert shown[0] == pytest.approx(world[0], abs=0.51)


def test_what_it_finds_is_one_step_and_edits_and_accepted_slices_stay(reviewed, found):
    panel, volume, node = reviewed
    ui = panel.reviewSection.ui
    drawn = draw(panel, volume, node)
    before = both(node, volume)
    learn(panel)
    after = both(node, volume)
    changed = after != before
    assert changed.any()
    assert not changed[3].any()
    assert not changed[drawn].any()
    assert f"{changed.sum():,} voxels changed" in ui.learnLabel.text
    assert "Learned." in ui.learnLabel.text
    assert isShown(ui.forgetButton)
    segment = node.GetSegmentation().GetSegment(ANTERIOR)
    assert tagOf(segment, "adaptedFrom") == "axis 0: 3"
    assert node.GetAttribute("USEMA.adaptation") == "propagated"
    assert rows(panel) == ["Axial slice 3: 36 voxels corrected"]  # to go on from
    panel.ui.segmentEditor.undo()
    slicer.app.processEvents()
    assert (both(node, volume) == before).all()
    assert not isShown(ui.forgetButton)
    writeFound(found, volume)  # elsewhere, which forgets nothing of here
    panel.ui.segmentEditor.redo()
    slicer.app.processEvents()
    assert (both(node, volume) == after).all()
    assert isShown(ui.forgetButton)
    assert tagOf(segment, "adaptedFrom") == "axis 0: 3"
    assert rows(panel) == ["Axial slice 3: 36 voxels corrected"]
    assert panel.reviewSection.cases[0].delta.slices == "axis 0: 3"
    learn(panel)  # and goes on from there
    assert "Learned." in ui.learnLabel.text
    panel.ui.segmentEditor.undo()
    slicer.app.processEvents()
    assert (both(node, volume) == after).all()


def test_what_was_learned_is_saved_used_again_and_forgotten(app, reviewed, tmp_path):
    panel, volume, node = reviewed
    draw(panel, volume, node)
    learn(panel)
    app.saveBundle(tmp_path / "scene.mrb")
    app.openBundle(tmp_path / "scene.mrb")
    slicer.app.processEvents()
    panel.initializeParameterNode()
    (node,) = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    panel._parameterNode.segmentation = node
    ui = panel.reviewSection.ui
    (case,) = panel.reviewSection.cases
    assert case.delta.slices == "axis 0: 3"
    assert "has learned for this case, from slices: Axial 3" in ui.learnLabel.text
    parameters = panel.parameters()
    parameters.existing = "replace"
    assert not KeptDelta.ofNext(parameters, METADATA).used
    ui.useLearnedCheckBox.click()
    used = KeptDelta.ofNext(parameters, METADATA)
    assert used.used
    assert Path(used.write(tmp_path)).read_bytes() == b"what was learned"
    parameters.existing = "new"
    assert KeptDelta.ofNext(parameters, METADATA) is None
    ui.forgetButton.click()
    assert "is forgotten" in ui.learnLabel.text
    assert panel.reviewSection.cases[0].delta is None
    assert not isShown(ui.forgetButton)


def learnAsked(reviewed, asked, answer: bool, question: str) -> None:
    """Draws and learns; it is asked once, and voxels change only with the answer yes."""
    panel, volume, node = reviewed
    asked.answer = answer
    draw(panel, volume, node)
    before = both(node, volume)
    learn(panel)
    assert asked == [question]
    assert ((both(node, volume) != before).any()) == answer


@pytest.mark.parametrize("reviewed", ["asks"], indirect=True)
@pytest.mark.parametrize("answer", [True, False])
def test_what_speaks_against_it_is_asked_before_anything_is_written(reviewed, asked, answer):
    learnAsked(reviewed, asked, answer, "It changes much far away. Keep it?")
    panel, volume, node = reviewed
    if not answer:
        assert "Nothing was written" in panel.reviewSection.ui.learnLabel.text
        panel.ui.segmentEditor.undo()  # the stroke: there is no other step
        assert not both(node, volume)[3, 2:8, 2:8].any()


@pytest.mark.parametrize("reviewed", ["takes long"], indirect=True)
@pytest.mark.parametrize("answer", [True, False])
def test_what_takes_long_is_asked_before_it_begins(reviewed, asked, answer):
    learnAsked(reviewed, asked, answer, "It would take 67 min. Learn all the same?")


STAGES = {
    "looking": "Looking at the slices",
    "learning": "Learning",
    "propagating": "Propagating what you changed",
    "segmenting": "Segmenting",
}


@pytest.mark.parametrize(
    ("reviewed", "words"), [(f"waits while {one}", words) for one, words in STAGES.items()], indirect=["reviewed"]
)
def test_each_stage_is_told_in_words_with_a_bar_that_moves_and_can_be_cancelled(reviewed, words):
    panel, volume, node = reviewed
    ui = panel.reviewSection.ui
    draw(panel, volume, node)
    before = both(node, volume)
    ui.learnButton.click()
    assert ui.learnButton.text == "Cancel"
    assert not panel.ui.segmentButton.enabled
    assert not ui.refineGroup.enabled
    waitUntil(lambda: panel.logic.learning.status.phase)
    bar = ui.learnProgressBar
    waitUntil(lambda: (ui.learnLabel.text, bar.format) == (words, "about 6 s left"))
    assert isShown(bar)
    assert (bar.value, bar.maximum) == (1, 2)
    ui.learnButton.click()
    waitUntil(lambda: not panel.logic.learning.busy)
    slicer.app.processEvents()
    assert "Learning was cancelled. Nothing was written." in ui.learnLabel.text
    assert (both(node, volume) == before).all()
    assert ui.learnButton.text == "Learn"
    assert panel.ui.segmentButton.enabled
    assert ui.refineGroup.enabled


@pytest.mark.parametrize("reviewed", ["dies while learning"], indirect=True)
def test_a_worker_that_dies_leaves_all_as_it_was_and_the_next_click_works(reviewed):
    panel, volume, node = reviewed
    draw(panel, volume, node)
    before = both(node, volume)
    for _ in range(2):
        learn(panel)
        assert panel.logic.learning.status.state == "failed"
        assert panel.logic.learning.status.message in panel.reviewSection.ui.learnLabel.text
    assert (both(node, volume) == before).all()


@pytest.mark.parametrize("reviewed", ["waits while learning"], indirect=True)
def test_a_scene_that_is_closed_meanwhile_ends_it(reviewed):
    panel, volume, node = reviewed
    draw(panel, volume, node)
    panel.reviewSection.ui.learnButton.click()
    waitUntil(lambda: panel.logic.learning.status.phase == "learning")
    slicer.mrmlScene.Clear(False)
    waitUntil(lambda: not panel.logic.learning.busy)
    assert panel.logic.learning.status.state == "cancelled"
    assert "was removed" in panel.logic.learning.status.message


@pytest.mark.parametrize("reviewed", ["unchanged"], indirect=True)
def test_what_does_not_help_is_said_and_changes_nothing(reviewed):
    panel, volume, node = reviewed
    draw(panel, volume, node)
    before = both(node, volume)
    learn(panel)
    assert "Learned." in panel.reviewSection.ui.learnLabel.text
    assert (both(node, volume) == before).all()


@pytest.mark.parametrize("reviewed", ["agrees"], indirect=True)
def test_nothing_is_called_propagated_where_no_voxel_changed(reviewed):
    panel, volume, node = reviewed
    draw(panel, volume, node)
    before = both(node, volume)
    learn(panel)
    assert panel.reviewSection.ui.learnLabel.text == "The corrected and accepted slices change nothing in the others."
    assert (both(node, volume) == before).all()


def test_how_it_ended_is_said_as_long_as_the_segmentation_holds_it(reviewed):
    panel, volume, node = reviewed
    ui = panel.reviewSection.ui
    draw(panel, volume, node)
    learn(panel)
    assert "voxels changed" in ui.learnLabel.text
    panel.ui.segmentEditor.undo()
    slicer.app.processEvents()
    assert "1 slice is ticked" in ui.learnLabel.text
    panel.ui.segmentEditor.redo()
    slicer.app.processEvents()
    assert "voxels changed" in ui.learnLabel.text


def test_a_segment_that_is_missing_is_no_lesson(reviewed):
    panel, volume, node = reviewed
    draw(panel, volume, node)
    node.GetSegmentation().RemoveSegment(POSTERIOR)
    slicer.app.processEvents()
    ui = panel.reviewSection.ui
    assert not ui.learnButton.enabled
    assert "There is no segment for Posterior hippocampus" in ui.learnLabel.text


@pytest.mark.parametrize("reviewed", ["asks"], indirect=True)
def test_a_result_that_is_gone_meanwhile_is_not_written_over(reviewed, asked, monkeypatch):
    panel, volume, node = reviewed
    draw(panel, volume, node)

    def askedTooLate(text, windowTitle):
        node.GetSegmentation().RemoveSegment(POSTERIOR)
        return True

    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", askedTooLate)
    before = voxels(node, ANTERIOR, volume)
    learn(panel)
    assert "no longer there: its segments were removed" in panel.logic.learning.status.message
    assert (voxels(node, ANTERIOR, volume) == before).all()
    assert len(slicer.util.getNodesByClass("vtkMRMLTextNode")) == 1


@pytest.mark.parametrize("reviewed", ["waits"], indirect=True)
def test_while_a_segmentation_runs_nothing_is_learned(reviewed):
    panel, volume, node = reviewed
    draw(panel, volume, node)
    panel.ui.segmentButton.click()
    panel.reviewSection.ui.learnButton.click()
    assert not panel.logic.learning.busy
    assert "A segmentation is running" in panel.ui.messageLabel.text
    panel.ui.segmentButton.click()
    waitUntil(lambda: not panel.logic.busy)
