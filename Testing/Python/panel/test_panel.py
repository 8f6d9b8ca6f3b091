"""The panel, clicked through in the stand-in of the application: see Testing/Host/README.md for what that proves."""

from __future__ import annotations

import sys
from html import escape

import numpy as np
import slicer
import slicer.util
from bundles import TINY, write_tiny_bundle
from panel_cases import loadSample, waitUntil
from PySide6 import QtCore
from slicer_cases import children, voxels

pytest_plugins = ["panel_fixtures"]


def segmentations() -> list:
    return slicer.util.getNodesByClass("vtkMRMLSegmentationNode")


def segment(panel) -> None:
    panel.ui.segmentButton.click()
    waitUntil(lambda: not panel.logic.busy)


# What it says and allows


def test_an_empty_scene_tells_what_to_do_first(openPanel):
    ui = openPanel().ui
    assert not ui.segmentButton.enabled
    assert ui.reasonLabel.text == "No volume is chosen. Choose the volume to segment."
    assert ui.segmentButton.toolTip == ui.reasonLabel.text
    assert not ui.show3DButton.enabled
    assert ui.correctHintLabel.isVisibleTo(ui.correctCollapsibleButton)
    assert not ui.segmentEditor.isVisibleTo(ui.correctCollapsibleButton)
    assert not ui.progressBar.isVisibleTo(ui.segmentCollapsibleButton)
    assert ui.advancedCollapsibleButton.collapsed


def test_a_loaded_volume_is_chosen_and_readies_the_button(app, openPanel):
    panel = openPanel()
    volume = loadSample(app)
    assert panel.ui.inputSelector.currentNode() == volume
    assert panel.ui.segmentButton.enabled
    assert panel.ui.reasonLabel.text == ""


def test_the_volume_in_the_views_is_chosen_not_the_first(app, openPanel):
    loadSample(app)
    second = loadSample(app)
    slicer.app.applicationLogic().GetSelectionNode().SetActiveVolumeID(second.GetID())
    assert openPanel().ui.inputSelector.currentNode() == second


def test_label_maps_are_not_offered(app, openPanel):
    panel = openPanel()
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode")
    assert panel.ui.inputSelector.currentNode() is None
    assert openPanel().ui.inputSelector.currentNode() is None


def test_a_volume_unlike_the_training_data_is_warned_of_before_and_after_but_not_twice(app, openPanel):
    panel = openPanel()
    volume = loadSample(app)
    volume.SetSpacing(1, 1, 5)
    panel.updateState()
    assert "The spacing along" in panel.ui.reasonLabel.text
    assert panel.ui.segmentButton.enabled
    segment(panel)
    assert "The spacing along" in panel.ui.messageLabel.text
    assert panel.ui.reasonLabel.text == ""


def test_the_model_says_what_it_finds_its_limits_and_its_licence(openPanel):
    panel = openPanel()
    (bundle,) = panel.logic.models()
    text = panel.ui.modelInfoLabel.text
    assert escape(bundle.metadata.limits) in text
    assert bundle.metadata.licence["url"] in text
    assert bundle.metadata.citation.split(",")[0] in panel.ui.modelInfoLabel.toolTip
    names = [one.name for one in bundle.metadata.labels]
    assert [panel.ui.labelsList.item(row).text() for row in range(len(names))] == names


def test_unticked_labels_are_not_segmented_and_none_is_refused(app, openPanel):
    panel = openPanel()
    volume = loadSample(app)
    labels = panel.ui.labelsList
    first, second, *others = (labels.item(row) for row in range(labels.count))
    for item in (first, *others):
        item.setCheckState(QtCore.Qt.CheckState.Unchecked)
    assert panel.parameters().labels == [second.text()]
    second.setCheckState(QtCore.Qt.CheckState.Unchecked)
    assert panel.ui.reasonLabel.text == "Tick at least one segment."
    assert not panel.ui.segmentButton.enabled
    second.setCheckState(QtCore.Qt.CheckState.Checked)
    segment(panel)
    (node,) = segmentations()
    assert [node.GetSegmentation().GetNthSegment(0).GetName()] == [second.text()]
    assert node.GetSegmentation().GetNumberOfSegments() == 1
    assert panel.ui.segmentEditor.sourceVolumeNode() == volume


