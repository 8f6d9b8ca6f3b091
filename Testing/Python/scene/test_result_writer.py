"""What a radiologist's day does to a result: all or nothing, and nothing of the user's is lost."""

from __future__ import annotations

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
    complete,
    nodes,
    segmentOf,
    statusOf,
    transformNode,
    voxels,
    write,
)
from USEMASegmentationLib.Parameters import EXISTING, Parameters
from USEMASegmentationLib.Scene import BesideVolume, Probabilities, ResultWriter, SegmentationWriter
from USEMASegmentationLib.Scene.EditMask import tagOf
from USEMASegmentationLib.Scene.SegmentVoxels import arrayOf
from USEMASegmentationLib.Scene.VolumeBridge import wholeBox

pytest_plugins = ["slicer_fixtures"]

LATER = blobs()[::-1].copy()


def probabilities(seed=0, shape=LATER.shape) -> np.ndarray:
    return np.random.default_rng(seed).random((3, *shape)).astype(np.float16)


def outcomeOf(volume, **options):
    result = ResultWriter.Result(LATER, None, PROVENANCE, MODEL, wholeBox(volume))
    return ResultWriter.write(result, Parameters.fromWords({"inputVolume": volume, **options}))


# What is the user's of a segment that is replaced


def test_name_colour_codes_status_and_place_stay(node, volume):
    segment, terms = segmentOf(node, ANTERIOR), slicer.vtkSegment.GetTerminologyEntryTagName()
    segment.SetName("Left anterior, checked by me")
    segment.SetColor(0.1, 0.2, 0.3)
    segment.SetTag(terms, "mine")
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    logic.SetSegmentStatus(segment, logic.Flagged)
    node.GetDisplayNode().SetSegmentOpacity2DFill(ANTERIOR, 0.25)
    node.GetSegmentation().SetSegmentIndex(ANTERIOR, 1)
    write(LATER, volume, provenance={**PROVENANCE, "seconds": "9"}, segmentationNode=node)
    assert node.GetSegmentation().GetSegmentIDs() == (POSTERIOR, ANTERIOR)
    segment, tag = segmentOf(node, ANTERIOR), vtk.reference("")
    assert segment.GetName() == "Left anterior, checked by me"
    assert segment.GetColor() == (0.1, 0.2, 0.3)
    assert segment.GetTag(terms, tag)
    assert str(tag) == "mine"
    assert logic.GetSegmentStatus(segment) == logic.Flagged
    assert node.GetDisplayNode().GetSegmentOpacity2DFill(ANTERIOR) == 0.25
    assert (voxels(node, ANTERIOR, volume) == (LATER == 1)).all()
    assert tagOf(segment, "seconds") == "9"


@pytest.mark.parametrize("voxel", [None, (0, 0, 0)], ids=["the same voxels", "one other voxel"])
def test_what_was_completed_is_to_be_looked_at_again_where_its_voxels_are_others(node, volume, voxel):
    complete(node, ANTERIOR, POSTERIOR)
    again = blobs()
    if voxel is not None:
        again[voxel] = 1
        again[tuple(np.argwhere(again == 1)[-1])] = 0
    write(again, volume, segmentationNode=node)
    assert statusOf(node, ANTERIOR) == ("completed" if voxel is None else "inprogress")
    assert statusOf(node, POSTERIOR) == "completed"


def test_a_copy_stays_beside_what_is_replaced_voxel_by_voxel(node, volume):
    segmentation = node.GetSegmentation()
    segmentation.CopySegmentFromSegmentation(segmentation, ANTERIOR)
    copy = segmentation.GetSegmentIDs()[-1]
    segmentOf(node, copy).SetName("my corrected anterior")
    segmentation.CollapseBinaryLabelmaps(False)
    write(LATER, volume, segmentationNode=node)
    assert segmentOf(node, copy).GetName() == "my corrected anterior"
    assert (voxels(node, copy, volume) == (blobs() == 1)).all()
    assert (voxels(node, ANTERIOR, volume) == (LATER == 1)).all()


@pytest.mark.parametrize("overwrite", [False, True])
def test_outside_of_the_region_the_old_segment_stays(node, volume, overwrite):
    box = (slice(3, 9), slice(2, 12), slice(5, 16))
    part = np.ascontiguousarray(LATER[box])
    probability = probabilities(shape=part.shape)
    write(part, volume, box=box, probabilities=probability, segmentationNode=node, overwriteCorrections=overwrite)
    expected = blobs()
    expected[box] = part
    for value, segmentId in enumerate((ANTERIOR, POSTERIOR), 1):
        assert (voxels(node, segmentId, volume) == (expected == value)).all()
    assert node.GetSegmentation().GetNumberOfLayers() == 1


def test_surfaces_follow_the_new_voxels(node, volume):
    node.CreateClosedSurfaceRepresentation()
    write(LATER, volume, segmentationNode=node)
    shown, expected = vtk.vtkPolyData(), vtk.vtkPolyData()
    node.GetClosedSurfaceRepresentation(ANTERIOR, shown)
    write(LATER, volume, show3D=True).GetClosedSurfaceRepresentation(ANTERIOR, expected)
    assert np.allclose(shown.GetBounds(), expected.GetBounds())


