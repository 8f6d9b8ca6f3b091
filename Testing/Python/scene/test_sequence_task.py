"""All frames of a real sequence in a real scene, with the real worker: what the user looks at stays as it is."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import slicer
import slicer.util
from image_models import blobs, write_disc_counter
from slicer_cases import addVolume, pollUntil, transformNode
from usema.errors import InputError
from USEMASegmentationLib import SequenceTask
from USEMASegmentationLib.Scene.EditMask import tagOf
from USEMASegmentationLib.Scene.ReviewCase import casesOf
from USEMASegmentationLib.Scene.SegmentVoxels import arrayOf

pytest_plugins = ["slicer_fixtures"]

FRAMES = 3
IJK_TO_RAS = np.array([[-0.9, 0, 0, 5], [0, -1.0, 0, 7], [0, 0, 1.5, 9], [0, 0, 0, 1.0]])


@pytest.fixture
def sequence(host):
    """(browser, the volume that shows frame 2 of 3): pieces with a bright box that grows."""
    random = np.random.default_rng(0)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "Heart")
    node.SetIndexName("time")
    node.SetIndexUnit("ms")
    for number in range(FRAMES):
        array = random.integers(0, 100, (8, 20, 24)).astype(np.int16)
        array[2:5, 4 : 8 + 4 * number, 5:15] += 500
        frame = addVolume(array, IJK_TO_RAS, "Heart")
        node.SetDataNodeAtValue(frame, str(40 * number))
        slicer.mrmlScene.RemoveNode(frame)
    browser = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode")
    browser.SetAndObserveMasterSequenceNodeID(node.GetID())
    slicer.modules.sequences.logic().UpdateAllProxyNodes()
    browser.SetSelectedItemNumber(1)
    return browser, browser.GetProxyNode(node)


def volumesOf(node) -> dict[str, int]:
    """Voxels of each segment."""
    segmentation, found = node.GetSegmentation(), {}
    for name in segmentation.GetSegmentIDs():
        segment = segmentation.GetSegment(name)
        array = arrayOf(segment.GetRepresentation("Binary labelmap"))
        found[segment.GetName()] = int((array == segment.GetLabelValue()).sum())
    return found


def test_every_frame_becomes_a_segmentation_that_follows_the_browser(logic, sequence):
    browser, volume = sequence
    shown = slicer.util.arrayFromVolume(volume).copy()
    node = logic.segment(volume, "tiny", allFrames=True)
    assert browser.GetSelectedItemNumber() == 1
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(volume), shown)
    results = browser.GetSequenceNode(node)
    assert results.GetNumberOfDataNodes() == FRAMES
    assert [results.GetNthIndexValue(i) for i in range(FRAMES)] == ["0", "40", "80"]
    assert (results.GetIndexName(), results.GetIndexUnit()) == ("time", "ms")
    alone = []
    for number in range(FRAMES):
        browser.SetSelectedItemNumber(number)
        slicer.modules.sequences.logic().UpdateAllProxyNodes()
        assert volumesOf(node) == volumesOf(results.GetNthDataNode(number))
        segment = node.GetSegmentation().GetNthSegment(0)
        assert tagOf(segment, "frame") == str(40 * number)
        assert tagOf(segment, "model") == "tiny" or tagOf(segment, "model")
        alone.append(volumesOf(logic.segment(volume, "tiny")))
        assert volumesOf(node) == alone[-1]
    assert len({tuple(one.values()) for one in alone}) > 1
    assert browser.GetSaveChanges(results)
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    assert node.GetNodeReference(role) is volume
    assert logic.status.state == "done"


def test_a_second_run_of_all_frames_has_a_name_of_its_own(logic, sequence):
    first, second = (logic.segment(sequence[1], "tiny", allFrames=True) for _ in range(2))
    assert first.GetName() != second.GetName()


def test_volumes_over_time_are_a_table_and_a_plot(logic, sequence):
    browser, volume = sequence
    node = logic.segment(volume, "tiny", allFrames=True)
    (table,) = (one for one in slicer.util.getNodesByClass("vtkMRMLTableNode") if "volumes" in one.GetName())
    assert [table.GetCellText(row, 0) for row in range(FRAMES)] == ["0", "40", "80"]
    assert table.GetColumnName(0) == "time (ms)"
    names = [table.GetColumnName(i) for i in range(1, table.GetNumberOfColumns())]
    assert names == ["Anterior hippocampus (ml)", "Posterior hippocampus (ml)"]
    results = browser.GetSequenceNode(node)
    for row in range(FRAMES):
        counted = volumesOf(results.GetNthDataNode(row))["Anterior hippocampus"] * 0.9 * 1.5 / 1000
        assert float(table.GetCellText(row, 1)) == pytest.approx(counted, abs=1e-3)
    (chart,) = slicer.util.getNodesByClass("vtkMRMLPlotChartNode")
    assert chart.GetNumberOfPlotSeriesNodes() == 2
    assert chart.GetNthPlotSeriesNode(0).GetTableNode() is table
    assert chart.GetNthPlotSeriesNode(0).GetYColumnName() == names[0]


def test_of_a_sequence_of_images_areas_over_time_are_told(logic, host, tmp_path):
    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "Cine")
    for number, count in enumerate((2, 6)):
        frame = addVolume(blobs(number, count=count)[0][None], IJK_TO_RAS, "Cine")
        sequence.SetDataNodeAtValue(frame, str(number))
        slicer.mrmlScene.RemoveNode(frame)
    browser = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    slicer.modules.sequences.logic().UpdateAllProxyNodes()
    model = write_disc_counter(tmp_path / "discs")
    node = logic.segment(browser.GetProxyNode(sequence), model, allFrames=True)
    (table,) = (one for one in slicer.util.getNodesByClass("vtkMRMLTableNode") if one.GetName().endswith(" areas"))
    assert table.GetColumnName(1) == "Disc (mm²)"
    results = browser.GetSequenceNode(node)
    areas = [volumesOf(results.GetNthDataNode(row))["Disc"] * 0.9 for row in range(2)]
    assert [float(table.GetCellText(row, 1)) for row in range(2)] == pytest.approx(areas, rel=1e-4)
    assert 0 < areas[0] != areas[1] > 0


def test_a_cancel_keeps_finished_frames_and_the_next_run_goes_on(logic, sequence):
    browser, volume = sequence
    logic.start(inputVolume=volume, modelName="tiny", allFrames=True)
    while logic.status.frame < 2:
        logic.poll()
    assert logic.busy
    logic.cancel()
    status = pollUntil(logic, "cancelled")
    assert f"1 of {FRAMES} frames were finished: they stay" in status.message
    form = (Path(SequenceTask.__file__).parents[1] / "Resources" / "UI" / "USEMASegmentation.ui").read_text("utf-8")
    labels = re.findall("under '(.+?)'", status.hint)
    assert len(labels) == 2
    assert all(f"<string>{one}</string>" in form for one in labels), "so they stand in the panel"
    node = status.segmentation
    results = browser.GetSequenceNode(node)
    assert results.GetNumberOfDataNodes() == 1
    first = volumesOf(results.GetNthDataNode(0))
    logic.segment(volume, "tiny", allFrames=True, segmentation=node)
    assert results.GetNumberOfDataNodes() == FRAMES
    assert volumesOf(results.GetNthDataNode(0)) == first
    assert browser.GetSequenceNode(node) is results
    with pytest.raises(InputError, match="has all 3 frames already"):
        logic.segment(volume, "tiny", allFrames=True, segmentation=node)


def test_frames_lie_under_the_transform_of_the_volume(logic, sequence):
    _, volume = sequence
    transform = transformNode(np.array([[0, 1, 0, 3], [-1, 0, 0, 2], [0, 0, 1, 1], [0, 0, 0, 1.0]]))
    volume.SetAndObserveTransformNodeID(transform.GetID())
    node = logic.segment(volume, "tiny", allFrames=True)
    assert node.GetTransformNodeID() == transform.GetID()
    assert volumesOf(node) == volumesOf(logic.segment(volume, "tiny"))


def test_a_volume_that_is_no_frame_is_refused(logic, host):
    volume = addVolume(np.arange(720, dtype=np.int16).reshape(8, 9, 10), np.eye(4), "Alone")
    with pytest.raises(InputError, match="'Alone' belongs to no sequence"):
        logic.segment(volume, "tiny", allFrames=True)
    assert not logic.busy


def test_a_sequence_that_is_removed_ends_the_run(logic, sequence):
    browser, volume = sequence
    logic.start(inputVolume=volume, modelName="tiny", allFrames=True)
    slicer.mrmlScene.RemoveNode(browser)
    status = pollUntil(logic, "cancelled")
    assert "The sequence was removed" in status.message
    assert status.segmentation is None


# One frame alone, to be reviewed


def test_a_result_is_of_the_frame_that_was_sent_though_another_is_shown_by_then(logic, sequence):
    browser, volume = sequence
    logic.start(inputVolume=volume, modelName="tiny")
    while logic.isMoving:  # its voxels are still being sent
        logic.poll()
    browser.SetSelectedItemNumber(2)
    status = pollUntil(logic, "done")
    assert any("were changed" in one for one in status.warnings)
    cases, reason = casesOf(status.segmentation)
    assert (cases, reason) == ([], "it is of the frame 40, and the volume shows another one")
    browser.SetSelectedItemNumber(1)
    assert len(casesOf(status.segmentation)[0]) == 1


def test_that_the_result_of_another_frame_would_be_replaced_is_warned_of(logic, sequence):
    browser, volume = sequence
    options = {"inputVolume": volume, "modelName": "tiny", "segmentation": logic.segment(volume, "tiny")}
    told = "'Heart Hippocampus' was made of another frame, 40, whose result is replaced."
    told += " What was corrected in it stays, unless this is to be replaced, too."
    assert told not in logic.check(**options).warnings
    browser.SetSelectedItemNumber(2)
    assert told in logic.check(**options).warnings
    assert told not in logic.check(**options, existing="keep").warnings


def test_a_frame_that_was_done_again_can_be_reviewed_after_another_one_was(logic, sequence, host, tmp_path):
    browser, volume = sequence
    node = logic.segment(volume, "tiny", allFrames=True)
    for number in (0, 2):
        browser.SetSelectedItemNumber(number)
        assert logic.segment(volume, "tiny", segmentation=node) is node
    host.saveBundle(tmp_path / "case.mrb")
    for number, expected in ((0, 1), (1, 0), (2, 1)):
        browser.SetSelectedItemNumber(number)
        assert len(casesOf(node)[0]) == expected
    host.openBundle(tmp_path / "case.mrb")
    browser = host.scene.GetFirstNodeByClass("vtkMRMLSequenceBrowserNode")
    node = host.scene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    for number, expected in ((0, 1), (1, 0), (2, 1)):
        browser.SetSelectedItemNumber(number)
        assert len(casesOf(node)[0]) == expected