def test_each_channel_of_a_model_has_a_selector(app, openPanel, tmp_path, monkeypatch):
    architecture = {"name": "USEMA", "config": {**TINY, "in_channels": 3}}
    channels = [{"name": "T1"}, {"name": "T2"}, {"name": "FLAIR"}]
    (tmp_path / "Models").mkdir()
    write_tiny_bundle(tmp_path / "Models" / "three", name="three", channels=channels, architecture=architecture)
    write_tiny_bundle(tmp_path / "Models" / "one", name="one")
    monkeypatch.setenv("USEMA_RESOURCES", str(tmp_path))
    volumes = [slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name) for name in ("a", "b", "c")]
    panel = openPanel()
    models, layout = panel.ui.modelSelector, panel.ui.channelsSection.layout()
    models.setCurrentIndex(models.findData("three"))
    assert [layout.labelForField(one).text for one in panel.channelSelectors.selectors] == ["T2:", "FLAIR:"]
    panel.channelSelectors.selectors[1].setCurrentNode(volumes[2])
    assert panel.parameters().channels == [volumes[0], volumes[2]]
    models.setCurrentIndex(models.findData("one"))
    assert panel.parameters().channels == []
    assert not panel.ui.channelsSection.isVisibleTo(panel.ui.segmentCollapsibleButton)


# A run


def test_a_result_is_chosen_shown_and_opened_for_correction(app, openPanel):
    panel = openPanel()
    volume = loadSample(app)
    segment(panel)
    (node,) = segmentations()
    ui = panel.ui
    assert ui.outputSelector.currentNode() == node
    assert (ui.segmentEditor.segmentationNode(), ui.segmentEditor.sourceVolumeNode()) == (node, volume)
    assert ui.messageLabel.text.startswith("Done in")
    assert ui.segmentButton.text == "Segment"
    assert ui.badgeLabel.text.startswith("cpu")
    assert "none (a script)" in ui.badgeLabel.toolTip
    ui.show3DButton.click()
    assert node.GetSegmentation().ContainsRepresentation("Closed surface")


def test_a_second_click_does_as_was_chosen_with_the_segmentation(app, openPanel):
    panel = openPanel()
    loadSample(app)
    segment(panel)
    (first,) = segmentations()
    segment(panel)
    assert len(segmentations()) == 2
    panel.ui.outputSelector.setCurrentNode(first)
    panel.ui.existingSelector.setCurrentIndex(panel.ui.existingSelector.findData("keep"))
    segment(panel)
    assert len(segmentations()) == 2
    assert first.GetSegmentation().GetNumberOfSegments() == 4


def corrected(app, panel, mainWindow):
    """A result whose first segment the user has filled: (volume, node, ID, its voxels before and after, Ctrl+Z)."""
    panel.parent.qtObject.setParent(mainWindow)
    mainWindow.show()
    volume = loadSample(app)
    segment(panel)
    (node,) = segmentations()
    segmentId = node.GetSegmentation().GetNthSegmentID(0)
    made = voxels(node, segmentId, volume)
    edited = np.ones(made.shape, np.uint8)
    slicer.util.updateSegmentBinaryLabelmapFromArray(edited, node, segmentId, volume)
    undo = next(one for one in panel.ui.segmentEditor.qtObject.shortcuts if one.key().toString() == "Ctrl+Z")
    return volume, node, segmentId, made, edited, undo.activated.emit


def test_a_replaced_result_comes_back_with_undo_from_the_keyboard(app, openPanel, mainWindow):
    panel = openPanel()
    volume, node, segmentId, made, edited, undo = corrected(app, panel, mainWindow)
    panel.ui.existingSelector.setCurrentIndex(panel.ui.existingSelector.findData("replace"))
    segment(panel)
    assert (voxels(node, segmentId, volume) == edited).all()  # corrections are kept
    panel._parameterNode.overwriteCorrections = True
    segment(panel)
    assert (voxels(node, segmentId, volume) == made).all()
    undo()
    assert (voxels(node, segmentId, volume) == edited).all()
    panel.exit()
    assert panel.ui.segmentEditor.qtObject.shortcuts == []


