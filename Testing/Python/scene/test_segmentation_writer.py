"""Results as segments in a real MRML scene: what they are called, where they lie, and what they leave alone."""

from __future__ import annotations

import re

import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from slicer_cases import (
    ANTERIOR,
    GRIDS,
    MODEL,
    POSTERIOR,
    PROVENANCE,
    addVolume,
    blobs,
    segmentOf,
    transformNode,
    voxels,
    worldPoints,
    write,
)
from USEMASegmentationLib.Scene.EditMask import tagOf
from USEMASegmentationLib.Scene.VolumeBridge import referenceVolume

pytest_plugins = ["slicer_fixtures"]


def idsOf(node) -> list[str]:
    return list(node.GetSegmentation().GetSegmentIDs())


def drawn(volume, *arrays):
    """A segmentation with segments A, B, ... as a user has drawn them, in one layer where they do not overlap."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Drawn")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for name, array in zip("ABC", arrays, strict=False):
        node.GetSegmentation().AddEmptySegment(name, name, (1, 0, 0))
        slicer.util.updateSegmentBinaryLabelmapFromArray(array.astype(np.uint8), node, name, volume)
    node.GetSegmentation().CollapseBinaryLabelmaps(False)
    return node


# What a result looks like


def test_each_label_is_a_segment_with_name_colour_and_code(volume):
    node = write(blobs(), volume, MODEL, PROVENANCE)
    assert idsOf(node) == [ANTERIOR, POSTERIOR]
    for segmentId, label in zip(idsOf(node), MODEL.labels, strict=True):
        segment = segmentOf(node, segmentId)
        assert segment.GetName() == label.name
        assert np.allclose(np.array(segment.GetColor()) * 255, label.color)
        assert (voxels(node, segmentId, volume) == (blobs() == label.value)).all()


def test_slicer_reads_the_codes(volume):
    node = write(blobs(), volume, MODEL, PROVENANCE)
    tag = vtk.reference("")
    assert segmentOf(node, POSTERIOR).GetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), tag)
    entry = slicer.vtkSlicerTerminologyEntry()
    assert slicer.vtkSlicerTerminologiesModuleLogic().DeserializeTerminologyEntry(str(tag), entry)
    found = [
        (code.GetCodingSchemeDesignator(), code.GetCodeValue(), code.GetCodeMeaning())
        for code in (entry.GetCategoryObject(), entry.GetTypeObject(), entry.GetTypeModifierObject())
    ]
    assert found == [
        ("SCT", "123037004", "Anatomical Structure"),
        ("SCT", "5366008", "Hippocampus"),
        ("SCT", "255551008", "Posterior"),
    ]
    assert entry.GetTerminologyContextName() == "Segmentation category and type - USEMA"


def test_a_new_segmentation_is_named_after_volume_and_model_and_never_takes_a_name_that_is_there(volume):
    names = [write(blobs(), volume, MODEL, PROVENANCE).GetName() for _ in range(4)]
    assert names[0] == "Head Hippocampus"
    assert re.fullmatch(r"Head Hippocampus \d\d:\d\d", names[1])
    assert re.fullmatch(r"Head Hippocampus \d\d:\d\d(:\d\d)?", names[2])
    assert len(set(names)) == 4


def test_all_segments_share_one_layer(volume):
    assert write(blobs(), volume, MODEL, PROVENANCE).GetSegmentation().GetNumberOfLayers() == 1


@pytest.mark.parametrize("grid", GRIDS)
def test_segments_lie_on_exactly_the_volumes_grid(host, grid):
    volume = addVolume(np.ones(blobs().shape, np.int16), GRIDS[grid])
    node = write(blobs(), volume, MODEL, PROVENANCE)
    image, matrix = node.GetBinaryLabelmapInternalRepresentation(ANTERIOR), vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    assert np.allclose(slicer.util.arrayFromVTKMatrix(matrix), GRIDS[grid], atol=1e-12)
    exported = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode")
    reference = slicer.vtkSegmentation.EXTENT_REFERENCE_GEOMETRY
    assert slicer.vtkSlicerSegmentationsModuleLogic.ExportAllSegmentsToLabelmapNode(node, exported, reference)
    assert (slicer.util.arrayFromVolume(exported) == blobs()).all()
    exported.GetIJKToRASMatrix(matrix)
    assert np.allclose(slicer.util.arrayFromVTKMatrix(matrix), GRIDS[grid], atol=1e-9)


def test_a_box_of_the_volume_keeps_its_place(volume):
    box = (slice(2, 10), slice(3, 15), slice(4, 18))
    node = write(np.ascontiguousarray(blobs()[box]), volume, MODEL, PROVENANCE, box=box)
    expected = np.zeros_like(blobs())
    expected[box] = blobs()[box]
    assert (voxels(node, ANTERIOR, volume) == (expected == 1)).all()
    assert (voxels(node, POSTERIOR, volume) == (expected == 2)).all()


def test_labels_that_do_not_fill_their_box_are_refused(volume):
    with pytest.raises(ValueError, match="do not fill"):
        write(blobs()[1:], volume, MODEL, PROVENANCE)


def test_a_result_lies_where_its_transformed_volume_lies(volume):
    still = worldPoints(write(blobs(), volume, MODEL, PROVENANCE), ANTERIOR)
    matrix = GRIDS["left-handed"]
    volume.SetAndObserveTransformNodeID(transformNode(matrix).GetID())
    node = write(blobs(), volume, MODEL, PROVENANCE)
    moved = still @ matrix[:3, :3].T + matrix[:3, 3]
    assert np.allclose(worldPoints(node, ANTERIOR), moved[np.lexsort(moved.round(3).T)])
    assert (voxels(node, ANTERIOR, volume) == (blobs() == 1)).all()


def test_a_result_is_placed_in_the_folder_of_its_volume(host, volume):
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(host.scene)
    study = hierarchy.CreateStudyItem(hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "Patient"), "Study")
    hierarchy.CreateItem(study, volume)
    node = write(blobs(), volume, MODEL, PROVENANCE)
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == study


def test_only_the_chosen_labels_are_written(volume):
    node = write(blobs(), volume, MODEL, PROVENANCE, labels=["Posterior hippocampus"])
    assert idsOf(node) == [POSTERIOR]
    assert (voxels(node, POSTERIOR, volume) == (blobs() == 2)).all()
    image = node.GetBinaryLabelmapInternalRepresentation(POSTERIOR)
    assert set(np.unique(vtk.util.numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()))) == {0, 2}


def test_surfaces_of_a_segmentation_without_display_or_voxels_are_made_as_well(host, volume):
    node = host.scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    write(np.zeros_like(blobs()), volume, MODEL, PROVENANCE, segmentationNode=node, existing="keep", show3D=True)
    assert node.GetDisplayNode().GetVisibility3D()
    write(blobs(), volume, MODEL, PROVENANCE, segmentationNode=node, existing="replace")
    surface = vtk.vtkPolyData()
    node.GetClosedSurfaceRepresentation(POSTERIOR, surface)
    assert surface.GetNumberOfPoints() > 0


def test_surfaces_are_made_on_request(volume):
    flat, solid = write(blobs(), volume, MODEL, PROVENANCE), write(blobs(), volume, MODEL, PROVENANCE, show3D=True)
    assert not flat.GetSegmentation().ContainsRepresentation("Closed surface")
    surface = vtk.vtkPolyData()
    solid.GetClosedSurfaceRepresentation(ANTERIOR, surface)
    assert surface.GetNumberOfPoints() > 0


def test_probabilities_become_volumes_beside_the_segmentation(host, volume):
    box = (slice(2, 10), slice(3, 15), slice(4, 18))
    probabilities = np.random.default_rng(1).random((3, 8, 12, 14)).astype(np.float16)
    node = write(np.ascontiguousarray(blobs()[box]), volume, MODEL, PROVENANCE, box=box, probabilities=probabilities)
    role = "USEMA.probability"
    assert node.GetNumberOfNodeReferences(role) == 2
    posterior = node.GetNthNodeReference(role, 1)
    assert posterior.GetName() == "Head Posterior hippocampus probability"
    array = slicer.util.arrayFromVolume(posterior)
    assert (array[box] == probabilities[2].astype(np.float32)).all()
    assert np.count_nonzero(array) == np.count_nonzero(probabilities[2])
    matrix = vtk.vtkMatrix4x4()
    posterior.GetIJKToRASMatrix(matrix)
    assert np.allclose(slicer.util.arrayFromVTKMatrix(matrix), GRIDS["oblique"])


# What an existing segmentation keeps


@pytest.mark.parametrize("existing", ["replace", "keep"])
def test_drawn_segments_stay_voxel_by_voxel_even_where_they_overlap_the_result_and_each_other(volume, existing):
    a, b, c = blobs() > 0, blobs() == 0, blobs() == 1  # a overlaps c, so there are two layers
    node = drawn(volume, a, b, c)
    assert node.GetSegmentation().GetNumberOfLayers() == 2
    for _ in range(2):
        written = write(blobs(), volume, MODEL, PROVENANCE, segmentationNode=node, existing=existing)
        assert written is node
        for name, array in zip("ABC", (a, b, c), strict=True):
            assert (voxels(node, name, volume) == array).all()
        assert (voxels(node, ANTERIOR, volume) == (blobs() == 1)).all()


def test_replace_puts_each_segment_in_the_place_of_the_one_that_this_model_made(volume):
    node = write(blobs(), volume, MODEL, PROVENANCE)
    node.GetSegmentation().AddEmptySegment("mine", "Mine", (0, 1, 0))
    node.GetSegmentation().SetSegmentIndex("mine", 1)
    slicer.util.updateSegmentBinaryLabelmapFromArray((blobs() == 0).astype(np.uint8), node, "mine", volume)
    node.GetSegmentation().CollapseBinaryLabelmaps(False)  # into the result's layer, which must not go as a whole
    assert node.GetSegmentation().GetNumberOfLayers() == 1
    later = blobs()[::-1].copy()
    write(later, volume, MODEL, {**PROVENANCE, "seconds": "9"}, segmentationNode=node, existing="replace")
    assert idsOf(node) == [ANTERIOR, "mine", POSTERIOR]
    assert (voxels(node, ANTERIOR, volume) == (later == 1)).all()
    assert (voxels(node, POSTERIOR, volume) == (later == 2)).all()
    assert (voxels(node, "mine", volume) == (blobs() == 0)).all()
    assert tagOf(segmentOf(node, POSTERIOR), "seconds") == node.GetAttribute("USEMA.seconds") == "9"


def test_replace_of_one_label_leaves_the_models_other_labels(volume):
    node = write(blobs(), volume, MODEL, PROVENANCE)
    later = blobs()[:, ::-1].copy()
    names = ["Anterior hippocampus"]
    write(later, volume, MODEL, PROVENANCE, segmentationNode=node, existing="replace", labels=names)
    assert (voxels(node, ANTERIOR, volume) == (later == 1)).all()
    assert (voxels(node, POSTERIOR, volume) == (blobs() == 2)).all()


def test_replace_leaves_segments_of_another_model(volume):
    node = write(blobs(), volume, MODEL, {**PROVENANCE, "model": "another"})
    write(blobs(), volume, MODEL, PROVENANCE, segmentationNode=node, existing="replace")
    assert len(idsOf(node)) == 4
    assert tagOf(segmentOf(node, ANTERIOR), "model") == "another"


def test_keep_adds_under_names_and_ids_of_their_own(volume):
    node = write(blobs(), volume, MODEL, PROVENANCE)
    later = blobs()[::-1].copy()
    write(later, volume, MODEL, PROVENANCE, segmentationNode=node, existing="keep")
    names = [segmentOf(node, one).GetName() for one in idsOf(node)]
    assert names == [
        "Anterior hippocampus",
        "Posterior hippocampus",
        "Anterior hippocampus (2)",
        "Posterior hippocampus (2)",
    ]
    assert (voxels(node, idsOf(node)[0], volume) == (blobs() == 1)).all()
    assert (voxels(node, idsOf(node)[2], volume) == (later == 1)).all()


def test_new_leaves_the_segmentation_that_is_there_alone(volume):
    node = drawn(volume, blobs() == 1)
    made = write(blobs(), volume, MODEL, PROVENANCE, segmentationNode=node, existing="new")
    assert made is not node
    assert idsOf(node) == ["A"]


def test_surfaces_of_other_segments_stay(volume):
    node = drawn(volume, blobs() > 0)
    node.CreateClosedSurfaceRepresentation()
    before, after = vtk.vtkPolyData(), vtk.vtkPolyData()
    node.GetClosedSurfaceRepresentation("A", before)
    write(blobs(), volume, MODEL, PROVENANCE, segmentationNode=node, existing="keep")
    node.GetClosedSurfaceRepresentation("A", after)
    assert after.GetNumberOfPoints() == before.GetNumberOfPoints() > 0
    node.GetClosedSurfaceRepresentation(POSTERIOR, after)
    assert after.GetNumberOfPoints() > 0  # as all of a segmentation that shows surfaces


def test_a_segmentation_of_surfaces_is_left_alone(volume):
    node = drawn(volume, blobs() > 0)
    node.CreateClosedSurfaceRepresentation()
    node.SetSourceRepresentationToClosedSurface()
    assert write(blobs(), volume, segmentationNode=node, existing="keep") is not node
    assert idsOf(node) == ["A"]


def test_a_segmentation_under_another_transform_is_left_alone(volume):
    node = drawn(volume, blobs() > 0)
    volume.SetAndObserveTransformNodeID(transformNode(GRIDS["LPS"]).GetID())
    assert write(blobs(), volume, segmentationNode=node, existing="replace") is not node
    assert idsOf(node) == ["A"]


def test_undo_takes_a_result_out_of_a_drawn_segmentation_and_redo_brings_it_back(host, volume):
    node = drawn(volume, blobs() > 0, blobs() == 0)
    write(blobs(), volume, MODEL, PROVENANCE, segmentationNode=node, existing="keep")
    editor = host.editor(node, volume)
    editor.SaveStateForUndo()
    write(blobs()[::-1].copy(), volume, MODEL, PROVENANCE, segmentationNode=node, existing="replace")
    editor.Undo()
    assert (voxels(node, ANTERIOR, volume) == (blobs() == 1)).all()
    assert (voxels(node, "A", volume) == (blobs() > 0)).all()
    editor.Redo()
    assert (voxels(node, ANTERIOR, volume) == (blobs()[::-1] == 1)).all()
    assert (voxels(node, "B", volume) == (blobs() == 0)).all()
    assert idsOf(node) == ["A", "B", ANTERIOR, POSTERIOR]


# What survives on disk


def test_provenance_survives_in_a_scene_file(host, volume, tmp_path):
    write(blobs(), volume, MODEL, PROVENANCE)
    host.saveBundle(tmp_path / "scene.mrb")
    host.openBundle(tmp_path / "scene.mrb")
    node = host.scene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    assert {key: node.GetAttribute(f"USEMA.{key}") for key in PROVENANCE} == PROVENANCE
    assert {key: tagOf(segmentOf(node, ANTERIOR), key) for key in PROVENANCE} == PROVENANCE
    volume = host.scene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
    assert (voxels(node, POSTERIOR, volume) == (blobs() == 2)).all()


@pytest.mark.parametrize("labels", [blobs(), np.zeros_like(blobs())], ids=["found", "nothing found"])
def test_segments_and_provenance_survive_in_a_segmentation_file(host, volume, tmp_path, labels):
    node = write(labels, volume, MODEL, PROVENANCE)
    storage = node.CreateDefaultStorageNode()
    storage.SetFileName(str(tmp_path / "result.seg.nrrd"))
    assert storage.WriteData(node)
    again = slicer.modules.segmentations.logic().LoadSegmentationFromFile(str(tmp_path / "result.seg.nrrd"), True)
    assert idsOf(again) == [ANTERIOR, POSTERIOR]
    for segmentId, label in zip(idsOf(again), MODEL.labels, strict=True):
        assert segmentOf(again, segmentId).GetName() == label.name
        assert (voxels(again, segmentId, volume) == (labels == label.value)).all()
        assert {key: tagOf(segmentOf(again, segmentId), key) for key in PROVENANCE} == PROVENANCE


@pytest.mark.parametrize("existing", ["replace", "keep"])
def test_a_copy_that_is_segmented_again_belongs_to_the_volume(volume, existing):
    copy = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Copy")
    copy.CopyContent(write(blobs(), volume, MODEL, PROVENANCE))  # as Clone does it, without what the original refers to
    assert referenceVolume(copy) is None
    assert write(blobs(), volume, MODEL, PROVENANCE, segmentationNode=copy, existing=existing) is copy
    assert referenceVolume(copy) is volume


def test_signs_that_separate_tags_in_files_are_replaced(volume):
    node = write(blobs(), volume, MODEL, {**PROVENANCE, "device": "cuda | Tesla\nT4"})
    assert tagOf(segmentOf(node, ANTERIOR), "device") == "cuda / Tesla T4"
