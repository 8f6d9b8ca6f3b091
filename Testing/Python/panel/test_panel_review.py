"""The section Review and refine, clicked through in the stand-in of the application."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from panel_cases import isShown, waitUntil
from slicer_cases import voxels
from USEMASegmentationLib.Scene.ReviewPreview import ReviewPreview

pytest_plugins = ["panel_fixtures", "review_fixtures"]

ANTERIOR = "hippocampus-mr_1"


def previews() -> list:
    return [one for one in slicer.util.getNodesByClass("vtkMRMLSegmentationNode") if one.GetName() == "USEMA preview"]


def test_an_empty_scene_and_a_segmentation_by_hand_say_what_is_needed(app, openPanel):
    panel = openPanel()
    ui = panel.reviewSection.ui
    ui.reviewCollapsibleButton.collapsed = False
    assert "Segment first" in ui.reviewHintLabel.text
    assert not isShown(ui.thresholdGroup)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    node.GetSegmentation().AddEmptySegment("mine")
    panel._parameterNode.segmentation = node
    assert "No segment of this segmentation was made by a model" in ui.reviewHintLabel.text


def test_the_slider_shows_an_outline_and_apply_writes_it_as_one_step(reviewed):
    panel, volume, node = reviewed
    ui, before = panel.reviewSection.ui, voxels(node, ANTERIOR, volume)
    assert [ui.thresholdSelector.itemText(n) for n in (0, 1)] == ["Anterior hippocampus", "Posterior hippocampus"]
    assert not ui.thresholdApplyButton.enabled
    ui.thresholdSlider.value = 1.0
    (preview,) = previews()
    outlined = voxels(preview, "preview", volume)
    assert (voxels(node, ANTERIOR, volume) == before).all()
    assert outlined[before].all()
    assert outlined.sum() > before.sum()
    assert "27%" in ui.thresholdLabel.text
    assert (
        f"{outlined.sum() / 1000:.2f} ml (+{(outlined.sum() - before.sum()) / 1000:.2f} ml)" in ui.thresholdLabel.text
    )
    ui.thresholdApplyButton.click()
    assert (voxels(node, ANTERIOR, volume) == outlined).all()
    assert previews() == []
    assert ui.thresholdSlider.value == 1.0
    ui.thresholdNeutralButton.click()
    ui.thresholdApplyButton.click()
    assert (voxels(node, ANTERIOR, volume) == before).all()
    assert not ui.thresholdNeutralButton.enabled
    panel.ui.segmentEditor.undo()
    panel.ui.segmentEditor.undo()
    slicer.app.processEvents()
    assert (voxels(node, ANTERIOR, volume) == before).all()
    assert ui.thresholdSlider.value == 0.0


def test_an_outline_is_in_no_list_and_goes_after_the_segmentation_not_while_that_is_being_removed(reviewed):
    panel, _, node = reviewed
    scene, hidden, order = slicer.mrmlScene, [], []

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def added(_scene, _event, one):
        hidden.append((one.GetName(), one.GetHideFromEditors()))  # the application's lists look at it now alone

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def going(_scene, _event, one):
        order.append(f"{one.GetName()} goes")
        if one is node:
            panel._parameterNode.segmentation = None  # as the panel's list does in the application

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def gone(_scene, _event, one):
        order.append(f"{one.GetName()} is gone")

    tags = [
        scene.AddObserver(scene.NodeAddedEvent, added),
        scene.AddObserver(scene.NodeAboutToBeRemovedEvent, going),
        scene.AddObserver(scene.NodeRemovedEvent, gone),
    ]
    panel.reviewSection.ui.thresholdSlider.value = 1.0
    (preview,) = previews()
    assert ("USEMA preview", 1) in hidden
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    assert hierarchy.GetItemByDataNode(preview) != hierarchy.GetInvalidItemID()
    scene.RemoveNode(node)
    for tag in tags:
        scene.RemoveObserver(tag)
    assert previews() == []
    assert order.index("USEMA preview goes") > order.index(f"{node.GetName()} is gone")


def test_the_outline_goes_with_reset_another_segment_another_module_and_the_scene(reviewed):
    panel, _, _ = reviewed
    ui = panel.reviewSection.ui
    for leave in (
        lambda: ui.thresholdCancelButton.click(),
        lambda: ui.thresholdSelector.setCurrentIndex(1),
        lambda: setattr(ui.reviewCollapsibleButton, "collapsed", True),
        panel.exit,
        lambda: slicer.mrmlScene.Clear(False),
    ):
        ui.reviewCollapsibleButton.collapsed = False
        ui.thresholdSlider.value = ui.thresholdSlider.value + 1.0
        assert len(previews()) == 1
        leave()
        assert previews() == []
    assert "Segment first" in ui.reviewHintLabel.text


def test_the_outline_of_a_slider_that_was_left_moved_comes_back_with_the_panel(reviewed):
    panel, volume, node = reviewed
    ui, section = panel.reviewSection.ui, panel.reviewSection.ui.reviewCollapsibleButton
    ui.thresholdSlider.value = 1.0
    outlined = voxels(previews()[0], "preview", volume)
    for leave, enter in (
        (panel.exit, panel.enter),
        (lambda: setattr(section, "collapsed", True), lambda: setattr(section, "collapsed", False)),
    ):
        leave()
        assert previews() == []
        enter()
        assert ui.thresholdSlider.value == 1.0
        (preview,) = previews()
        assert (voxels(preview, "preview", volume) == outlined).all()
    panel.exit()
    edited = voxels(node, ANTERIOR, volume).astype(np.uint8)
    edited[:3, :3, :3] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(edited, node, ANTERIOR, volume)
    panel.enter()
    slicer.app.processEvents()
    assert ui.thresholdSlider.value == 0.0
    assert previews() == []


def test_a_stroke_while_the_outline_is_shown_is_seen(reviewed):
    panel, volume, node = reviewed
    ui = panel.reviewSection.ui
    ui.thresholdSlider.value = 1.0
    edited = voxels(node, ANTERIOR, volume).astype(np.uint8)
    edited[:3, :3, :3] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(edited, node, ANTERIOR, volume)
    waitUntil(lambda: not previews())
    ui.thresholdSlider.value = -1.0
    ui.thresholdApplyButton.click()
    assert voxels(node, ANTERIOR, volume)[:3, :3, :3].all()


def test_a_preview_is_neither_saved_nor_listed(app, reviewed, tmp_path):
    panel, _, _ = reviewed
    panel.reviewSection.ui.thresholdSlider.value = 1.0
    app.saveBundle(tmp_path / "scene.mrb")
    app.openBundle(tmp_path / "scene.mrb")
    assert previews() == []


def test_what_goes_wrong_is_said(reviewed, monkeypatch):
    panel, _, _ = reviewed
    panel.correctSection.saveForUndo = lambda node: False
    panel.reviewSection.cases[0]._saveForUndo = panel.correctSection.saveForUndo
    panel.reviewSection.ui.thresholdSlider.value = 1.0
    panel.reviewSection.ui.thresholdApplyButton.click()
    assert "could not be saved for undo" in panel.ui.messageLabel.text


def test_each_position_of_the_slider_makes_no_second_node(reviewed, monkeypatch):
    made = []
    monkeypatch.setattr(ReviewPreview, "__init__", _counted(ReviewPreview.__init__, made))
    panel, _, _ = reviewed
    for position in (0.5, 1.0, 1.5, -2.0):
        panel.reviewSection.ui.thresholdSlider.value = position
    assert len(made) == len(previews()) == 1


def _counted(function, calls):
    def counting(*arguments, **named):
        calls.append(arguments)
        return function(*arguments, **named)

    return counting


# Doubtful regions

# What qMRMLSegmentEditorWidget takes while it is shown (installKeyboardShortcuts of 3D Slicer).
TAKEN = {*"1234567890", *(f"Shift+{key}" for key in "1234567890"), "Esc", "Space", "Z", "Ctrl+Z", "Y", "Ctrl+Y"}
TAKEN |= {*"QW/*,.<>I"}


def keysOf(window) -> dict:
    from PySide6 import QtGui

    return {one.key().toString(): one for one in window.findChildren(QtGui.QShortcut)}


def test_the_views_go_from_region_to_region_and_what_is_left_is_said(reviewed):
    panel, volume, node = reviewed
    view = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceNode")
    view.SetFieldOfView(200, 100, 1)
    ui, controls = panel.reviewSection.ui, panel.reviewSection.regions
    assert not ui.acceptRegionButton.enabled
    ui.findRegionsButton.click()
    count = len(controls.review.items)
    assert count >= 3
    item = controls.review.current
    width, height, _ = view.GetFieldOfView()
    assert width == 2 * height == pytest.approx(2 * 40)
    shown = [view.GetSliceToRAS().GetElement(row, 3) for row in range(3)]
    assert shown == pytest.approx(item.port.worldOf(item.region.middle), abs=1)
    assert f"0 of {count} done" in ui.regionLabel.text
    (frame,) = previews()
    assert voxels(frame, "preview", volume)[item.region.box].all()
    ui.acceptRegionButton.click()
    assert f"1 of {count} done" in ui.regionLabel.text
    assert controls.review.current.number != item.number
    edited = voxels(node, ANTERIOR, volume).astype(np.uint8)
    place = tuple(slice(one, one + 1) for one in controls.review.current.region.middle)
    edited[place] = 1 - edited[place]
    slicer.util.updateSegmentBinaryLabelmapFromArray(edited, node, ANTERIOR, volume)
    waitUntil(lambda: f"2 of {count} done" in ui.regionLabel.text)
    ui.findRegionsButton.click()
    assert f"1 of {count} done" in ui.regionLabel.text  # what was accepted stays so
    assert controls.review.current.region != item.region
    panel.exit()
    assert view.GetFieldOfView()[:2] == (200, 100)
    assert previews() == []


def test_the_keys_lead_through_the_regions_and_go_with_the_panel(reviewed, mainWindow):
    panel, _, _ = reviewed
    panel.exit()
    panel.parent.qtObject.setParent(mainWindow)
    mainWindow.show()
    before = set(keysOf(mainWindow))
    panel.enter()
    keys = keysOf(mainWindow)
    mine = {"N", "Shift+N", "A"}
    assert mine <= set(keys)
    assert not mine & TAKEN
    controls = panel.reviewSection.regions
    panel.reviewSection.ui.findRegionsButton.click()
    first = controls.review.current.number
    keys["N"].activated.emit()
    assert controls.review.current.number != first
    keys["Shift+N"].activated.emit()
    assert controls.review.current.number == first
    keys["A"].activated.emit()
    assert controls.review.done == 1
    panel.exit()
    slicer.app.processEvents()
    assert set(keysOf(mainWindow)) == before
    panel.parent.qtObject.setParent(None)


# Refining


def test_refine_follows_strokes_and_says_how_far(reviewed):
    from scipy import ndimage

    panel, volume, node = reviewed
    ui = panel.reviewSection.ui
    assert not ui.refineButton.enabled
    inside = voxels(node, ANTERIOR, volume)
    distance = ndimage.distance_transform_cdt(~inside, "taxicab")
    distance[voxels(node, "hippocampus-mr_2", volume)] = 0
    z, y, x = np.argwhere(distance[:, 4:-4, 4:-4] == 2)[0] + [0, 4, 4]
    panel.ui.segmentEditor.saveStateForUndo()
    edited = inside.astype(np.uint8)
    edited[z, y - 1 : y + 2, x - 1 : x + 2] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(edited, node, ANTERIOR, volume)
    waitUntil(lambda: ui.refineButton.enabled)
    assert "voxels of new strokes" in ui.refineLabel.text
    ui.refineButton.click()
    after = voxels(node, ANTERIOR, volume)
    assert after[edited > 0].all()
    assert "have followed" in ui.refineLabel.text
    assert not ui.refineButton.enabled
    if (after != (edited > 0)).any():
        panel.ui.segmentEditor.undo()
        waitUntil(lambda: ui.refineButton.enabled)
    assert (voxels(node, ANTERIOR, volume) == (edited > 0)).all()


def test_a_changed_outline_makes_the_views_draw_and_is_listed_nowhere(reviewed):
    panel, _volume, _node = reviewed
    panel.reviewSection.ui.thresholdSlider.value = 1.0
    (preview,) = previews()
    drawn = []
    preview.GetDisplayNode().AddObserver("ModifiedEvent", lambda *_: drawn.append(1))
    panel.reviewSection.ui.thresholdSlider.value = 2.0
    assert drawn, "the views draw a segmentation anew when its display node changes, not when its voxels do"
    assert preview.GetHideFromEditors()
    attribute = slicer.vtkMRMLSubjectHierarchyConstants.GetSubjectHierarchyExcludeFromTreeAttributeName()
    assert preview.GetAttribute(attribute) == "1"
