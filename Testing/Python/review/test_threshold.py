"""The threshold on the margins of a real result, in a real scene: what it changes, keeps, and takes back."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from review_cases import ANTERIOR, POSTERIOR
from usema.errors import InputError
from usema.volumes.segments import millilitres
from USEMASegmentationLib.Review.Threshold import LiveThreshold, apply, probabilityOf
from USEMASegmentationLib.Scene import KeptMargins
from USEMASegmentationLib.Scene.ReviewCase import casesOf

pytest_plugins = ["slicer_fixtures", "review_fixtures"]

STROKE = (slice(2, 5), slice(2, 5), slice(2, 5))  # far from what the model found


def ml(scene, segmentId=ANTERIOR) -> float:
    return millilitres(int(scene.voxels(segmentId).sum()), scene.volume.GetSpacing())


def test_without_steps_it_is_the_result(scene):
    for value, segmentId in ((1, ANTERIOR), (2, POSTERIOR)):
        live = LiveThreshold.of(scene.case(), value)
        assert (live.mask(0) == scene.voxels(segmentId)[live.box]).all()
        assert live.millilitres(0) == pytest.approx(ml(scene, segmentId))
    assert apply(scene.case(), 2, 0) == 0
    assert not scene.editor.CanUndo()


def test_more_steps_let_it_grow_into_what_the_others_lose_and_fewer_give_it_back(scene):
    before = scene.both()
    live = LiveThreshold.of(scene.case(), 1)
    sizes = [live.millilitres(steps) for steps in (-64, -16, 0, 16, 64)]
    assert sizes == sorted(set(sizes))
    changed = apply(scene.case(), 1, 16)
    grown = scene.both()
    assert (grown == 1)[before == 1].all()
    assert not scene.voxels(ANTERIOR)[scene.voxels(POSTERIOR)].any()
    assert changed == ((grown == 1) != (before == 1)).sum() > 50
    assert ((before == 2) & (grown == 1)).any()
    assert ml(scene) == pytest.approx(live.millilitres(16))
    assert scene.case().thresholds == {1: 16}
    apply(scene.case(), 1, -16)
    shrunk = scene.both()
    assert (shrunk == 2)[before == 2].all()
    assert ((before == 1) & (shrunk == 2)).any()
    assert ((before == 1) & (shrunk == 0)).any()
    apply(scene.case(), 1, 0)
    assert (scene.both() == before).all()


def test_what_it_wins_is_what_the_calibrated_probabilities_say(scene):
    node = scene.segment(keepProbabilities=True)
    number = node.GetNumberOfNodeReferences("USEMA.probability")
    labels = [slicer.util.arrayFromVolume(node.GetNthNodeReference("USEMA.probability", n)) for n in range(number)]
    probabilities = np.maximum(np.stack([1 - sum(labels), *labels]).astype(float), 1e-6)
    scene.node = node
    scene.edit()
    apply(scene.case(), 1, 20)
    apply(scene.case(), 2, -12)
    scores = np.log(probabilities) + np.reshape([0, 20 / 16, -12 / 16], (3, 1, 1, 1))
    best = np.sort(scores, axis=0)
    clear = best[-1] - best[-2] > 0.2  # nearer than three steps, rounding decides
    assert (scene.both() == scores.argmax(0))[clear].all()


def test_undo_and_redo_lead_through_the_positions(scene):
    first = scene.both()
    apply(scene.case(), 1, 16)
    second = scene.both()
    apply(scene.case(), 2, 24)
    third = scene.both()
    scene.editor.Undo()
    assert (scene.both() == second).all()
    assert scene.case().thresholds == {1: 16}
    scene.editor.Undo()
    assert (scene.both() == first).all()
    assert scene.case().thresholds == {}
    scene.editor.Redo()
    scene.editor.Redo()
    assert (scene.both() == third).all()
    assert scene.case().thresholds == {1: 16, 2: 24}


def test_what_the_user_changed_stays_and_what_it_changed_counts_as_the_models(scene):
    scene.paint(STROKE)
    z, y, x = np.argwhere(scene.voxels(POSTERIOR))[100]
    erased = (slice(z - 1, z + 2), slice(y - 1, y + 2), slice(x - 1, x + 2))
    scene.paint(erased, POSTERIOR, 0)
    edited = np.zeros(scene.both().shape, bool)
    for edits in scene.case().edits().values():
        edited |= edits.changed.on(tuple(slice(0, length) for length in edited.shape))
    before = scene.both()
    assert apply(scene.case(), 1, 64)
    assert apply(scene.case(), 2, -64)
    assert (scene.both() == before)[edited].all()
    again = np.zeros_like(edited)
    for edits in scene.case().edits().values():
        again |= edits.changed.on(tuple(slice(0, length) for length in edited.shape))
    assert (again == edited).all()


def test_segments_of_others_are_left_alone(scene):
    other = np.zeros(scene.both().shape, np.uint8)
    other[LiveThreshold.of(scene.case(), 1).box] = LiveThreshold.of(scene.case(), 1).mask(64)
    other[scene.both() > 0] = 0
    name = scene.node.GetSegmentation().AddEmptySegment("mine")
    slicer.util.updateSegmentBinaryLabelmapFromArray(other, scene.node, name, scene.volume)
    before = scene.voxels(name)
    apply(scene.case(), 1, 64)
    assert (scene.voxels(name) == before).all()
    assert not scene.voxels(ANTERIOR)[before].any()


@pytest.mark.parametrize("steps", [48, -48])
def test_masks_are_kept_to(scene, steps):
    nodes, before = slicer.vtkMRMLSegmentationNode, scene.both()
    allowed = np.zeros(before.shape, np.uint8)
    allowed[:, :, : before.shape[2] // 2] = 1
    name = scene.node.GetSegmentation().AddEmptySegment("here")
    slicer.util.updateSegmentBinaryLabelmapFromArray(allowed, scene.node, name, scene.volume)
    scene.editorNode.SetOverwriteMode(slicer.vtkMRMLSegmentEditorNode.OverwriteNone)
    scene.editorNode.SetMaskMode(nodes.EditAllowedInsideSingleSegment)
    scene.editorNode.SetMaskSegmentID(name)
    low, high = 0, float(np.median(slicer.util.arrayFromVolume(scene.volume)))
    scene.editorNode.SourceVolumeIntensityMaskOn()
    scene.editorNode.SetSourceVolumeIntensityMaskRange(low, high)
    changed = apply(scene.case(), 1, steps)
    image = slicer.util.arrayFromVolume(scene.volume)
    may = (allowed > 0) & (image >= low) & (image <= high)
    different = scene.both() != before
    assert changed
    assert different.any()
    assert not different[~may].any()
    assert (scene.voxels(name) == (allowed > 0)).all()


def test_segments_overlap_where_the_user_lets_them(scene):
    before = scene.voxels(POSTERIOR)
    scene.editorNode.SetOverwriteMode(slicer.vtkMRMLSegmentEditorNode.OverwriteNone)
    apply(scene.case(), 1, 32)
    assert (scene.voxels(POSTERIOR) == before).all()
    assert (scene.voxels(ANTERIOR) & before).any()


def test_it_goes_on_after_saving_and_loading(scene, tmp_path):
    before = scene.both()
    apply(scene.case(), 1, 16)
    scene.paint(STROKE)
    there = scene.both()
    scene.reload(tmp_path / "scene.mrb")
    assert (scene.both() == there).all()
    assert scene.case().thresholds == {1: 16}
    apply(scene.case(), 1, 0)
    before[STROKE] = 1
    assert (scene.both() == before).all()


def test_the_next_result_begins_anew_and_undo_leads_back_to_the_margins_before(scene):
    apply(scene.case(), 1, 16)
    there, tag = scene.both(), scene.case().tag
    scene.logic.beforeWriting = lambda node: scene.editor.SaveStateForUndo()
    scene.segment(segmentation=scene.node)
    assert scene.case().tag != tag
    assert scene.case().thresholds == {}
    scene.editor.Undo()
    assert scene.case().tag == tag
    assert scene.case().thresholds == {1: 16}
    assert (scene.both() == there).all()
    assert len(KeptMargins.nodesByRun(scene.node)) == 2
    scene.editor.Redo()
    scene.segment(segmentation=scene.node)
    assert len(KeptMargins.nodesByRun(scene.node)) == 2  # of the result before and of this one


def test_margins_are_in_no_list_of_the_application(scene):
    hidden = []

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def added(_scene, _event, node):
        hidden.append((node.GetClassName(), node.GetHideFromEditors()))  # lists look at it now alone

    tag = slicer.mrmlScene.AddObserver(slicer.mrmlScene.NodeAddedEvent, added)
    scene.segment()
    slicer.mrmlScene.RemoveObserver(tag)
    assert ("vtkMRMLTextNode", 1) in hidden


def test_margins_go_with_their_segmentation_and_stay_with_a_copy_of_it(scene):
    copy = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    copy.Copy(scene.node)
    for _ in range(3):
        scene.segment(segmentation=scene.node)
    assert apply(casesOf(copy)[0][0], 1, 16)
    for node in (scene.node, copy):
        slicer.mrmlScene.RemoveNode(node)
    scene.segment()
    assert len(slicer.util.getNodesByClass("vtkMRMLTextNode")) == 1


def test_a_result_in_a_region_has_its_margins_there_and_the_earlier_ones_around(scene):
    roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode")
    bounds = np.zeros(6)
    scene.volume.GetRASBounds(bounds)
    middle, size = (bounds[::2] + bounds[1::2]) / 2, bounds[1::2] - bounds[::2]
    roi.SetCenter(*middle)
    roi.SetSize(*(size * [1, 0.5, 1]))
    before = scene.case()
    scene.segment(segmentation=scene.node, roi=roi)
    after = scene.case()
    assert after.tag.split()[1:] == [before.tag]
    for value in (1, 2):
        live = LiveThreshold.of(after, value)
        assert (live.mask(0) == scene.voxels((ANTERIOR, POSTERIOR)[value - 1])[live.box]).all()
    assert apply(after, 1, 16)


def test_a_state_that_cannot_be_saved_for_undo_changes_nothing(scene):
    before = scene.both()
    (case,), _ = casesOf(scene.node, lambda node: False)
    with pytest.raises(InputError, match="could not be saved for undo"):
        apply(case, 1, 16)
    assert (scene.both() == before).all()


def test_a_result_without_margins_says_so(scene):
    node = scene.segment(keepMargins=False)
    cases, reason = casesOf(node)
    assert not cases
    assert "has not been kept" in reason
    scene.host.scene.RemoveNode(KeptMargins.nodesByRun(scene.node).popitem()[1])
    assert casesOf(scene.node) == ([], "how sure the model was is not in the scene any more")


def test_the_position_is_told_as_a_probability():
    assert [round(probabilityOf(logits), 2) for logits in (-4, 0, 4)] == [0.98, 0.5, 0.02]
