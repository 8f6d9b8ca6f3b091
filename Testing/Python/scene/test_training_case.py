"""A corrected segmentation of a real scene becomes a case of a training set, or is refused with the reason."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import slicer.util
from bundles import write_tiny_bundle
from slicer_cases import ANTERIOR, GRIDS, addVolume, blobs, segmentOf, transformNode, write
from usema.errors import InputError
from usema.volumes.volume import load_volume, read_volume, reorient
from USEMASegmentationLib import TrainingSet
from USEMASegmentationLib.Parameters import Parameters
from USEMASegmentationLib.Scene.VolumeBridge import worldGeometries

pytest_plugins = ["slicer_fixtures"]


@pytest.fixture(autouse=True)
def models(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("resources")
    (folder / "Models").mkdir()
    write_tiny_bundle(folder / "Models" / "hippocampus-mr")
    monkeypatch.setenv("USEMA_RESOURCES", str(folder))


@pytest.fixture(params=["RAS", "oblique"])
def volume(host, request):
    array = np.random.default_rng(0).integers(0, 1000, blobs().shape).astype(np.int16)
    return addVolume(array, GRIDS[request.param], "Doe^Jane")


@pytest.fixture
def parameters(volume):
    return Parameters(inputVolume=volume, modelName="hippocampus-mr", segmentation=write(blobs(), volume))


def test_what_the_user_corrected_is_what_is_learned_and_no_name_is_copied(parameters, volume, tmp_path):
    node = parameters.segmentation
    segmentOf(node, ANTERIOR).SetName("My head of it")  # the model's tag still tells what it is
    mask = blobs() == 1
    mask[0, 0, :3] = True
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), node, ANTERIOR, volume)
    folder = tmp_path / "Dataset500_Mine"
    assert TrainingSet.add(parameters, folder, consent=True) == ["case_001"]
    expected = np.where(mask, 1, blobs())
    axes = worldGeometries([volume])[0].orientation  # the case is stored along the model's
    labels = reorient(load_volume(folder / "labelsTr" / "case_001.nii.gz"), axes)
    np.testing.assert_array_equal(labels.array, expected)
    image = reorient(read_volume(folder / "imagesTr" / "case_001_0000.nii.gz"), axes)
    np.testing.assert_array_equal(image.array, slicer.util.arrayFromVolume(volume))
    assert image.geometry.same_grid(labels.geometry)
    for path in folder.rglob("*"):
        assert "Doe" not in path.name
        assert path.is_dir() or b"Doe" not in path.read_bytes()


def test_without_consent_nothing_is_written(parameters, tmp_path):
    for consent in (False, "yes", None):
        with pytest.raises(InputError, match="nobody said that this patient's images may be used"):
            TrainingSet.add(parameters, tmp_path / "Dataset500_Mine", consent)
    assert not (tmp_path / "Dataset500_Mine").exists()


def refused(parameters, tmp_path) -> str:
    with pytest.raises(InputError) as error:
        TrainingSet.check(parameters)
    with pytest.raises(InputError):
        TrainingSet.add(parameters, tmp_path / "Dataset500_Mine", consent=True)
    assert not (tmp_path / "Dataset500_Mine").exists()
    return str(error.value)


def test_a_segment_that_is_none_of_the_models_is_named(parameters, tmp_path):
    parameters.segmentation.GetSegmentation().AddEmptySegment("tumour", "Tumour")
    assert "The segment 'Tumour' is none of the model's" in refused(parameters, tmp_path)


def test_a_label_without_a_segment_is_named(parameters, tmp_path):
    parameters.segmentation.GetSegmentation().RemoveSegment(ANTERIOR)
    assert "no segment 'Anterior hippocampus'" in refused(parameters, tmp_path)


def test_two_segments_of_one_label_are_named(parameters, tmp_path):
    parameters.segmentation.GetSegmentation().AddEmptySegment("copy", "anterior_hippocampus")
    assert "are both 'Anterior hippocampus'" in refused(parameters, tmp_path)


def test_segments_that_overlap_are_named(parameters, volume, tmp_path):
    mask = np.ones(blobs().shape, np.uint8)
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, parameters.segmentation, ANTERIOR, volume)
    assert "overlap" in refused(parameters, tmp_path)


def test_segments_that_are_surfaces_are_refused_and_not_taken_for_empty(parameters, tmp_path):
    parameters.segmentation.CreateClosedSurfaceRepresentation()
    parameters.segmentation.SetSourceRepresentationToClosedSurface()
    with pytest.raises(InputError, match="stored as 'Closed surface', not as voxels"):
        TrainingSet.add(parameters, tmp_path / "Dataset500_Mine", consent=True)


def test_a_volume_that_was_moved_away_from_its_segments_is_refused(parameters, volume, tmp_path):
    volume.SetAndObserveTransformNodeID(transformNode(np.diag([1.0, -1.0, -1.0, 1.0])).GetID())
    with pytest.raises(InputError, match="does not lie under the same transform"):
        TrainingSet.add(parameters, tmp_path / "Dataset500_Mine", consent=True)


def test_another_volume_is_refused(parameters, tmp_path):
    parameters.inputVolume = addVolume(np.ones((9, 9, 9), np.int16), np.diag([2.0, 2.0, 2.0, 1.0]), "Other")
    assert "does not lie on the voxels of 'Other'" in refused(parameters, tmp_path)
