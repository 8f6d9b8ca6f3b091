"""Scenes that come and go under the panel, and a panel that cannot be opened."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import slicer
import slicer.util
from panel_cases import isShown, loadSample, waitUntil
from PySide6 import QtWidgets
from slicer_cases import children, voxels

pytest_plugins = ["panel_fixtures"]


def segment(panel) -> None:
    panel.ui.segmentButton.click()
    waitUntil(lambda: not panel.logic.busy)


def texts(panel) -> str:
    """All that a panel's labels and text boxes show."""
    shown = panel.parent.qtObject.findChildren(QtWidgets.QWidget)
    labels = [one.text() for one in shown if isinstance(one, QtWidgets.QLabel) and one.isVisibleTo(one.window())]
    return "\n".join([*labels, *(one.toPlainText() for one in shown if isinstance(one, QtWidgets.QPlainTextEdit))])


# A saved scene in the same session


@pytest.mark.parametrize("elsewhere", [False, True], ids=["panel shown", "another module shown"])
def test_a_saved_scene_comes_back_with_its_result(app, openPanel, tmp_path, elsewhere):
    panel = openPanel()
    volume = loadSample(app)
    segment(panel)
    (node,) = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    made = voxels(node, node.GetSegmentation().GetNthSegmentID(0), volume)
    app.saveBundle(tmp_path / "case.mrb")
    slicer.mrmlScene.Clear(False)
    assert not isShown(panel.ui.segmentEditor)
    if elsewhere:
        panel.parent.isEntered = False
        panel.exit()
    app.openBundle(tmp_path / "case.mrb")
    slicer.app.processEvents()
    if elsewhere:
        assert panel.binding.node is None
        panel.parent.isEntered = True
        panel.enter()
    (again,) = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    (volume,) = [one for one in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if "probab" not in one.GetName()]
    assert panel.binding.node.segmentation is again
    assert panel.ui.outputSelector.currentNode() is again
    assert panel.ui.inputSelector.currentNode() is volume
    assert isShown(panel.ui.segmentEditor)
    assert panel.ui.segmentEditor.mrmlSegmentEditorNode().GetSegmentationNode() is again
    assert (panel.ui.segmentEditor.segmentationNode(), panel.ui.segmentEditor.sourceVolumeNode()) == (again, volume)
    assert (voxels(again, again.GetSegmentation().GetNthSegmentID(0), volume) == made).all()
    assert panel.ui.segmentButton.enabled


def test_a_wrapper_kept_over_a_loaded_scene_is_out_of_date_as_in_the_application(app, openPanel, tmp_path):
    """Why the panel makes a new one."""
    from USEMASegmentationLib.ParameterNode import USEMASegmentationParameterNode

    panel = openPanel()
    loadSample(app)
    segment(panel)
    app.saveBundle(tmp_path / "case.mrb")
    kept = USEMASegmentationParameterNode(panel.binding.node.parameterNode)
    app.openBundle(tmp_path / "case.mrb")
    assert kept.parameterNode.GetNodeReference("segmentation") is not None
    assert kept.segmentation is None
    assert panel.binding.node.segmentation is not None


def test_the_parameter_node_validates_keeps_none_and_writes_through_its_lists(app):
    from USEMASegmentationLib.ParameterNode import USEMASegmentationParameterNode

    raw = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode")
    node = USEMASegmentationParameterNode(raw)
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    node.channels = [None, volume]
    assert node.channels == [None, volume]
    assert USEMASegmentationParameterNode(raw).channels == [None, volume]
    node.labels = ["Liver"]
    node.labels.append("Spleen")
    assert USEMASegmentationParameterNode(raw).labels == ["Liver", "Spleen"]
    for name, wrong in (("overlap", 1.5), ("existing", "perhaps"), ("inputVolume", raw), ("mirror", 1)):
        before = getattr(node, name)
        with pytest.raises((TypeError, ValueError)):
            setattr(node, name, wrong)
        assert getattr(node, name) == before
    with pytest.raises(TypeError):
        node.channels = [volume, raw]
    assert node.channels == [None, volume]
    with pytest.raises(AttributeError):
        _ = node.GetParameter
    slicer.mrmlScene.Clear(False)


# A panel that cannot be opened


