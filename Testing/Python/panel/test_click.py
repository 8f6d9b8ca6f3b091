"""One click from end to end: a real MRML scene, the real worker, real weights."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from bundles import TINY, write_tiny_bundle
from slicer_cases import addVolume, labelsOf, transformNode, voxels, worldPoints
from usema.resources import bundled_models, sample_volume
from USEMASegmentationLib.Logic import USEMASegmentationLogic
from USEMASegmentationLib.Scene.EditMask import tagOf
from vtk.util.numpy_support import vtk_to_numpy

pytest_plugins = ["slicer_fixtures"]

ANTERIOR, POSTERIOR = "hippocampus-mr_1", "hippocampus-mr_2"


@pytest.fixture
def volume(hippocampus):
    """What the tiny model segments in one tile."""
    matrix = vtk.vtkMatrix4x4()
    hippocampus.GetIJKToRASMatrix(matrix)
    grid = slicer.util.arrayFromVTKMatrix(matrix)
    grid[:3, 3] = (grid @ (5, 9, 5, 1))[:3]
    return addVolume(slicer.util.arrayFromVolume(hippocampus)[5:29, 9:41, 5:29].copy(), grid)


# The whole click, with the model and the sample that come with USEMA


def test_load_segment_correct_save_and_reload(host, worker, tmp_path):
    logic = USEMASegmentationLogic(worker)
    (model,) = logic.models()
    sample = sample_volume()
    volume = host.loadVolume(sample)
    seen = []
    node = logic.segment(volume, model.metadata.name, show3D=True, wait=lambda: seen.append(logic.status.state))
    assert {"starting", "running"} & set(seen)
    assert logic.status.warnings == []

    reference = host.loadVolume(sample.parent / "reference" / sample.name)
    truth = slicer.util.arrayFromVolume(reference)
    slicer.mrmlScene.RemoveNode(reference)
    ids = list(node.GetSegmentation().GetSegmentIDs())
    # the sample is a crop: of a whole head there would be both sides instead
    for segmentId, label in zip(ids, model.metadata.labels[:2], strict=True):
        found, expected = voxels(node, segmentId, volume), truth == label.value
        dice = 2 * (found & expected).sum() / (found.sum() + expected.sum())
        assert dice > 0.8, label.name

    # Correct: the second segment grows into a block, but only where the first one is.
    first, second = (voxels(node, one, volume) for one in ids)
    editor = host.editor(node, volume)
    editor.SetCurrentSegmentID(ids[1])
    editorNode = editor.GetSegmentEditorNode()
    editorNode.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedInsideSingleSegment)
    editorNode.SetMaskSegmentID(ids[0])
    editorNode.SetOverwriteMode(slicer.vtkMRMLSegmentEditorNode.OverwriteAllSegments)
    editor.ResetModifierLabelmapToDefault()
    brush = editor.GetModifierLabelmap()
    stroke = vtk_to_numpy(brush.GetPointData().GetScalars()).reshape(brush.GetDimensions()[::-1])
    z, y, x = (int(axis.mean()) for axis in np.nonzero(first))
    stroke[z - 3 : z + 3, y - 3 : y + 3, x - 3 : x + 3] = 1
    painted = stroke.astype(bool)
    brush.GetPointData().GetScalars().Modified()
    editor.SaveStateForUndo()
    editor.ModifySegmentByLabelmap(node, ids[1], brush, editor.ModificationModeAdd, False, False)
    changed = painted & first
    assert changed.any()
    assert (painted & ~first).any()
    corrected = first & ~changed, second | changed
    for segmentId, array in zip(ids, corrected, strict=True):
        assert (voxels(node, segmentId, volume) == array).all()
    editor.Undo()
    for segmentId, array in zip(ids, (first, second), strict=True):
        assert (voxels(node, segmentId, volume) == array).all()
    editor.Redo()

    provenance = {name: node.GetAttribute(name) for name in node.GetAttributeNames()}
    assert provenance["USEMA.model"] == model.metadata.name
    assert provenance["USEMA.weightsSha256"] == model.metadata.weights["sha256"]
    assert {"USEMA.modelVersion", "USEMA.device", "USEMA.attention", "USEMA.overlap", "USEMA.roi"} < set(provenance)
    assert {"USEMA.seconds", "USEMA.time"} < set(provenance)
    host.saveBundle(tmp_path / "case.mrb")
    host.openBundle(tmp_path / "case.mrb")
    node = host.scene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    volume = host.scene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
    assert {name: node.GetAttribute(name) for name in node.GetAttributeNames()} == provenance
    for segmentId, array in zip(ids, corrected, strict=True):
        assert (voxels(node, segmentId, volume) == array).all()
        assert tagOf(node.GetSegmentation().GetSegment(segmentId), "time") == provenance["USEMA.time"]


def test_the_bundled_model_is_the_one_that_a_name_finds(host, worker):
    (bundle,) = USEMASegmentationLogic(worker).models()
    assert bundle.path == bundled_models()[bundle.metadata.name]


def test_a_bundle_can_be_given_by_a_relative_path(volume, logic, tinyFolder, monkeypatch):
    monkeypatch.chdir(tinyFolder)
    assert logic.segment(volume, "Models/tiny").GetAttribute("USEMA.model") == "hippocampus-mr"


# Orientations: the same anatomy, stored in different ways


def stored(volume, order, flips, name):
    """A copy of the volume with permuted and flipped voxel axes, at the same place in the world."""
    array, matrix = slicer.util.arrayFromVolume(volume), vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    old, new = slicer.util.arrayFromVTKMatrix(matrix), np.eye(4)
    new[:3, 3] = old[:3, 3]
    size = array.shape[::-1]
    for axis, (source, flip) in enumerate(zip(order, flips, strict=True)):
        new[:3, axis] = -old[:3, source] if flip else old[:3, source]
        if flip:
            new[:3, 3] += old[:3, source] * (size[source] - 1)
    moved = array.transpose([2 - source for source in order[::-1]])
    moved = moved[tuple(slice(None, None, -1 if flip else 1) for flip in flips[::-1])]
    return addVolume(np.ascontiguousarray(moved), new, name)


def rotation(axis, angle, centre) -> np.ndarray:
    transform = vtk.vtkTransform()
    transform.Translate(*centre)
    transform.RotateWXYZ(angle, *axis)
    transform.Translate(*np.negative(centre))
    return slicer.util.arrayFromVTKMatrix(transform.GetMatrix())


def test_the_same_anatomy_in_any_orientation_gives_the_same_segmentation_in_the_world(volume, logic):
    expected = worldPoints(logic.segment(volume, "tiny"), ANTERIOR)
    assert 100 < len(expected) < slicer.util.arrayFromVolume(volume).size
    assert not np.allclose(expected, expected[:, [1, 0, 2]])
    for name, order, flips in (
        ("RAS", (0, 1, 2), (False, False, False)),
        ("LPS", (0, 1, 2), (True, True, False)),
        ("PIR", (1, 2, 0), (True, True, False)),
        ("SLA", (2, 0, 1), (False, True, False)),
        ("left-handed", (0, 1, 2), (True, False, False)),
    ):
        node = logic.segment(stored(volume, order, flips, name), "tiny")
        assert np.allclose(worldPoints(node, ANTERIOR), expected), name


def test_an_oblique_volume_and_one_under_a_turning_transform_give_the_same(volume, logic):
    array, matrix = slicer.util.arrayFromVolume(volume).copy(), vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    grid, turn = slicer.util.arrayFromVTKMatrix(matrix), rotation((1, 2, 3), 20, (10, 20, 30))
    still = worldPoints(logic.segment(volume, "tiny"), ANTERIOR)
    oblique = worldPoints(logic.segment(addVolume(array, turn @ grid), "tiny"), ANTERIOR)
    moved = still @ turn[:3, :3].T + turn[:3, 3]
    assert np.allclose(oblique, moved[np.lexsort(moved.round(3).T)], atol=1e-6)
    volume.SetAndObserveTransformNodeID(transformNode(turn).GetID())
    node = logic.segment(volume, "tiny")
    assert node.GetParentTransformNode() is volume.GetParentTransformNode()
    assert np.allclose(worldPoints(node, ANTERIOR), oblique, atol=1e-6)


def test_a_volume_stored_lying_on_its_side_is_judged_as_its_transform_places_it(volume, logic):
    expected = worldPoints(logic.segment(volume, "tiny"), ANTERIOR)
    matrix, turn = vtk.vtkMatrix4x4(), rotation((1, 0, 0), 90, (0, 0, 0))
    volume.GetIJKToRASMatrix(matrix)
    grid = slicer.util.arrayFromVTKMatrix(matrix)
    aside = addVolume(slicer.util.arrayFromVolume(volume).copy(), np.linalg.inv(turn) @ grid)
    wrong = logic.segment(aside, "tiny")
    aside.SetAndObserveTransformNodeID(transformNode(turn).GetID())
    assert np.allclose(worldPoints(logic.segment(aside, "tiny"), ANTERIOR), expected)
    assert len(worldPoints(wrong, ANTERIOR)) != len(expected)  # the tiny model does tell directions apart


# What a click may ask for


def test_an_roi_gives_what_the_cropped_volume_gives_and_nothing_outside(hippocampus, logic):
    array, matrix = slicer.util.arrayFromVolume(hippocampus), vtk.vtkMatrix4x4()
    hippocampus.GetIJKToRASMatrix(matrix)
    grid, box = slicer.util.arrayFromVTKMatrix(matrix), (slice(4, 30), slice(8, 44), slice(3, 31))
    start, size = np.array([3, 8, 4]), np.array([28, 36, 26])
    roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode")
    roi.SetCenter(*(grid @ np.append(start + (size - 1) / 2, 1))[:3])
    roi.SetSize(*np.abs(grid[:3, :3] @ size))
    part = grid.copy()
    part[:3, 3] = (grid @ np.append(start, 1))[:3]
    alone = addVolume(array[box].copy(), part)
    expected = np.zeros(array.shape, np.uint8)
    expected[box] = labelsOf(logic.segment(alone, "tiny"), alone)
    assert (labelsOf(logic.segment(hippocampus, "tiny", roiNode=roi), hippocampus) == expected).all()


def test_some_labels_only(volume, logic):
    both = labelsOf(logic.segment(volume, "tiny"), volume)
    node = logic.segment(volume, "tiny", labels=["Posterior hippocampus"])
    assert node.GetSegmentation().GetSegmentIDs() == (POSTERIOR,)
    assert (voxels(node, POSTERIOR, volume) == (both == 2)).all()


def test_new_replace_and_keep(volume, logic):
    first = logic.segment(volume, "tiny")
    assert logic.segment(volume, "tiny", segmentationNode=first, existing="new") is not first
    first.GetSegmentation().AddEmptySegment("mine", "Mine")
    assert logic.segment(volume, "tiny", segmentationNode=first, existing="replace") is first
    assert first.GetSegmentation().GetSegmentIDs() == (ANTERIOR, POSTERIOR, "mine")
    logic.segment(volume, "tiny", segmentationNode=first, existing="keep")
    assert first.GetSegmentation().GetNumberOfSegments() == 5


def test_further_channels_are_taken_from_where_they_lie_in_the_world(host, volume, worker, tmp_path, monkeypatch):
    (tmp_path / "Models").mkdir()
    write_two_channels(tmp_path / "Models" / "two")
    monkeypatch.setenv("USEMA_RESOURCES", str(tmp_path))
    logic = USEMASegmentationLogic(worker)
    rng, matrix = np.random.default_rng(0), vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    grid = slicer.util.arrayFromVTKMatrix(matrix)
    other = addVolume(rng.random(slicer.util.arrayFromVolume(volume).shape), grid, "Other")
    expected = labelsOf(logic.segment(volume, "two", channels=[other]), volume)
    assert (expected != labelsOf(logic.segment(volume, "two", channels=[volume]), volume)).any()
    # The same voxels in another order, in another place, and a transform that brings them back.
    turned, shift = stored(other, (2, 0, 1), (True, False, True), "Turned"), np.eye(4)
    shift[:3, 3] = (50, 60, 70)
    back = transformNode(np.linalg.inv(shift))
    turned.GetIJKToRASMatrix(matrix)
    turned.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(shift @ slicer.util.arrayFromVTKMatrix(matrix)))
    turned.SetAndObserveTransformNodeID(back.GetID())
    found = labelsOf(logic.segment(volume, "two", channels=[turned]), volume)
    assert (found == expected).mean() > 0.999  # interpolation rounds


def write_two_channels(folder):
    from usema.inference.plan import Plan

    plan = Plan(
        spacing=(1.0, 1.0, 1.0),
        patch_size=(24, 32, 24),
        transpose_forward=(0, 1, 2),
        transpose_backward=(0, 1, 2),
        normalization=("ZScoreNormalization",) * 2,
        use_mask_for_norm=(False,) * 2,
        intensity_properties=({},) * 2,
    )
    write_tiny_bundle(
        folder,
        channels=[{"name": "T1"}, {"name": "T2"}],
        architecture={"name": "USEMA", "config": {**TINY, "in_channels": 2}},
        preprocessing=plan.to_dict(),
    )


def test_kept_probabilities_agree_with_the_labels(volume, logic):
    node = logic.segment(volume, "tiny", keepProbabilities=True)
    arrays = [slicer.util.arrayFromVolume(node.GetNthNodeReference("USEMA.probability", i)) for i in range(2)]
    probabilities = np.stack([1 - sum(arrays), *arrays])
    assert (probabilities.argmax(axis=0) == labelsOf(node, volume)).mean() > 0.99  # half precision has ties
