"""What the panel says and shows of a result, and what it says of the user's corrections before they would go."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import slicer.util
from panel_cases import isShown, loadSample, waitUntil
from PySide6 import QtCore
from slicer_cases import voxels

pytest_plugins = ["panel_fixtures"]


def segment(panel) -> None:
    panel.ui.segmentButton.click()
    waitUntil(lambda: not panel.logic.busy)


def choose(panel, existing: str) -> None:
    panel.ui.existingSelector.setCurrentIndex(panel.ui.existingSelector.findData(existing))


def paint(panel, node, volume, planes: int) -> np.ndarray:
    """Sets the first planes in the first segment, as an effect of the editor does; gives the segment's voxels."""
    segmentId = node.GetSegmentation().GetNthSegmentID(0)
    panel.ui.segmentEditor.saveStateForUndo()
    array = voxels(node, segmentId, volume)
    array[:planes] = True
    slicer.util.updateSegmentBinaryLabelmapFromArray(array.astype(np.uint8), node, segmentId, volume)
    return array


@pytest.fixture
def corrected(app, openPanel):
    """A panel with a result that was corrected in one plane: (panel, segmentation, volume, voxels as corrected)."""
    panel = openPanel()
    volume = loadSample(app)
    segment(panel)
    (node,) = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    return panel, node, volume, paint(panel, node, volume, 1)


# Corrections


def test_the_number_of_corrected_voxels_is_told_as_soon_as_they_would_be_at_stake(corrected):
    panel, node, volume, _ = corrected
    assert not isShown(panel.ui.overwriteCheckBox)
    choose(panel, "replace")
    assert isShown(panel.ui.overwriteCheckBox)
    assert not panel.ui.overwriteCheckBox.checked
    before = panel.logic.corrections(panel.parameters()).voxels
    assert before > 0
    assert f"the {before:,} voxels that you corrected" in panel.ui.overwriteCheckBox.text
    paint(panel, node, volume, 3)  # and as the user goes on
    slicer.app.processEvents()
    now = panel.logic.corrections(panel.parameters()).voxels
    assert now > before
    assert f"the {now:,} voxels that you corrected" in panel.ui.overwriteCheckBox.text
    panel.ui.segmentEditor.undo()
    slicer.app.processEvents()
    assert f"the {before:,} voxels that you corrected" in panel.ui.overwriteCheckBox.text
    choose(panel, "new")
    assert not isShown(panel.ui.overwriteCheckBox)


def test_corrections_stay_unless_the_user_ticks_that_they_go(corrected):
    panel, node, volume, array = corrected
    segmentId = node.GetSegmentation().GetNthSegmentID(0)
    choose(panel, "replace")
    segment(panel)
    assert (voxels(node, segmentId, volume)[0] == array[0]).all()
    assert "corrected voxels were kept" in panel.ui.messageLabel.text
    panel.ui.overwriteCheckBox.click()
    assert panel.parameters().overwriteCorrections
    segment(panel)
    assert (voxels(node, segmentId, volume)[0] != array[0]).any()
    assert not isShown(panel.ui.overwriteCheckBox)  # nothing of the user's is left in it
    array = paint(panel, node, volume, 1)
    slicer.app.processEvents()
    assert isShown(panel.ui.overwriteCheckBox)
    assert not panel.ui.overwriteCheckBox.checked  # what was said of one result does not count for the next
    segment(panel)
    assert (voxels(node, segmentId, volume)[0] == array[0]).all()


# What is said and shown


def test_a_result_is_told_with_the_volume_of_each_segment_and_has_a_short_name(app, openPanel):
    panel = openPanel()
    loadSample(app)
    segment(panel)
    assert panel.ui.messageLabel.text.startswith("Done in")
    assert "Anterior hippocampus" in panel.ui.messageLabel.text
    assert "&nbsp;ml" in panel.ui.messageLabel.text  # the unit does not stand alone in a line
    assert panel.ui.outputSelector.currentNode().GetName() == "hippocampus_149 Hippocampus"


