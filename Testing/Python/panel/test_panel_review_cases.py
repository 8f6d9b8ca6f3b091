"""The section Review and refine where the scene is another than usual: what cannot be done says why, nothing breaks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import slicer
import slicer.util
from panel_cases import isShown, loadSample, sequenceOf, waitUntil
from review_cases import ANTERIOR, METADATA, POSTERIOR, writeFound
from slicer_cases import GRIDS, addVolume, voxels
from usema.volumes.margins import Margins, PlacedMargins
from USEMASegmentationLib.Parameters import Parameters
from USEMASegmentationLib.Scene import KeptMargins, ResultWriter
from USEMASegmentationLib.Scene.SegmentVoxels import newImage
from USEMASegmentationLib.Scene.VolumeBridge import ijkToRas, wholeBox

pytest_plugins = ["panel_fixtures", "review_fixtures"]


def segmentsToChooseFrom(panel) -> list[str]:
    selector = panel.reviewSection.ui.thresholdSelector
    return [selector.itemText(row) for row in range(selector.count)]


def move(panel, logits: float) -> None:
    panel.reviewSection.ui.thresholdSlider.value = logits
    panel.reviewSection.ui.thresholdApplyButton.click()


def test_a_copy_of_a_segment_is_the_users_and_stays_as_it_is(reviewed):
    panel, volume, node = reviewed
    copy = slicer.vtkSegment()
    copy.DeepCopy(node.GetSegmentation().GetSegment(ANTERIOR))
    copy.SetName("Mine")
    node.GetSegmentation().AddSegment(copy, "mine")
    slicer.app.processEvents()
    assert segmentsToChooseFrom(panel) == ["Anterior hippocampus", "Posterior hippocampus"]
    before = voxels(node, "mine", volume)
    move(panel, -1.0)
    assert (voxels(node, "mine", volume) == before).all()
    assert voxels(node, ANTERIOR, volume).sum() < before.sum()


def test_a_segment_that_is_renamed_or_removed_is_known_at_once(reviewed):
    panel, _, node = reviewed
    ui, segmentation = panel.reviewSection.ui, node.GetSegmentation()
    ui.thresholdSelector.setCurrentIndex(1)
    ui.findRegionsButton.click()
    segmentation.GetSegment(POSTERIOR).SetName("Tail")
    slicer.app.processEvents()
    assert segmentsToChooseFrom(panel) == ["Anterior hippocampus", "Tail"]
    assert ui.thresholdSelector.currentText == "Tail"
    segmentation.RemoveSegment(ANTERIOR)
    slicer.app.processEvents()
    assert segmentsToChooseFrom(panel) == ["Tail"]
    move(panel, 1.0)
    assert panel.ui.messageLabel.text == ""
    segmentation.RemoveSegment(POSTERIOR)
    slicer.app.processEvents()
    assert "No segment of this segmentation was made by a model" in ui.reviewHintLabel.text
    assert not isShown(ui.thresholdGroup)


def test_without_its_volume_or_with_another_part_of_it_a_result_says_so(reviewed):
    panel, volume, node = reviewed
    ui = panel.reviewSection.ui
    array, before = slicer.util.arrayFromVolume(volume).copy(), voxels(node, ANTERIOR, volume)
    slicer.util.updateVolumeFromArray(volume, array[:, :10].copy())
    ui.findRegionsButton.click()  # nobody told the panel
    assert "other voxels than when it was segmented" in ui.reviewHintLabel.text
    slicer.util.updateVolumeFromArray(volume, array)
    panel.updateState()
    assert isShown(ui.thresholdGroup)
    origin = volume.GetOrigin()
    volume.SetOrigin(origin[0] + 2 * volume.GetSpacing()[0], *origin[1:])
    ui.findRegionsButton.click()
    assert "other voxels than when it was segmented" in ui.reviewHintLabel.text
    volume.SetOrigin(*origin)
    panel.updateState()
    assert isShown(ui.thresholdGroup)
    ui.thresholdSlider.value = 1.0
    going, parameters = slicer.mrmlScene.NodeAboutToBeRemovedEvent, panel._parameterNode
    # as the panel's list does in the application, where that is still in the scene
    tag = slicer.mrmlScene.AddObserver(going, lambda *_: setattr(parameters, "inputVolume", None))
    slicer.mrmlScene.RemoveNode(volume)
    slicer.mrmlScene.RemoveObserver(tag)
    slicer.app.processEvents()
    assert not slicer.util.getNodes("USEMA preview*")
    assert "no volume in the scene belongs to it" in ui.reviewHintLabel.text
    assert not isShown(ui.regionsGroup)
    assert before.any()


def test_segments_that_are_no_voxels_of_the_volume_any_more_say_so_at_once(reviewed):
    panel, volume, node = reviewed
    ui, segmentation, toRas = panel.reviewSection.ui, node.GetSegmentation(), ijkToRas(volume)
    finer = toRas @ np.diag([0.5, 0.5, 0.5, 1])
    for one in (ANTERIOR, POSTERIOR):  # as *Specify geometry* of the Segment Editor does it
        array = voxels(node, one, volume).repeat(2, 0).repeat(2, 1).repeat(2, 2).view(np.uint8)
        segmentation.SeparateSegmentLabelmap(one)
        box = tuple(slice(0, length) for length in array.shape)
        segmentation.GetSegment(one).AddRepresentation("Binary labelmap", newImage(array, box, finer))
        segmentation.GetSegment(one).SetLabelValue(1)
    segmentation.InvokeEvent(segmentation.SourceRepresentationModified)
    slicer.app.processEvents()
    assert "its segments lie on another grid than the volume" in ui.reviewHintLabel.text
    assert not isShown(ui.thresholdGroup)
    node.CreateClosedSurfaceRepresentation()
    node.SetSourceRepresentationToClosedSurface()
    slicer.app.processEvents()
    assert "it is stored as 'Closed surface', not as voxels" in ui.reviewHintLabel.text


def test_two_results_are_reviewed_together_and_each_keeps_its_own_voxels(reviewed, found):
    panel, volume, node = reviewed
    ui = panel.reviewSection.ui
    ui.findRegionsButton.click()
    count = len(panel.reviewSection.regions.review.items)
    options = {"inputVolume": volume, "segmentation": node, "existing": "keep"}
    parameters = Parameters.fromWords({**options, "labels": [label.name for label in found.model_labels]})
    result = ResultWriter.Result(
        found.labels, None, found.provenance, METADATA, wholeBox(volume), found.margins.to_text()
    )
    ResultWriter.write(result, parameters)
    slicer.app.processEvents()
    assert segmentsToChooseFrom(panel)[2:] == ["Anterior hippocampus (2)", "Posterior hippocampus (2)"]
    ui.thresholdSelector.setCurrentIndex(2)
    ids = list(node.GetSegmentation().GetSegmentIDs())
    before = {one: voxels(node, one, volume) for one in ids}
    move(panel, -1.5)
    changed = [one for one in ids if (voxels(node, one, volume) != before[one]).any()]
    assert ids[2] in changed
    assert not {ANTERIOR, POSTERIOR} & set(changed)
    assert ui.thresholdSelector.currentIndex == 2
    ui.findRegionsButton.click()
    assert len(panel.reviewSection.regions.review.items) > count


def test_what_was_made_of_another_volume_is_reviewed_on_that_one(reviewed, found):
    panel, volume, node = reviewed
    darker = slicer.util.arrayFromVolume(volume) // 2
    other = addVolume(darker, ijkToRas(volume), "Second sequence")  # as T2 after T1, on one grid
    labels = [label.name for label in found.model_labels]
    options = {"inputVolume": other, "segmentation": node, "existing": "replace", "labels": labels}
    margins = found.margins.to_text()
    result = ResultWriter.Result(found.labels, None, found.provenance, METADATA, wholeBox(other), margins)
    assert ResultWriter.write(result, Parameters.fromWords(options)).segmentation is node
    slicer.app.processEvents()
    assert [case.volume for case in panel.reviewSection.cases] == [other]
    move(panel, -1.5)  # what it leaves is of that volume, too
    assert [case.volume for case in panel.reviewSection.cases] == [other]
    slicer.mrmlScene.RemoveNode(other)
    slicer.app.processEvents()
    panel.updateState()
    assert (
        "'Second sequence', which it was made of, is not in the scene any more"
        in panel.reviewSection.ui.reviewHintLabel.text
    )
    assert not panel.reviewSection.cases


def writeSixClasses(volume):
    """A result of a model of six classes, which doubts at their borders."""
    rng, shape = np.random.default_rng(0), slicer.util.arrayFromVolume(volume).shape
    labels = np.zeros(shape, np.uint8)
    for value in range(1, 7):
        labels[2:-2, 4:-4, 5 * value : 5 * value + 5] = value
    parts = {}
    for value in range(7):
        sure = np.where(labels == value, rng.integers(0, 40, shape), rng.integers(-40, 0, shape))
        parts[value] = PlacedMargins(sure.astype(np.int8), (0, 0, 0))
    label = METADATA.labels[0]
    several = tuple(replace(label, value=value, name=f"Class {value}") for value in range(1, 7))
    metadata = replace(METADATA, name="six", labels=several)
    text = Margins(shape, parts).to_text()
    result = ResultWriter.Result(labels, None, {"model": "six"}, metadata, wholeBox(volume), text)
    return ResultWriter.write(result, Parameters.fromWords({"inputVolume": volume})).segmentation


def test_six_classes_of_a_volume_that_lies_askew_and_a_view_that_is_hidden(app, openPanel):
    panel = openPanel()
    array = np.random.default_rng(0).normal(0, 1, (12, 24, 40)).astype(np.float32)
    volume = addVolume(array, GRIDS["oblique"])
    panel._parameterNode.segmentation = node = writeSixClasses(volume)
    ui = panel.reviewSection.ui
    ui.reviewCollapsibleButton.collapsed = False
    shown, hidden = (slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceNode") for _ in range(2))
    shown.SetFieldOfView(200, 100, 1)
    hidden.SetFieldOfView(0, 0, 1)
    hidden.SetMappedInLayout(0)
    assert segmentsToChooseFrom(panel) == [f"Class {value}" for value in range(1, 7)]
    ui.thresholdSelector.setCurrentIndex(3)
    before = voxels(node, "six_4", volume)
    move(panel, 1.0)
    after = voxels(node, "six_4", volume)
    assert after[before].all()
    assert after.sum() > before.sum()
    everything = sum(voxels(node, f"six_{value}", volume).astype(int) for value in range(1, 7))
    assert everything.max() == 1
    ui.findRegionsButton.click()
    region = panel.reviewSection.regions.review.current.region
    expected = GRIDS["oblique"] @ [*region.middle[::-1], 1]
    middle = [shown.GetSliceToRAS().GetElement(row, 3) for row in range(3)]
    np.testing.assert_allclose(middle, expected[:3], atol=0.01)
    assert hidden.GetFieldOfView()[:2] == (0, 0)
    panel.exit()
    assert shown.GetFieldOfView()[:2] == (200, 100)


def test_a_frame_of_a_sequence_is_reviewed_while_it_is_shown(app, openPanel, found):
    panel = openPanel()
    browser, volume = sequenceOf(loadSample(app))
    browser.SetSelectedItemNumber(1)
    slicer.modules.sequences.logic().UpdateAllProxyNodes()
    panel._parameterNode.segmentation = node = writeFound(found, volume)
    ui = panel.reviewSection.ui
    ui.reviewCollapsibleButton.collapsed = False
    assert isShown(ui.refineGroup)
    before = voxels(node, ANTERIOR, volume)
    browser.SetSelectedItemNumber(0)
    slicer.modules.sequences.logic().UpdateAllProxyNodes()
    move(panel, 2.0)
    assert "it is of the frame 10" in ui.reviewHintLabel.text
    assert (voxels(node, ANTERIOR, volume) == before).all()
    browser.SetSelectedItemNumber(1)
    slicer.modules.sequences.logic().UpdateAllProxyNodes()
    panel.updateState()
    assert isShown(ui.refineGroup)


def test_all_frames_at_once_and_a_scene_of_an_older_version_say_why_not(reviewed):
    panel, _, node = reviewed
    ui, segmentation = panel.reviewSection.ui, node.GetSegmentation()
    for one in (ANTERIOR, POSTERIOR):
        segmentation.GetSegment(one).RemoveTag("USEMA.run")
    panel.updateState()
    assert "has not been kept, as by an older USEMA" in ui.reviewHintLabel.text
    for one in (ANTERIOR, POSTERIOR):
        segmentation.GetSegment(one).SetTag("USEMA.frame", "0")
    panel.reviewSection.close()
    panel.reviewSection.show(node)
    assert "segment this frame alone" in ui.reviewHintLabel.text


def test_margins_that_are_gone_or_damaged_say_so(reviewed):
    panel, _, node = reviewed
    ui = panel.reviewSection.ui
    (margins,) = KeptMargins.nodesByRun(node).values()
    margins.SetText("nothing")
    panel.reviewSection.close()
    panel.reviewSection.show(node)
    assert "this result cannot be reviewed" in ui.reviewHintLabel.text.lower()
    slicer.mrmlScene.RemoveNode(margins)
    panel.reviewSection.close()
    panel.reviewSection.show(node)
    assert "not in the scene any more" in ui.reviewHintLabel.text


def test_a_stroke_after_all_is_removed_breaks_nothing(reviewed):
    panel, _, node = reviewed
    panel.reviewSection.ui.thresholdSlider.value = 1.0
    slicer.mrmlScene.RemoveNode(node)
    waitUntil(lambda: not isShown(panel.reviewSection.ui.thresholdGroup))
    assert "Segment first" in panel.reviewSection.ui.reviewHintLabel.text
