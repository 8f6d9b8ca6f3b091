"""Which voxels the user changed: true after undo, redo, saving and loading, and kept by the next result."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import slicer.util
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
    write,
)
from usema.volumes.masks import PlacedMask, mask_to_text, text_to_mask
from usema.volumes.volume import Geometry
from usema.volumes.writing import write_segmentation
from USEMASegmentationLib.Scene.EditMask import corrections, editsOf, ownSegments, tagOf
from USEMASegmentationLib.Scene.VolumeBridge import wholeBox
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

pytest_plugins = ["slicer_fixtures"]

STROKE = (slice(2, 6), slice(10, 14), slice(2, 9))  # of it, nothing is in a blob


def paint(node, segmentId, volume, place, value=1) -> None:
    array = voxels(node, segmentId, volume).astype(np.uint8)
    array[place] = value
    slicer.util.updateSegmentBinaryLabelmapFromArray(array, node, segmentId, volume)


def count(node, volume, labels=()) -> int:
    return corrections(node, MODEL, volume, wholeBox(volume), labels).voxels


def stroked() -> np.ndarray:
    stroke = np.zeros(blobs().shape, bool)
    stroke[STROKE] = True
    assert not (stroke & (blobs() > 0)).any()
    return stroke


# What counts as changed


def test_right_after_a_result_nothing_was_changed(node, volume):
    assert count(node, volume) == 0
    assert not editsOf(segmentOf(node, ANTERIOR)).changed.count


def test_added_and_removed_voxels_are_told_apart(node, volume):
    paint(node, ANTERIOR, volume, STROKE)
    paint(node, ANTERIOR, volume, (blobs() == 1) & (np.arange(12).reshape(-1, 1, 1) < 4), 0)
    removed = ((blobs() == 1) & (np.arange(12).reshape(-1, 1, 1) < 4)).sum()
    edits = editsOf(segmentOf(node, ANTERIOR))
    assert (edits.added.on(wholeBox(volume)) == stroked()).all()
    assert (edits.added.count, edits.removed.count) == (stroked().sum(), removed)
    assert count(node, volume) == stroked().sum() + removed
    assert count(node, volume, ["Posterior hippocampus"]) == 0


def test_a_voxel_moved_from_one_segment_to_the_other_counts_once(node, volume):
    z, y, x = np.argwhere(blobs() == 1)[0]
    place = (slice(z, z + 1), slice(y, y + 1), slice(x, x + 1))
    paint(node, ANTERIOR, volume, place, 0)
    paint(node, POSTERIOR, volume, place)
    assert count(node, volume) == 1
    assert corrections(node, MODEL, volume, wholeBox(volume)).millilitres == pytest.approx(0.8 * 1.1 * 2.5 / 1000)


def test_a_correction_that_is_taken_back_by_hand_is_none(node, volume):
    paint(node, ANTERIOR, volume, STROKE)
    paint(node, ANTERIOR, volume, STROKE, 0)
    assert count(node, volume) == 0


def test_undo_and_redo_keep_it_true(host, node, volume):
    editor = host.editor(node, volume)
    editor.SaveStateForUndo()
    paint(node, ANTERIOR, volume, STROKE)
    editor.Undo()
    assert count(node, volume) == 0
    editor.Redo()
    assert count(node, volume) == stroked().sum()


def test_undo_of_a_replacement_brings_back_the_corrections_of_the_result_before(host, node, volume):
    paint(node, ANTERIOR, volume, STROKE)
    editor = host.editor(node, volume)
    editor.SaveStateForUndo()
    write(blobs()[:, ::-1].copy(), volume, segmentationNode=node, overwriteCorrections=True)
    assert count(node, volume) == 0
    editor.Undo()
    assert count(node, volume) == stroked().sum()
    editor.Redo()
    assert count(node, volume) == 0


def test_a_segment_that_was_emptied_counts_with_all_its_voxels(node, volume):
    paint(node, ANTERIOR, volume, (slice(None),) * 3, 0)
    assert count(node, volume) == (blobs() == 1).sum()
    write(blobs(), volume, segmentationNode=node)
    assert not voxels(node, ANTERIOR, volume).any()


def test_it_survives_a_scene_file(host, node, volume, tmp_path):
    paint(node, POSTERIOR, volume, STROKE)
    host.saveBundle(tmp_path / "scene.mrb")
    host.openBundle(tmp_path / "scene.mrb")
    node = host.scene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    assert count(node, host.scene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")) == stroked().sum()


def test_it_survives_a_segmentation_file_and_collapsed_layers(node, volume, tmp_path):
    paint(node, POSTERIOR, volume, STROKE)
    node.GetSegmentation().CollapseBinaryLabelmaps(False)
    storage = node.CreateDefaultStorageNode()
    storage.SetFileName(str(tmp_path / "result.seg.nrrd"))
    assert storage.WriteData(node)
    again = slicer.modules.segmentations.logic().LoadSegmentationFromFile(str(tmp_path / "result.seg.nrrd"), True)
    assert count(again, volume) == stroked().sum()


def test_hardening_a_transform_is_no_correction(node, volume):
    paint(node, ANTERIOR, volume, STROKE)
    transform = transformNode(GRIDS["left-handed"])
    for one in (node, volume):
        one.SetAndObserveTransformNodeID(transform.GetID())
        one.HardenTransform()
    assert count(node, volume) == stroked().sum()


def test_only_what_lies_in_the_segmented_box_counts(node, volume):
    paint(node, ANTERIOR, volume, STROKE)
    box = (slice(0, 3), slice(0, 16), slice(0, 20))
    assert corrections(node, MODEL, volume, box).voxels == stroked()[box].sum()


# What the next result leaves alone


def test_replace_keeps_corrected_voxels_and_goes_on_keeping_them(node, volume):
    paint(node, ANTERIOR, volume, STROKE)
    later = blobs()[::-1].copy()
    for _ in range(2):
        write(later, volume, segmentationNode=node)
        assert (voxels(node, ANTERIOR, volume) == ((later == 1) & ~stroked() | stroked())).all()
        assert (voxels(node, POSTERIOR, volume) == ((later == 2) & ~stroked())).all()
        assert count(node, volume) == stroked().sum()


def test_replace_overwrites_corrected_voxels_on_request(node, volume):
    paint(node, ANTERIOR, volume, STROKE)
    later = blobs()[::-1].copy()
    write(later, volume, segmentationNode=node, overwriteCorrections=True)
    assert (voxels(node, ANTERIOR, volume) == (later == 1)).all()
    assert count(node, volume) == 0


def test_what_the_user_let_overlap_still_does(node, volume):
    for segmentId in (ANTERIOR, POSTERIOR):
        paint(node, segmentId, volume, STROKE)
    write(blobs(), volume, segmentationNode=node)
    for value, segmentId in enumerate((ANTERIOR, POSTERIOR), 1):
        assert (voxels(node, segmentId, volume) == (stroked() | (blobs() == value))).all()


def test_a_segment_of_an_older_usema_is_kept_and_the_result_stands_beside_it(node, volume):
    segmentOf(node, ANTERIOR).RemoveTag("USEMA.written")
    paint(node, ANTERIOR, volume, STROKE)
    before = voxels(node, ANTERIOR, volume)
    assert corrections(node, MODEL, volume, wholeBox(volume)).unknown == ["Anterior hippocampus"]
    write(blobs(), volume, segmentationNode=node)
    assert (voxels(node, ANTERIOR, volume) == before).all()
    assert node.GetSegmentation().GetSegmentIDs() == (ANTERIOR, POSTERIOR, f"{ANTERIOR}_1")
    assert (voxels(node, f"{ANTERIOR}_1", volume) == (blobs() == 1)).all()


# Whose a segment is


def test_a_copy_is_the_users(node, volume):
    segmentation = node.GetSegmentation()
    segmentation.CopySegmentFromSegmentation(segmentation, ANTERIOR)
    copy = segmentation.GetSegmentIDs()[-1]
    assert ownSegments(node, MODEL) == {1: ANTERIOR, 2: POSTERIOR}
    segmentation.RemoveSegment(ANTERIOR)
    assert ownSegments(node, MODEL) == {2: POSTERIOR}
    later = blobs()[::-1].copy()
    write(later, volume, segmentationNode=node)
    assert (voxels(node, copy, volume) == (blobs() == 1)).all()
    assert (voxels(node, ANTERIOR, volume) == (later == 1)).all()


def test_of_two_results_side_by_side_the_first_is_replaced_and_if_it_is_gone_the_other(node, volume):
    write(blobs(), volume, segmentationNode=node, existing="keep")
    assert ownSegments(node, MODEL) == {1: ANTERIOR, 2: POSTERIOR}
    node.GetSegmentation().RemoveSegment(ANTERIOR)
    assert ownSegments(node, MODEL) == {1: f"{ANTERIOR}_1", 2: POSTERIOR}
    later = blobs()[::-1].copy()
    write(later, volume, segmentationNode=node)
    assert node.GetSegmentation().GetNumberOfSegments() == 3
    assert (voxels(node, f"{ANTERIOR}_1", volume) == (later == 1)).all()
    assert (voxels(node, f"{POSTERIOR}_1", volume) == (blobs() == 2)).all()


def test_a_segment_that_another_program_left_as_real_numbers_is_compared_as_well(node, volume):
    image = node.GetSegmentation().GetSegment(ANTERIOR).GetRepresentation("Binary labelmap")
    values = image.GetPointData().GetScalars()
    image.GetPointData().SetScalars(numpy_to_vtk(vtk_to_numpy(values).astype(np.float32), deep=True))
    assert count(node, volume) == 0


@pytest.mark.parametrize("grid", GRIDS)
def test_a_result_of_the_command_line_is_redone_in_the_panel(host, tmp_path, grid):
    volume = addVolume(np.ones(blobs().shape, np.int16), GRIDS[grid], "Head")
    matrix = np.diag([-1.0, -1.0, 1.0, 1.0]) @ GRIDS[grid]
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    geometry = Geometry(blobs().shape[::-1], spacing, matrix[:3, 3], (matrix[:3, :3] / spacing).ravel())
    path = tmp_path / "result.seg.nrrd"
    write_segmentation(path, blobs(), geometry, MODEL.labels, PROVENANCE)
    node = slicer.modules.segmentations.logic().LoadSegmentationFromFile(str(path), True)
    fresh = write(blobs(), volume)
    for segmentId in (ANTERIOR, POSTERIOR):
        one, other = segmentOf(node, segmentId), segmentOf(fresh, segmentId)
        assert one.GetName() == other.GetName()
        assert np.allclose(one.GetColor(), other.GetColor(), atol=1e-6)
        for key in ("label", "id", *PROVENANCE):
            assert tagOf(one, key) == tagOf(other, key) != ""
        assert (editsOf(one).written.on(wholeBox(volume)) == editsOf(other).written.on(wholeBox(volume))).all()
    paint(node, ANTERIOR, volume, STROKE)
    later = blobs()[::-1].copy()
    assert write(later, volume, segmentationNode=node) is node
    assert node.GetSegmentation().GetSegmentIDs() == (ANTERIOR, POSTERIOR)
    assert (voxels(node, ANTERIOR, volume) == (stroked() | (later == 1))).all()
    assert (voxels(node, POSTERIOR, volume) == (~stroked() & (later == 2))).all()


# Its text


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (8, 8, 8)])
def test_a_mask_comes_back_from_its_text(shape):
    array = np.random.default_rng(0).random(shape) < 0.5
    array[0, 0, 0] = array[-1, -1, -1] = True
    text = mask_to_text(PlacedMask(array, (-3, 4, 5)), GRIDS["oblique"])
    assert not set("|:\n") & set(text)
    mask, affine = text_to_mask(text)
    assert mask.start == (-3, 4, 5)
    assert (mask.array == array).all()
    assert (affine == GRIDS["oblique"]).all()


def test_a_text_that_is_damaged_is_none(node):
    good = tagOf(segmentOf(node, ANTERIOR), "written")
    parts = good.split(" ")
    bomb = " ".join([*parts[:4], "100000", "100000", "100000", *parts[7:]])
    for bad in (
        "",
        "2" + good[1:],
        good[:-8],
        good[:-8] + "AAAAAAAA",
        bomb,
        good.replace(parts[4], "-1", 1),
        "1 x" * 20,
    ):
        with pytest.raises(ValueError, match=r"mask|int|could not convert"):
            text_to_mask(bad)
        segmentOf(node, ANTERIOR).SetTag("USEMA.written", bad)
        assert editsOf(segmentOf(node, ANTERIOR)) is None
