"""Every 2D architecture: imported, and one click in the panel, with the real scene and worker."""

from __future__ import annotations

import pytest
import slicer
import slicer.util
import vtk
from bundles import FLAT_BACKENDS, FLAT_NETWORKS, FLAT_PLAN, write_tiny_bundle
from panel_cases import loadSample, waitForStore, waitUntil
from slicer_cases import labelsOf
from usema.networks import ARCHITECTURES
from usema.store import archive
from USEMASegmentationLib.Scene.VolumeBridge import ijkToRas

pytest_plugins = ["panel_fixtures"]


def test_every_architecture_is_clicked_somewhere():
    # USEMA by nearly all tests of the panel; the other two come with recipes of their own, whose tests run them.
    assert set(FLAT_NETWORKS) | {"USEMA", "MeshNet", "SegResNetDS"} == set(ARCHITECTURES)


@pytest.mark.parametrize("name", sorted(FLAT_NETWORKS))
def test_a_model_of_another_architecture_is_imported_and_segments_like_any(app, openPanel, tmp_path, name):
    architecture = {"name": name, "config": FLAT_NETWORKS[name]}
    changes = {"name": "flat", "title": "Flat", "architecture": architecture, "preprocessing": FLAT_PLAN}
    file = archive.pack(write_tiny_bundle(tmp_path / "flat", **changes).path, tmp_path / "flat.usema")
    panel = openPanel(script=None)
    volume = loadSample(app)
    panel.ui.deviceSelector.setCurrentIndex(panel.ui.deviceSelector.findData("cpu"))
    panel.manageSection.chooseFile = lambda: str(file)
    panel.manageSection.ui.importButton.click()
    waitForStore(panel)
    assert panel.parameters().modelName == "flat"
    panel.ui.segmentButton.click()
    waitUntil(lambda: not panel.logic.busy)
    assert panel.ui.messageLabel.text.startswith("Done in"), panel.ui.messageLabel.text

    (node,) = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    labels = labelsOf(node, volume)
    assert labels.shape == slicer.util.arrayFromVolume(volume).shape
    assert labels.any()
    image, matrix = slicer.vtkOrientedImageData(), vtk.vtkMatrix4x4()
    node.GetBinaryLabelmapRepresentation(node.GetSegmentation().GetNthSegmentID(0), image)
    image.GetImageToWorldMatrix(matrix)
    assert (slicer.util.arrayFromVTKMatrix(matrix) == ijkToRas(volume)).all()
    assert node.GetAttribute("USEMA.architecture") == name
    assert node.GetAttribute("USEMA.attention") == FLAT_BACKENDS[name]
    assert panel.ui.badgeLabel.text == "cpu, PyTorch"
    assert FLAT_BACKENDS[name] in panel.ui.badgeLabel.toolTip