@pytest.mark.parametrize("place", ["ManageSection", "CorrectSection", "AdvancedSection", "ParameterBinding"])
def test_a_panel_that_cannot_be_set_up_says_why_and_leaves_nothing_behind(app, openPanel, monkeypatch, caplog, place):
    from USEMASegmentationLib.Panel import ManageForm, Widget

    before, receivers = children(), list(slicer.app.receivers["aboutToQuit()"])

    def broken(*arguments, **keywords):
        raise AttributeError("'' object has no attribute '<b>rows</b>'")

    monkeypatch.setattr(ManageForm if place == "ManageSection" else Widget, place, broken)
    with caplog.at_level(logging.CRITICAL):
        panel = openPanel()
    said = texts(panel)
    assert "USEMA Segmentation cannot be opened" in said
    assert "has no attribute &#x27;&lt;b&gt;rows" in said  # as text, not as markup
    assert "Traceback" in said
    assert "Volume:" not in said
    panel.enter()
    loadSample(app)
    slicer.mrmlScene.Clear(False)
    panel.exit()
    panel.cleanup()
    assert panel.Observations == []
    assert children() == before
    assert slicer.app.receivers["aboutToQuit()"] == receivers


def test_one_part_that_does_not_close_does_not_keep_the_others_open(app, openPanel, monkeypatch):
    panel = openPanel("waits")
    before = children()
    loadSample(app)
    panel.ui.segmentButton.click()
    waitUntil(lambda: panel.logic.status.state == "running")
    monkeypatch.setattr(panel.correctSection.editor.qtObject, "setActiveEffect", lambda *_: 1 / 0)
    panel.cleanup()
    assert panel.Observations == []
    assert panel.binding.node is None
    assert not panel.timer.active
    assert children() == before


def test_a_signal_that_the_application_lacks_is_an_error_not_a_silence(app):
    from USEMASegmentationLib.Panel.Signals import connect

    class Sender:
        def connect(self, signal, slot):
            return False  # as PythonQt answers

    with pytest.raises(AttributeError, match="nosuch"):
        connect(Sender(), "nosuch(bool)", print)


# What is said of a volume


def test_a_message_goes_with_the_volume_or_model_it_was_about(app, openPanel):
    panel = openPanel()
    loadSample(app)
    segment(panel)
    assert panel.ui.messageLabel.text.startswith("Done in")
    other = loadSample(app)
    other.SetSpacing(1, 1, 5)
    panel.ui.inputSelector.setCurrentNode(other)
    assert panel.ui.messageLabel.text == ""
    assert "spacing" in panel.ui.reasonLabel.text
    segment(panel)
    assert "spacing" in panel.ui.messageLabel.text
    assert panel.ui.reasonLabel.text == ""
    again = slicer.util.addVolumeFromArray(np.arange(729, dtype=np.int16).reshape(9, 9, 9))
    again.SetSpacing(1, 1, 5)
    panel.ui.inputSelector.setCurrentNode(again)
    assert panel.ui.messageLabel.text == ""
    assert "spacing" in panel.ui.reasonLabel.text  # the same warning is no less true of another volume


def test_what_speaks_against_a_volume_is_one_line_with_the_rest_in_its_tooltip(app, openPanel):
    from USEMASegmentationLib.Panel.RunTexts import caution

    panel = openPanel()
    volume = loadSample(app)
    volume.SetSpacing(1, 4, 5)
    panel.updateState()
    assert len(panel.ui.reasonLabel.text.splitlines()) == 1
    assert panel.ui.reasonLabel.toolTip
    assert caution(["First.", "Second.", "Third."]) == "First. And 2 more."
    assert caution([]) == ""
    long = (
        "The volume shows 256 x 256 x 170 mm, far more than the model is for: one hippocampus, cropped. Cut it first."
    )
    assert caution([long]) == "The volume shows 256 x 256 x 170 mm, far more than the model is for …"


def test_the_editor_opens_what_is_chosen_though_its_own_selector_shows_it_already(app, openPanel):
    volume = loadSample(app)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Mine")
    panel = openPanel()
    assert panel.ui.segmentEditor.segmentationNode() is node  # as in the application: the first one, by itself
    panel.ui.outputSelector.setCurrentNode(node)
    assert panel.ui.segmentEditor.mrmlSegmentEditorNode().GetSegmentationNode() is node
    assert panel.ui.segmentEditor.sourceVolumeNode() is volume


def test_the_panel_is_at_least_as_high_as_its_wrapped_texts_need(openPanel):
    """The application may keep the height that it once asked for; see `Panel.Room`."""
    panel = openPanel()
    widget = panel.ui.segmentCollapsibleButton.parent()
    panel.parent.show()
    waitUntil(lambda: widget.minimumHeight > 0)
    before = widget.minimumHeight
    panel.runSection.say("What a long message says. " * 40)
    waitUntil(lambda: widget.minimumHeight > before)