def test_a_surface_is_made_anew_only_where_voxels_differ(node, volume, monkeypatch):
    from USEMASegmentationLib.Scene import SegmentationWriter

    made, make = [], SegmentationWriter._makeSurface
    monkeypatch.setattr(SegmentationWriter, "_makeSurface", lambda *one: made.append(one[1]) or make(*one))
    node.CreateClosedSurfaceRepresentation()
    shown = node.GetSegmentation().GetSegment(ANTERIOR).GetRepresentation("Closed surface").GetNumberOfPoints()
    labels = blobs()
    write(labels, volume, segmentationNode=node)
    assert not made
    assert labels[labels == 2].size
    labels[labels == 2] = 0
    labels[0, 0, :2] = 2
    write(labels, volume, segmentationNode=node)
    assert made == [POSTERIOR]
    segmentation = node.GetSegmentation()
    left = segmentation.GetSegment(ANTERIOR).GetRepresentation("Closed surface")
    assert left.GetNumberOfPoints() == shown > 0
    left.Initialize()  # as where somebody broke off before it was made
    write(labels, volume, segmentationNode=node)
    assert made == [POSTERIOR, ANTERIOR]


def test_a_replaced_segment_can_be_painted_and_that_be_undone(host, node, volume):
    editor = host.editor(node, volume)
    editor.SaveStateForUndo()
    write(LATER, volume, segmentationNode=node)
    editor.SaveStateForUndo()
    array = voxels(node, ANTERIOR, volume).astype(np.uint8)
    array[0] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(array, node, ANTERIOR, volume)
    editor.Undo()
    assert (voxels(node, ANTERIOR, volume) == (LATER == 1)).all()
    editor.Undo()
    assert (voxels(node, ANTERIOR, volume) == (blobs() == 1)).all()


# All or nothing


def stateOf(node, volume) -> tuple:
    kinds = (
        "vtkMRMLVolumeNode",
        "vtkMRMLSegmentationNode",
        "vtkMRMLSegmentationDisplayNode",
        "vtkMRMLScalarVolumeDisplayNode",
    )
    there = {kind: len(slicer.util.getNodesByClass(kind)) for kind in kinds}
    segmentation = node.GetSegmentation()
    segments = [
        (
            one,
            segmentOf(node, one).GetName(),
            tagOf(segmentOf(node, one), "written"),
            voxels(node, one, volume).tobytes(),
        )
        for one in segmentation.GetSegmentIDs()
    ]
    attributes = {name: node.GetAttribute(name) for name in node.GetAttributeNames()}
    volumes = [slicer.util.arrayFromVolume(one).tobytes() for one in slicer.util.getNodesByClass("vtkMRMLVolumeNode")]
    return segments, attributes, volumes, there


def failing(*_, **__):
    raise MemoryError("no more")


@pytest.mark.parametrize(
    ("module", "function", "existing"),
    [
        *((Probabilities, step, existing) for step in ("preparing", "commit") for existing in EXISTING),
        *((SegmentationWriter, "setAttributes", existing) for existing in EXISTING),
        (ResultWriter, "compute", "replace"),
        (BesideVolume, "placeBeside", "new"),
        (SegmentationWriter, "placeBeside", "new"),
    ],
)
def test_memory_that_runs_out_half_way_leaves_the_scene_as_it_was(volume, monkeypatch, module, function, existing):
    node = write(blobs(), volume, probabilities=probabilities(), show3D=True)
    before = stateOf(node, volume)
    monkeypatch.setattr(module, function, failing)
    options = {"segmentationNode": node, "existing": existing, "probabilities": probabilities(1)}
    with pytest.raises(MemoryError):
        write(LATER, volume, provenance={**PROVENANCE, "model": MODEL.name, "seconds": "9"}, **options)
    assert stateOf(node, volume) == before


def test_the_third_of_several_steps_may_fail_too(node, volume, monkeypatch):
    before, steps, hold = stateOf(node, volume), [], SegmentationWriter._hold

    def failingOnTheSecond(*arguments):
        steps.append(arguments)
        if len(steps) == 2:
            raise MemoryError
        hold(*arguments)

    monkeypatch.setattr(SegmentationWriter, "_hold", failingOnTheSecond)
    with pytest.raises(MemoryError):
        write(LATER, volume, segmentationNode=node)
    assert len(steps) > 2
    assert stateOf(node, volume) == before


# Undo


def test_a_result_that_could_not_be_undone_goes_into_a_segmentation_of_its_own(node, volume):
    asked = []

    def cannotSave(target):
        asked.append(target)
        return False

    result = ResultWriter.Result(LATER, None, PROVENANCE, MODEL, wholeBox(volume))
    parameters = Parameters(inputVolume=volume, segmentation=node, existing="replace")
    outcome = ResultWriter.write(result, parameters, cannotSave)
    assert asked == [node]
    assert outcome.segmentation is not node
    assert outcome.warnings == ["'Head Hippocampus' could not be saved for undo. A new segmentation was made."]
    assert (voxels(node, ANTERIOR, volume) == (blobs() == 1)).all()


