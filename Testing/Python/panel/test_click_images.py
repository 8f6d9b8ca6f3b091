"""A click on a two-dimensional image: a real MRML scene, the real worker, a small model for images."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import slicer.util
from image_models import blobs
from slicer_cases import addVolume, voxels
from usema.errors import InputError
from usema.inference.predictor import Predictor
from usema.models.bundle import read_bundle
from usema.volumes.geometry import Geometry
from usema.volumes.pictures import Picture
from USEMASegmentationLib.Logic import USEMASegmentationLogic
from USEMASegmentationLib.Scene.VolumeBridge import volumeInView

pytest_plugins = ["slicer_fixtures"]

IMAGE, MASK = blobs(100)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def model(discs):
    return discs


@pytest.fixture(scope="module")
def expected(model):
    geometry = Geometry((128, 96, 1), (1, 1, 1), (0, 0, 0), np.eye(3).ravel())
    return Predictor(read_bundle(model), "cpu").segment(Picture(IMAGE[None], geometry)).labels[0]


def addPicture(components: int = 3, ijkToRas=LPS, name="Cells"):
    """As 3D Slicer's loader of images leaves it: a vector volume with pixels of 1."""
    array = np.stack([IMAGE] * 3 + [np.full_like(IMAGE, 255)], axis=-1)[None, ..., :components]
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", name)
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(ijkToRas))
    slicer.util.updateVolumeFromArray(node, array)
    return node


@pytest.mark.parametrize("components", [3, 4])
def test_a_picture_in_colour_is_segmented_on_its_own_grid(host, tiny, worker, model, expected, components):
    logic, picture = USEMASegmentationLogic(worker), addPicture(components)
    node = logic.segment(picture, model, show3D=True)
    (segment,) = node.GetSegmentation().GetSegmentIDs()
    assert node.GetSegmentation().GetSegment(segment).GetName() == "Disc"
    assert np.array_equal(voxels(node, segment, picture)[0], expected == 1)
    assert not node.GetSegmentation().ContainsRepresentation("Closed surface")
    message = logic.status.message
    assert f"Disc {(expected == 1).sum()} pixels" in message
    assert "Objects" in message
    assert not any(unit in message.replace(":", " ").split() for unit in ("mm", "mm²", "ml"))
    assert logic.status.millilitres == {}
    assert logic.status.warnings == ["The image is in colour: the model sees its luminance."]


def test_a_slice_with_a_spacing_is_measured_in_millimetres(host, tiny, worker, model, expected):
    """Whatever its orientation: here a sagittal one."""
    grid = np.array([[0, 0, 3.0, 5], [0.5, 0, 0, 6], [0, -0.25, 0, 7], [0, 0, 0, 1.0]])
    logic, volume = USEMASegmentationLogic(worker), addVolume(IMAGE[None], grid, "Film")
    node = logic.segment(volume, model)
    (segment,) = node.GetSegmentation().GetSegmentIDs()
    assert np.array_equal(voxels(node, segment, volume)[0], expected == 1)
    assert f"Disc {(expected == 1).sum() / 8:.1f} mm²" in logic.status.message
    assert logic.status.warnings == []


@pytest.mark.parametrize("across", [0, 1])
def test_a_slice_across_the_first_or_second_axis_is_segmented_on_its_grid(host, tiny, worker, model, expected, across):
    """From inferior to superior, as volumes are stored; the model sees it upright."""
    order = (1, 2) if across == 0 else (0, 2)
    grid = np.eye(4)
    grid[:2, :2] *= -1  # as LPS has its axes
    grid[order[0]] *= 0.5
    logic, volume = USEMASegmentationLogic(worker), addVolume(np.expand_dims(IMAGE[::-1], 2 - across), grid, "Slice")
    node = logic.segment(volume, model)
    (segment,) = node.GetSegmentation().GetSegmentIDs()
    found = voxels(node, segment, volume).squeeze(2 - across)
    assert np.array_equal(found, expected[::-1] == 1)
    assert f"Disc {(expected == 1).sum() / 2:.1f} mm²" in logic.status.message


def test_what_was_corrected_in_an_image_stays(host, tiny, worker, model, expected):
    logic, picture = USEMASegmentationLogic(worker), addPicture()
    node = logic.segment(picture, model)
    (segment,) = node.GetSegmentation().GetSegmentIDs()
    changed = (expected == 1)[None].astype(np.uint8)
    changed[0, :5, :5] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(changed, node, segment, picture)
    found = logic.corrections(inputVolume=picture, modelName=model, segmentation=node, existing="replace")
    assert (found.voxels, found.millilitres) == (25, None)
    logic.segment(picture, model, segmentation=node)
    assert voxels(node, segment, picture)[0, :5, :5].all()


def test_the_wrong_kind_is_refused_before_the_engine_is_asked(host, tiny, model):
    logic = USEMASegmentationLogic()
    volume = addVolume(np.stack([IMAGE] * 4), LPS, "Head")
    with pytest.raises(InputError, match="'Head' has 128 x 96 x 4 voxels, and the model is for two-dimensional images"):
        logic.start(inputVolume=volume, modelName=model)
    for picture, message in ((addPicture(), "3 values in each voxel"), (addVolume(IMAGE[None], LPS), "is a 2D image")):
        with pytest.raises(InputError, match=message) as refused:
            logic.start(inputVolume=picture, modelName="tiny")
        assert "model for images" in refused.value.hint
    assert "two values" not in logic.check(inputVolume=addPicture(), modelName=model).reason
    with pytest.raises(InputError, match="2 values in each pixel"):
        logic.start(inputVolume=addPicture(2), modelName=model)
    assert logic.check(inputVolume=addPicture(), modelName=model).ready
    logic.shutdown()


def test_a_picture_may_be_the_volume_in_view(host):
    picture = addPicture()
    assert volumeInView() is picture
    volume = addVolume(np.stack([IMAGE] * 4), LPS, "Head")
    assert volumeInView() is volume
    slicer.app.applicationLogic().GetSelectionNode().SetActiveVolumeID(picture.GetID())
    assert volumeInView() is picture