def test_the_slice_views_show_the_first_result_and_are_left_alone_afterwards(app, openPanel, tmp_path):
    view, slices = slicer.vtkMRMLSliceCompositeNode(), slicer.vtkMRMLSliceNode()
    for node in (view, slices):
        node.SetLayoutName("Red")
        slicer.mrmlScene.AddNode(node)
    panel = openPanel()
    volume = loadSample(app)
    view.SetBackgroundVolumeID(None)
    segment(panel)
    assert view.GetBackgroundVolumeID() == volume.GetID()
    node, bounds = panel.ui.outputSelector.currentNode(), [0.0] * 6
    node.GetRASBounds(bounds)
    position = [slices.GetSliceToRAS().GetElement(row, 3) for row in range(3)]
    assert position == pytest.approx([(bounds[2 * axis] + bounds[2 * axis + 1]) / 2 for axis in range(3)])
    slices.JumpSliceByCentering(1.0, 2.0, 3.0)
    segment(panel)
    assert [slices.GetSliceToRAS().GetElement(row, 3) for row in range(3)] == [1.0, 2.0, 3.0]


# Names that look like markup


HOSTILE = "<img src=x onerror=alert(1)><b>T1 & T2</b>"


def test_no_name_of_a_volume_becomes_markup(app, openPanel):
    panel = openPanel()
    volume = loadSample(app)
    volume.SetName(HOSTILE)
    slicer.util.updateVolumeFromArray(volume, np.zeros((4, 4, 4), np.float32) * np.nan)
    panel.updateState()
    volume.SetAndObserveImageData(None)
    panel.updateState()
    assert HOSTILE in panel.ui.reasonLabel.text
    assert panel.ui.reasonLabel.textFormat == QtCore.Qt.TextFormat.PlainText
    assert "<img" not in panel.ui.segmentButton.toolTip
    assert "&lt;img" in panel.ui.segmentButton.toolTip


def test_no_text_of_a_model_becomes_markup(app, openPanel, tmp_path, monkeypatch):
    from bundles import TINY, write_tiny_bundle

    (tmp_path / "Models").mkdir()
    write_tiny_bundle(
        tmp_path / "Models" / "hostile",
        name="hostile",
        title=HOSTILE,
        description=f"{HOSTILE} in a volume.",
        limits=HOSTILE,
        citation=HOSTILE,
        channels=[{"name": "T1"}, {"name": HOSTILE}],
        architecture={"name": "USEMA", "config": {**TINY, "in_channels": 2}},
    )
    monkeypatch.setenv("USEMA_RESOURCES", str(tmp_path))
    panel = openPanel()
    ui = panel.ui
    assert ui.modelFindsLabel.text == f"{HOSTILE} in a volume."
    assert ui.modelFindsLabel.textFormat == QtCore.Qt.TextFormat.PlainText
    (selector,) = panel.channelSelectors.selectors
    label = ui.channelsSection.layout().labelForField(selector)
    rich = [ui.modelInfoLabel.text, ui.modelInfoLabel.toolTip, ui.modelFindsLabel.toolTip, ui.modelSelector.toolTip]
    cells = panel.manageSection.ui.modelsTable
    rich += [label.text, cells.item(0, 0).toolTip()]
    for text in rich:
        assert "<img" not in text
        assert "&lt;img src=x onerror=alert(1)&gt;" in text, text


def test_a_speed_says_how_long_it_takes_here_and_what_it_costs(app):
    from USEMASegmentationLib.Panel.RunTexts import speed

    assert speed("Fast", None) == "Fast"
    assert speed("Fast", 30.0) == "Fast (about 30 s)"
    assert speed("Fast", 30.0, -0.0021) == "Fast (about 30 s, Dice -0.0021)"
    assert speed("Fast", None, 0.0) == "Fast (same Dice)"