def test_nothing_is_saved_for_undo_before_the_arrays_are_there(node, volume, monkeypatch):
    saved = []
    monkeypatch.setattr(ResultWriter, "compute", failing)
    with pytest.raises(MemoryError):
        write(LATER, volume, segmentationNode=node, hook=saved.append)
    assert saved == []


# Where a result goes


@pytest.mark.parametrize("existing", ["replace", "keep"])
def test_a_segmentation_on_another_grid_is_left_alone(node, volume, existing):
    other = addVolume(np.ones(blobs().shape, np.int16), GRIDS["PIR"], "Other")
    outcome = outcomeOf(other, segmentationNode=node, existing=existing)
    assert outcome.segmentation is not node
    assert "lies on another grid than the volume 'Other'. A new segmentation was made." in outcome.warnings[0]


def test_a_segmentation_900_millimetres_away_is_left_alone(node):
    matrix = GRIDS["oblique"].copy()
    matrix[:3, 3] += matrix[:3, 0] * 1000
    away = addVolume(np.ones(blobs().shape, np.int16), matrix, "Away")
    outcome = outcomeOf(away, segmentationNode=node)
    assert outcome.segmentation is not node
    assert "lies outside the volume 'Away'" in outcome.warnings[0]


def test_a_segmentation_of_another_patient_is_left_alone(host, node, volume):
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(host.scene)
    other = addVolume(np.ones(blobs().shape, np.int16), GRIDS["oblique"], "Other")
    for patient, one in (("Doe", node), ("Roe", other)):
        subject = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), patient)
        study = hierarchy.CreateStudyItem(subject, "Study")
        item = hierarchy.GetItemByDataNode(one) or hierarchy.CreateItem(study, one)
        hierarchy.SetItemParent(item, study)
    outcome = outcomeOf(other, segmentationNode=node)
    assert outcome.segmentation is not node
    assert "is of another patient" in outcome.warnings[0]
    assert outcomeOf(volume, segmentationNode=node).segmentation is node  # of no patient that is known


def test_a_crop_of_the_same_volume_shares_its_segmentation(node, volume):
    matrix = GRIDS["oblique"].copy()
    matrix[:3, 3] = (matrix @ (4, 3, 2, 1))[:3]
    crop = addVolume(np.ones((8, 12, 14), np.int16), matrix, "Crop")
    part = np.ascontiguousarray(LATER[2:10, 3:15, 4:18])
    assert write(part, crop, segmentationNode=node) is node
    expected = blobs()
    expected[2:10, 3:15, 4:18] = part
    assert (voxels(node, ANTERIOR, volume) == (expected == 1)).all()


# Several results in one segmentation


def test_probability_volumes_are_replaced_and_lie_under_the_volumes_transform(volume):
    volume.SetAndObserveTransformNodeID(transformNode(GRIDS["left-handed"]).GetID())
    node = write(blobs(), volume, probabilities=probabilities())
    for seed in (1, 2):
        write(LATER, volume, probabilities=probabilities(seed), segmentationNode=node)
    assert len([name for name in nodes() if "probability" in name]) == 2
    assert node.GetNumberOfNodeReferences(Probabilities.ROLE) == 2
    for n in range(2):
        one = node.GetNthNodeReference(Probabilities.ROLE, n)
        assert one.GetTransformNodeID() == volume.GetTransformNodeID() is not None
        assert (slicer.util.arrayFromVolume(one) == probabilities(2)[n + 1].astype(np.float32)).all()


def test_attributes_tell_of_all_that_is_in_the_segmentation(node, volume):
    other = {**PROVENANCE, "model": "another", "seconds": "9"}
    write(LATER, volume, provenance=other, segmentationNode=node, existing="keep")
    assert node.GetAttribute("USEMA.model") == f"{MODEL.name}; another"
    assert node.GetAttribute("USEMA.seconds") == "1.5; 9"
    assert node.GetAttribute("USEMA.device") == PROVENANCE["device"]


def test_what_stays_of_a_layer_that_was_shared_holds_nothing_of_what_was_replaced(node, volume):
    segmentation = node.GetSegmentation()
    segmentation.AddEmptySegment("mine", "Mine")
    slicer.util.updateSegmentBinaryLabelmapFromArray((blobs() == 0).astype(np.uint8), node, "mine", volume)
    segmentation.CollapseBinaryLabelmaps(False)
    assert segmentation.GetNumberOfLayers() == 1
    write(np.zeros_like(blobs()), volume, segmentationNode=node)
    assert not voxels(node, ANTERIOR, volume).any()
    assert (voxels(node, "mine", volume) == (blobs() == 0)).all()
    image = segmentOf(node, "mine").GetRepresentation("Binary labelmap")
    assert set(np.unique(arrayOf(image))) == {0, segmentOf(node, "mine").GetLabelValue()}
