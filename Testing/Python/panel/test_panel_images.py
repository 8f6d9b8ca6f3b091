"""The panel with a picture: chosen, segmented, told in pixels, and nothing of what only volumes have."""

from __future__ import annotations

import numpy as np
import slicer
import slicer.util
from image_models import blobs, write_disc_counter
from panel_cases import choose, isShown, waitUntil

pytest_plugins = ["panel_fixtures"]


def addPicture(image: np.ndarray):
    """As 3D Slicer's loader of images leaves it."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "Cells")
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(np.diag([-1.0, -1.0, 1.0, 1.0])))
    slicer.util.updateVolumeFromArray(node, np.stack([image] * 3, axis=-1)[None])
    return node


def test_a_picture_is_segmented_and_told_in_pixels(app, openPanel, tmp_path, monkeypatch):
    monkeypatch.setenv("USEMA_RESOURCES", str(tmp_path))
    (tmp_path / "Models").mkdir()
    write_disc_counter(tmp_path / "Models" / "discs")
    picture = addPicture(blobs(100)[0])
    panel = openPanel(None)
    panel.ui.inputSelector.setCurrentNode(picture)
    assert panel.ui.inputSelector.currentNode() is picture
    choose(panel, "discs")
    assert panel.ui.segmentButton.enabled, panel.ui.reasonLabel.text
    assert not isShown(panel.ui.show3DButton)
    panel.ui.segmentButton.click()
    waitUntil(lambda: not panel.logic.busy, 200)
    assert panel.logic.status.state == "done", panel.ui.messageLabel.text
    text = panel.ui.messageLabel.text.replace("&nbsp;", " ")
    assert "Disc" in text
    assert "pixels" in text
    assert " ml" not in text
    assert " mm" not in text
    assert isShown(panel.ui.measureButton)  # without Segment Statistics, too
    (node,) = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    assert node.GetSegmentation().GetNthSegment(0).GetName() == "Disc"
    panel.ui.measureButton.click()
    whole, objects = slicer.util.getNodesByClass("vtkMRMLTableNode")[-2:]
    assert panel.ui.messageLabel.text.startswith("The measurements are in the table")
    assert all(table.GetName() in panel.ui.messageLabel.text for table in (whole, objects))
    assert "The size of a pixel is not known" in panel.ui.messageLabel.text
    assert objects.GetNumberOfRows() > 2
    assert slicer.app.applicationLogic().GetSelectionNode().GetActiveTableID() == objects.GetID()
    volume = slicer.util.addVolumeFromArray(np.arange(120, dtype=np.int16).reshape(4, 5, 6), name="Head")
    panel.ui.inputSelector.setCurrentNode(volume)
    assert isShown(panel.ui.show3DButton)
    assert not panel.ui.segmentButton.enabled
    assert "the model is for two-dimensional images" in panel.ui.reasonLabel.text