@pytest.mark.parametrize(("done", "total", "steps"), [(0, 0, 0), (0, 1, 0), (1, 1, 1), (0, 4, 4), (3, 4, 4)])
def test_a_bar_moves_instead_of_standing_still_until_its_only_step_is_done(app, done, total, steps):
    from USEMASegmentationLib.Panel import RunTexts
    from USEMASegmentationLib.Parameters import Status

    assert RunTexts.steps(Status(done=done, total=total)) == steps


def test_messages_and_questions_escape_what_they_are_told(app):
    from pathlib import Path

    from USEMASegmentationLib.ModelStore import ModelHere, StoreStatus
    from USEMASegmentationLib.Panel import RunTexts, StoreTexts

    here = ModelHere(HOSTILE, "1.0.0", 1, None, problem=HOSTILE)
    failed = StoreStatus("failed", task="import", title=HOSTILE, message=HOSTILE, hint=HOSTILE, warnings=[HOSTILE])
    done = StoreStatus("done", task="import", title=HOSTILE)
    for text in (
        RunTexts.message(HOSTILE, HOSTILE, [HOSTILE]),
        RunTexts.asHtml(HOSTILE),
        StoreTexts.deleteQuestion(here),
        StoreTexts.problems([HOSTILE]),
        StoreTexts.folder(Path("/") / "<img src=x>", 1),
        StoreTexts.taskStep(StoreStatus("running", task="import", title=HOSTILE)),
        StoreTexts.taskStep(StoreStatus("running", task="import", title="", message=HOSTILE)),
        StoreTexts.taskResult(failed),
        StoreTexts.taskResult(done),
    ):
        assert "<img" not in text
        assert "&lt;img" in text


# Limits and licence


def test_limits_and_licence_are_folded_until_the_user_unfolds_them_for_good(openPanel):
    panel = openPanel()
    assert not isShown(panel.ui.modelInfoLabel)
    assert panel.ui.aboutButton.text == "▸ Limits and licence"
    panel.ui.aboutButton.click()
    assert isShown(panel.ui.modelInfoLabel)
    again = openPanel()
    assert isShown(again.ui.modelInfoLabel)
    assert again.ui.aboutButton.text == "▾ Limits and licence"
    again.ui.aboutButton.click()
    assert not isShown(openPanel().ui.modelInfoLabel)


# While a result is being shown


@pytest.mark.parametrize("way", ["scene closed", "result removed", "module left", "another click", "undo"])
def test_what_the_user_does_between_two_turns_of_showing_is_safe(corrected, way):
    panel, node, volume, painted = corrected
    name = node.GetSegmentation().GetNthSegmentID(0)
    choose(panel, "replace")
    panel.ui.segmentButton.click()
    waitUntil(lambda: panel.logic._settled)
    result = voxels(node, name, volume)
    if way == "scene closed":
        slicer.mrmlScene.Clear(False)
    elif way == "result removed":
        slicer.mrmlScene.RemoveNode(node)
    elif way == "module left":
        panel.parent.isEntered = False
        panel.exit()
    elif way == "another click":
        panel.ui.segmentButton.click()
    else:
        panel.ui.segmentEditor.undo()
    waitUntil(lambda: not panel.logic.busy)
    assert panel.logic.status.state == "done"
    assert panel.ui.segmentButton.text == "Segment"
    if way in ("scene closed", "result removed"):
        assert "before all of it was shown" in panel.ui.messageLabel.text
        assert panel.binding.node.segmentation is None
        return
    if way == "module left":
        panel.parent.isEntered = True
        panel.enter()
    assert "Done in" in panel.ui.messageLabel.text
    assert panel.binding.node.segmentation is node
    assert panel.ui.segmentEditor.mrmlSegmentEditorNode().GetSegmentationNode() is node
    assert (voxels(node, name, volume) == (painted if way == "undo" else result)).all()
    (panel.ui.segmentEditor.redo if way == "undo" else panel.ui.segmentEditor.undo)()
    assert (voxels(node, name, volume) == (result if way == "undo" else painted)).all()
