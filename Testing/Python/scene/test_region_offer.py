"""A volume that shows far more than a model of crops is for: a region of the right size, where the slices cross."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import slicer.util
from bundles import write_crop_model, write_tiny_bundle
from slicer_cases import addVolume
from USEMASegmentationLib.Parameters import Parameters
from USEMASegmentationLib.Scene import Preflight, RegionOffer
from USEMASegmentationLib.Scene.VolumeBridge import roiBox

pytest_plugins = ["slicer_fixtures"]


@pytest.fixture(scope="module")
def resources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resources")
    (folder / "Models").mkdir()
    write_crop_model(folder / "Models" / "crops")
    write_tiny_bundle(folder / "Models" / "any", name="any")
    return folder


@pytest.fixture
def parameters(host, resources, monkeypatch):
    bundled = Preflight.modelHere("hippocampus-mr").path
    monkeypatch.setenv("USEMA_RESOURCES", str(resources))
    head = np.random.default_rng(0).integers(0, 1000, (90, 100, 80)).astype(np.int16)
    volume = addVolume(head, np.array([[-2.0, 0, 0, 80], [0, -2, 0, 100], [0, 0, 2, -90], [0, 0, 0, 1]]), "Head")
    return Parameters(inputVolume=volume, modelName=str(resources / "Models" / "crops")), str(bundled)


def views(*offsets) -> None:
    """Sagittal, coronal and axial slices at R, A, S."""
    for axis, (name, offset) in enumerate(zip(("Yellow", "Green", "Red"), offsets, strict=True)):
        node = slicer.vtkMRMLSliceNode()
        node.SetSingletonTag(name)
        node.SetName(name)
        node.SetLayoutName(name)
        node = slicer.mrmlScene.AddNode(node)
        normal, along = np.eye(3)[axis], np.eye(3)[axis - 1]
        node.SetSliceToRASByNTP(*normal, *along, *(offset * normal), 0)


def test_the_region_has_a_crops_size_and_lies_where_the_slices_cross(parameters):
    parameters, _ = parameters
    views(25.0, -12.0, 5.0)
    assert RegionOffer.sizeOffered(parameters) == (36.0, 50.0, 36.0)
    assert any("far more than the model is for" in warning for warning in Preflight.check(parameters).warnings)
    roi = RegionOffer.place(parameters)
    np.testing.assert_allclose(roi.GetCenter(), (25, -12, 5))
    assert roi.GetSize() == (36.0, 50.0, 36.0)
    parameters.roi = roi
    assert [part.stop - part.start for part in roiBox(roi, parameters.inputVolume)] == [18, 25, 18]
    readiness = Preflight.check(parameters)
    assert readiness.ready
    assert readiness.warnings == []  # what is segmented now is a crop
    assert RegionOffer.sizeOffered(parameters) is None


@pytest.mark.parametrize("offsets", [None, (500.0, 0.0, 0.0)])
def test_without_views_or_with_slices_beyond_it_the_region_lies_in_the_middle_of_the_volume(parameters, offsets):
    parameters, _ = parameters
    if offsets:
        views(*offsets)
    np.testing.assert_allclose(RegionOffer.place(parameters).GetCenter(), (1, 1, -1), atol=1e-6)


def test_nothing_is_offered_where_the_model_finds_its_way_or_the_volume_is_a_crop(parameters):
    parameters, bundled = parameters
    crops, volume = parameters.modelName, parameters.inputVolume
    for model in (bundled, "any"):
        parameters.modelName = model
        assert RegionOffer.sizeOffered(parameters) is None
    parameters.modelName = crops
    parameters.inputVolume = addVolume(np.ones((40, 50, 36), np.int16), np.eye(4), "Crop")
    assert RegionOffer.sizeOffered(parameters) is None
    parameters.inputVolume = None
    assert RegionOffer.sizeOffered(parameters) is None
    assert volume.GetName() == "Head"