def test_a_replaced_result_can_be_undone_though_another_segmentation_was_chosen_meanwhile(app, openPanel, mainWindow):
    panel = openPanel()
    volume, node, segmentId, made, edited, undo = corrected(app, panel, mainWindow)
    other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Other")
    panel._parameterNode.existing, panel._parameterNode.overwriteCorrections = "replace", True
    panel.ui.segmentButton.click()
    panel._parameterNode.segmentation = other
    assert panel.ui.segmentEditor.segmentationNode() is other
    waitUntil(lambda: not panel.logic.busy)
    assert (voxels(node, segmentId, volume) == made).all()
    undo()
    assert (voxels(node, segmentId, volume) == edited).all()
    panel.exit()


def test_a_panel_that_is_reloaded_while_it_is_shown_has_its_shortcuts_again(openPanel, mainWindow):
    panel = openPanel()
    panel.cleanup()
    assert panel.ui.segmentEditor.qtObject.shortcuts == []
    again = type(panel)(panel.parent)  # as the application does: the same widget around it, and nobody enters it
    again.setup()
    shortcuts = list(again.ui.segmentEditor.qtObject.shortcuts)
    again.cleanup()
    assert shortcuts


def test_segment_becomes_cancel_and_segment_again(app, openPanel):
    panel = openPanel("waits")
    loadSample(app)
    ui = panel.ui
    ui.segmentButton.click()
    assert ui.segmentButton.text == "Cancel"
    assert ui.reasonLabel.text == "Starting the engine"
    assert not ui.releaseButton.enabled
    waitUntil(lambda: ui.progressBar.value == 1)
    assert (ui.progressBar.maximum, ui.progressBar.text) == (4, "Tile 1 of 4, about 2 s left")
    ui.segmentButton.click()
    assert not ui.segmentButton.enabled
    waitUntil(lambda: ui.segmentButton.text == "Segment")
    assert "The segmentation was cancelled." in ui.messageLabel.text
    assert ui.segmentButton.enabled
    assert segmentations() == []


def test_a_double_click_segments_where_its_second_half_would_cancel(app, openPanel, monkeypatch):
    panel = openPanel("waits")
    monkeypatch.setattr("USEMASegmentationLib.Panel.SecondClick.SECONDS", 60)
    loadSample(app)
    ui = panel.ui
    for _ in range(2):
        ui.segmentButton.click()
    assert ui.segmentButton.text == "Cancel"
    assert panel.logic.status.state in ("starting", "running")
    waitUntil(lambda: ui.progressBar.value == 1)


def test_a_failure_shows_what_to_do_and_the_log_on_demand(app, openPanel):
    panel = openPanel("dies")
    loadSample(app)
    segment(panel)
    ui = panel.ui
    status = panel.logic.status
    assert status.state == "failed"
    assert status.message in ui.messageLabel.text
    assert status.hint in ui.messageLabel.text
    assert not ui.detailsText.isVisibleTo(ui.segmentCollapsibleButton)
    ui.detailsButton.click()
    assert ui.detailsText.isVisibleTo(ui.segmentCollapsibleButton)
    assert "the last words" in ui.detailsText.plainText
    assert ui.segmentButton.enabled


def test_a_defect_stops_the_run_instead_of_coming_back_every_tenth_of_a_second(app, openPanel, monkeypatch):
    panel = openPanel("waits")
    loadSample(app)
    panel.ui.segmentButton.click()
    monkeypatch.setattr(type(panel.logic), "poll", lambda self: 1 / 0)
    waitUntil(lambda: not panel.timer.active)
    assert "error of its own" in panel.ui.messageLabel.text
    assert "ZeroDivisionError" in panel.ui.detailsText.plainText
    assert panel.ui.segmentButton.text == "Segment"


# Scene, module and application come and go


