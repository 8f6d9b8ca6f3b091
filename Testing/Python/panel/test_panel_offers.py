"""Two buttons: a region of the right size for a model of crops, and a corrected case for one's own training set."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import slicer.util
from bundles import write_crop_model
from panel_cases import choose, isShown, loadSample, waitUntil
from usema.training.raw_dataset import cases_of
from usema.volumes.volume import load_volume

pytest_plugins = ["panel_fixtures"]


@pytest.fixture
def crops(tmp_path, monkeypatch):
    """A computer whose only model is for crops, without a way to find them."""
    folder = tmp_path / "resources"
    (folder / "Models").mkdir(parents=True)
    write_crop_model(folder / "Models" / "hippocampus-mr")
    monkeypatch.setenv("USEMA_RESOURCES", str(folder))


def test_two_clicks_lead_from_a_whole_head_to_the_right_input(app, openPanel, crops):
    slicer.util.addVolumeFromArray(np.random.default_rng(0).integers(0, 999, (120, 120, 120)).astype(np.int16))
    panel = openPanel()
    panel.ui.inputSelector.setCurrentNode(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")[0])
    assert "far more than the model is for" in panel.ui.reasonLabel.text
    assert isShown(panel.ui.regionButton)
    assert panel.ui.regionButton.text == "Region of 36 x 50 x 36 mm"
    panel.ui.regionButton.click()
    assert panel.ui.roiSelector.currentNode().GetSize() == (36.0, 50.0, 36.0)
    assert panel._parameterNode.roi is panel.ui.roiSelector.currentNode()
    assert not isShown(panel.ui.regionButton)
    assert panel.ui.reasonLabel.text == ""
    assert panel.ui.segmentButton.enabled


def test_a_corrected_case_is_added_after_a_question(app, openPanel, asked, tmp_path, monkeypatch):
    import qt  # not before the application is there

    volume = loadSample(app)
    panel = openPanel()
    choose(panel, "hippocampus-mr")
    assert not isShown(panel.ui.trainingButton)
    panel.ui.segmentButton.click()
    waitUntil(lambda: not panel.logic.busy and panel._parameterNode.segmentation is not None)
    assert isShown(panel.ui.trainingButton)
    folder = tmp_path / "Dataset500_Mine"
    folder.mkdir()
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *_: str(folder))
    asked.answer = False
    panel.ui.trainingButton.click()
    assert "Nothing is sent anywhere" in asked[-1]
    assert list(folder.iterdir()) == []
    asked.answer = True
    panel.ui.trainingButton.click()
    assert list(cases_of(folder)) == ["case_001"]
    assert "case_001" in panel.ui.messageLabel.text
    labels = load_volume(folder / "labelsTr" / "case_001.nii.gz").array
    assert labels.shape == slicer.util.arrayFromVolume(volume).shape
    assert labels.any()
    panel._parameterNode.segmentation.GetSegmentation().AddEmptySegment("x", "Tumour")
    panel.ui.trainingButton.click()
    assert "Tumour" in panel.ui.messageLabel.text
    assert len(asked) == 2
