"""Learning from corrections by the real engine, on a real result in a real scene: what changes, what stays."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
import slicer
import slicer.util
from review_cases import ANTERIOR
from slicer_cases import children, complete, pollUntil, statusOf
from usema.errors import InputError
from usema.serving.client import WorkerClient
from usema.serving.protocol import RunOptions
from USEMASegmentationLib.LearnTask import LEARNED, whyNot
from USEMASegmentationLib.Logic import USEMASegmentationLogic
from USEMASegmentationLib.Review.GuidedReview import GuidedReview
from USEMASegmentationLib.Review.Slices import accept, slicesOf
from USEMASegmentationLib.Review.Threshold import LiveThreshold
from USEMASegmentationLib.Scene import KeptDelta
from USEMASegmentationLib.Scene.EditMask import tagOf

pytest_plugins = ["slicer_fixtures", "review_fixtures"]

QUICK = RunOptions("cpu", overlap=0.0)


@pytest.fixture
def corrected(scene):
    """The user has given the anterior part of two slices to background, and accepted a third."""
    middle = int(np.argwhere(scene.voxels(ANTERIOR)).mean(axis=0)[0])
    for index in (middle - 2, middle + 2):
        place = np.zeros(scene.both().shape, bool)
        place[index] = scene.voxels(ANTERIOR)[index]
        scene.paint(place, value=0)
    return scene


def learn(scene, **options) -> int:
    return scene.logic.learning.learn(scene.case(), options=QUICK, **options)


def yes(question: str) -> bool:
    return True


def test_the_rest_follows_and_corrections_and_accepted_slices_stay(corrected):
    scene, before = corrected, corrected.both()
    accept(scene.case(), 0, 3)
    edits = {value: one.changed.on(scene.case().box) for value, one in scene.case().edits().items()}
    slices = [(one.axis, one.index) for one in slicesOf(scene.case()) if one.ticked]
    assert len(slices) == 3
    changed = learn(scene, ask=yes)
    after = scene.both()
    assert changed == (after != before).sum() > 0
    for axis, index in slices:
        assert (np.take(after, index, axis) == np.take(before, index, axis)).all()
    edited = np.any(list(edits.values()), axis=0)
    assert (after == before)[edited].all()
    again = np.any([one.changed.on(scene.case().box) for one in scene.case().edits().values()], axis=0)
    assert (again == edited).all()
    segment = scene.node.GetSegmentation().GetSegment(ANTERIOR)
    assert tagOf(segment, "adaptation") == "propagated"
    assert tagOf(segment, "adaptedFrom").startswith("axis 0: 3, ")
    live = LiveThreshold.of(scene.case(), 1)
    assert (live.mask(0) == scene.voxels(ANTERIOR)[live.box]).all()  # the margins are those of the new result


def test_it_is_one_step_of_undo_and_is_saved_with_the_scene_and_segmenting_again_can_begin_with_it(corrected, tmp_path):
    scene, before = corrected, corrected.both()
    GuidedReview([scene.case()]).search()
    tag = scene.case().tag
    complete(scene.node, ANTERIOR)
    learn(scene, ask=yes, way=LEARNED)
    assert statusOf(scene.node, ANTERIOR) == "inprogress"  # nobody has looked at what it is now
    after, kept = scene.both(), scene.case().delta
    assert kept.slices == tagOf(scene.node.GetSegmentation().GetSegment(ANTERIOR), "adaptedFrom")
    assert not GuidedReview([scene.case()]).searched
    assert len(slicesOf(scene.case())) == 2
    scene.editor.Undo()
    assert (scene.both() == before).all()
    assert statusOf(scene.node, ANTERIOR) == "completed"
    assert scene.case().tag == tag
    assert scene.case().delta is None
    assert GuidedReview([scene.case()]).searched
    scene.editor.Redo()
    assert (scene.both() == after).all()
    assert scene.case().delta == kept

    scene.reload(tmp_path / "scene.mrb")
    assert (scene.both() == after).all()
    assert scene.case().delta == kept
    scene.segment(segmentation=scene.node)
    plain, segment = scene.both(), scene.node.GetSegmentation().GetSegment(ANTERIOR)
    assert not tagOf(segment, "deltaSha256")
    assert not scene.node.GetAttribute("USEMA.deltaSha256")
    assert scene.case().delta == kept
    KeptDelta.use(scene.node, scene.case().tag, True)
    scene.segment(segmentation=scene.node)
    assert (scene.both() != plain).any()
    assert tagOf(segment, "deltaSha256")
    assert scene.case().delta.text == kept.text
    KeptDelta.forget(scene.node, scene.case().tag)
    assert scene.case().delta is None


def test_masks_segments_of_others_and_what_is_drawn_meanwhile_are_kept_to(corrected):
    scene, before = corrected, corrected.both()
    allowed = np.zeros(before.shape, np.uint8)
    allowed[:, :, : before.shape[2] // 2] = 1
    name = scene.editOnlyIn(allowed)
    drawn = (slice(2, 5), slice(2, 6), slice(2, 6))
    scene.logic.learning.start(scene.case(), QUICK)
    scene.paint(drawn)
    scene.logic.learning.finish(lambda: scene.logic.learning.answer(True))
    assert scene.voxels(ANTERIOR)[drawn].all()
    different = scene.both() != before
    different[drawn] = False
    assert different.any()
    assert not different[allowed == 0].any()
    assert (scene.voxels(name) == (allowed > 0)).all()


def test_a_worker_that_is_killed_changes_nothing_and_the_next_one_learns(corrected):
    scene, before = corrected, corrected.both()
    running = children()
    with USEMASegmentationLogic(WorkerClient(environment={"OMP_NUM_THREADS": "1"})) as logic:
        logic.learning.start(scene.case(), QUICK)
        (process,) = children() - running
        os.kill(process, signal.SIGKILL)
        assert pollUntil(logic.learning, "failed").code == "worker-died"
        assert (scene.both() == before).all()
        assert logic.learning.learn(scene.case(), options=QUICK, ask=yes) > 0


def test_what_cannot_be_learned_from_says_why(scene):
    assert "No slice is ticked" in whyNot(scene.case(), [])
    with pytest.raises(InputError, match="No slice is ticked"):
        learn(scene)
    accept(scene.case(), 0, 5)
    assert whyNot(scene.case(), slicesOf(scene.case())) == ""
    scene.editorNode.SourceVolumeIntensityMaskOn()
    other = slicer.util.addVolumeFromArray(np.zeros((3, 3, 3), np.uint8))
    scene.editor.SetSourceVolumeNode(other)
    with pytest.raises(InputError, match="intensity range"):
        learn(scene)
    for one in scene.node.GetSegmentation().GetSegmentIDs():
        scene.node.GetSegmentation().GetSegment(one).SetTag("USEMA.weightsSha256", "0" * 64)
    assert "Another version of the model" in whyNot(scene.case(), slicesOf(scene.case()))