def test_closing_the_scene_while_it_runs_leaves_an_empty_working_panel(app, openPanel):
    panel = openPanel("waits")
    loadSample(app)
    panel.ui.segmentButton.click()
    waitUntil(lambda: panel.logic.status.state == "running")
    slicer.mrmlScene.Clear(False)
    waitUntil(lambda: not panel.logic.busy)
    assert "scene closed" in panel.ui.messageLabel.text
    assert segmentations() == []
    assert panel.ui.inputSelector.currentNode() is None
    assert not panel.ui.segmentButton.enabled
    loadSample(app)
    assert panel.ui.segmentButton.enabled


def test_a_run_goes_on_while_another_module_is_open(app, openPanel):
    panel = openPanel()
    loadSample(app)
    panel.ui.segmentButton.click()
    panel.parent.isEntered = False
    panel.exit()
    waitUntil(lambda: not panel.logic.busy)
    (node,) = segmentations()
    # no editor takes over another module's views
    assert panel.ui.segmentEditor.mrmlSegmentEditorNode().GetSegmentationNode() is None
    panel.parent.isEntered = True
    panel.enter()
    assert panel.ui.segmentEditor.segmentationNode() == node


def test_quitting_while_it_runs_leaves_no_process(app, openPanel):
    before = children()
    panel = openPanel("waits")
    loadSample(app)
    panel.ui.segmentButton.click()
    waitUntil(lambda: panel.logic.status.state == "running")
    assert len(children()) == len(before) + 1
    for receiver in slicer.app.receivers["aboutToQuit()"]:
        receiver()
    assert children() == before


def test_reloading_loads_all_files_again_and_ends_the_old_worker(app, openPanel):
    running = children()
    panel = openPanel("waits")
    loadSample(app)
    panel.ui.segmentButton.click()
    waitUntil(lambda: panel.logic.status.state == "running")
    before = {name: module for name, module in sys.modules.items() if name.startswith(("USEMASegmentation", "usema"))}
    try:
        panel.onReload()
        assert children() == running
        assert type(panel.reopened) is not type(panel)
        assert type(panel.reopened.logic) is not type(panel.logic)
        assert sys.modules["usema.serving.client"] is not before["usema.serving.client"]
    finally:
        sys.modules.update(before)  # the other tests' imports


def test_choices_stay_with_the_scene_and_the_device_with_the_computer(app, openPanel, tmp_path):
    panel = openPanel()
    loadSample(app)
    panel.ui.overlapCheckBox.click()
    panel.ui.overlapSlider.value = 0.25
    panel.ui.mirrorCheckBox.click()
    panel.ui.existingSelector.setCurrentIndex(1)
    panel.ui.labelsList.item(0).setCheckState(QtCore.Qt.CheckState.Unchecked)
    panel.ui.deviceSelector.setCurrentIndex(panel.ui.deviceSelector.findData("cpu"))
    chosen = panel.parameters()
    app.saveBundle(tmp_path / "case.mrb")
    app.openBundle(tmp_path / "case.mrb")
    again = openPanel()
    found = again.parameters()
    for name in ("overlap", "mirror", "existing", "labels", "modelName", "device"):
        assert getattr(found, name) == getattr(chosen, name), name
    assert found.device == "cpu"
    assert found.overlap == again.ui.overlapSlider.value == 0.25
    assert again.ui.overlapSlider.enabled
    assert again.ui.labelsList.item(0).checkState() == QtCore.Qt.CheckState.Unchecked


def test_the_models_own_overlap_counts_until_the_user_chooses_one(app, openPanel, tmp_path):
    from usema.store.install import install_file

    install_file(write_tiny_bundle(tmp_path / "tiny", name="tiny", inference={"mirror_axes": [], "overlap": 0.2}).path)
    panel = openPanel(script=None)
    loadSample(app)
    panel.ui.modelSelector.setCurrentIndex(panel.ui.modelSelector.findData("tiny"))
    assert not panel.ui.overlapSlider.enabled
    segment(panel)
    panel.ui.overlapCheckBox.click()
    panel.ui.overlapSlider.value = 0.3
    segment(panel)
    assert [node.GetAttribute("USEMA.overlap") for node in segmentations()] == ["0.2", "0.3"]


def test_diagnostics_go_to_the_clipboard(openPanel):
    panel = openPanel()
    panel.ui.diagnosticsButton.click()
    assert "3D Slicer" in slicer.app.clipboard().text()
