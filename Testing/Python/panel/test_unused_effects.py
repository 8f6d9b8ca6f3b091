"""A result that is opened in the editor costs no look at all voxels for an effect that nobody uses."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import slicer.util
from panel_cases import loadSample, waitUntil

pytest_plugins = ["panel_fixtures"]


@pytest.fixture
def editor(app, openPanel):
    """The editor of a panel that shows a result, as the application has it."""
    panel = openPanel()
    loadSample(app)
    panel.ui.segmentButton.click()
    waitUntil(lambda: not panel.logic.busy)
    assert panel.ui.segmentEditor.sourceVolumeNode() is panel.ui.inputSelector.currentNode()
    return panel.ui.segmentEditor


def anotherVolume():
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Another")
    slicer.util.updateVolumeFromArray(volume, np.arange(27, dtype=np.int16).reshape(3, 3, 3))
    return volume


def anotherSegmentation(volume):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Another")
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    return node


def test_threshold_looks_at_all_voxels_when_it_is_chosen_and_knows_the_range_before(editor):
    effect, image = editor.effectByName("Threshold"), editor.sourceVolumeNode().GetImageData()
    assert effect.self().range == image.GetScalarRange()
    assert effect.self().range[0] < effect.self().range[1]
    assert effect.self().seen == 2
    editor.setActiveEffect(effect)
    assert effect.self().range == image.GetScalarRange()
    assert effect.self().seen == image.GetNumberOfPoints()


def test_a_volume_without_voxels_is_opened_as_well(editor):
    from USEMASegmentationLib.Panel.CorrectSection import CorrectSection

    effect = editor.effectByName("Threshold")
    before = effect.self().range
    CorrectSection(editor, lambda: None).show(
        slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode"),
        slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode"),
    )
    assert effect.self().range == before


def test_threshold_in_use_follows_to_another_volume_at_once(editor):
    from USEMASegmentationLib.Panel.CorrectSection import CorrectSection

    effect = editor.effectByName("Threshold")
    editor.setActiveEffect(effect)
    CorrectSection(editor, lambda: None).show(anotherSegmentation(anotherVolume()), None)
    assert effect.self().range == (0, 26)


def test_the_effect_is_as_before_when_the_editor_refused(editor):
    from USEMASegmentationLib.Panel.UnusedEffects import unused

    def refuse():
        asked = effect.self().scriptedEffect
        assert asked.sourceVolumeImageData().GetNumberOfPoints() == 2
        assert asked.self() is effect.self()  # all else is answered
        raise RuntimeError("refused")

    effect = editor.effectByName("Threshold")
    with pytest.raises(RuntimeError, match="refused"), unused(editor):
        refuse()
    assert effect.self().scriptedEffect is effect


@pytest.mark.parametrize("effect", [None, object()], ids=["none", "of another kind"])
def test_an_editor_whose_threshold_is_another_one_opens_as_well(editor, monkeypatch, effect):
    from USEMASegmentationLib.Panel.CorrectSection import CorrectSection

    monkeypatch.setattr(editor.qtObject, "effectByName", lambda name: effect)
    volume = anotherVolume()
    CorrectSection(editor, lambda: None).show(anotherSegmentation(volume), None)
    assert editor.sourceVolumeNode() is volume
