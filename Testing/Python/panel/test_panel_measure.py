"""The button that hands a result to 3D Slicer's own Segment Statistics, which the stand-in has only the outside of."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest
import slicer
import slicer.util
from panel_cases import isShown, loadSample, waitUntil
from slicer_cases import voxels
from usema.volumes.measures import longest_diameter

pytest_plugins = ["panel_fixtures"]

DIAMETER = "LabelmapSegmentStatisticsPlugin.feret_diameter_mm"


class SegmentStatisticsLogic:
    """As the panel calls it: parameters in a node, each segment, then a table with a row a segment."""

    asked: dict[str, str]
    statistics: dict

    def getParameterNode(self):
        if not hasattr(self, "node"):
            self.node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "Statistics")
        return self.node

    def reset(self):
        names = self.node.GetParameterNames()
        SegmentStatisticsLogic.asked = {name: self.node.GetParameter(name) for name in names}
        SegmentStatisticsLogic.statistics = {"SegmentIDs": [], "MeasurementInfo": {}}

    def updateStatisticsForSegment(self, name):
        self.statistics["SegmentIDs"].append(name)

    def computeStatistics(self):
        self.reset()

    def getStatistics(self):
        return self.statistics

    def getMeasurementInfo(self, key):
        return {"name": key}

    def exportToTable(self, table):
        segmentation = slicer.mrmlScene.GetNodeByID(self.asked["Segmentation"]).GetSegmentation()
        table.AddColumn()
        for name in segmentation.GetSegmentIDs():
            table.SetCellText(table.AddEmptyRow(), 0, segmentation.GetSegment(name).GetName())

    def showTable(self, table):
        SegmentStatisticsLogic.shown = table.GetID()


@pytest.fixture
def statistics(app, monkeypatch):
    module = ModuleType("SegmentStatistics")
    module.SegmentStatisticsLogic = SegmentStatisticsLogic
    monkeypatch.setitem(sys.modules, "SegmentStatistics", module)
    monkeypatch.setattr(slicer.modules, "segmentstatistics", SimpleNamespace(), raising=False)


def segmented(app, openPanel):
    panel = openPanel()
    volume = loadSample(app)
    panel.ui.segmentButton.click()
    waitUntil(lambda: not panel.logic.busy)
    (node,) = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    return panel, volume, node


def test_a_click_makes_a_table_of_all_segments(app, openPanel, statistics):
    panel, volume, node = segmented(app, openPanel)
    assert isShown(panel.ui.measureButton)
    panel.ui.measureButton.click()
    (table,) = (one for one in slicer.util.getNodesByClass("vtkMRMLTableNode") if "measurements" in one.GetName())
    assert SegmentStatisticsLogic.asked == {
        "Segmentation": node.GetID(),
        "ScalarVolume": volume.GetID(),
        "visibleSegmentsOnly": "False",
    }
    statistics = SegmentStatisticsLogic.statistics
    assert statistics["SegmentIDs"] == list(node.GetSegmentation().GetSegmentIDs())
    full, empty = statistics["SegmentIDs"]  # what was found, and what was not
    expected = longest_diameter(voxels(node, full, volume), volume.GetSpacing())
    assert statistics[full, DIAMETER] == pytest.approx(expected) != 0
    assert (empty, DIAMETER) not in statistics
    assert statistics["MeasurementInfo"] == {DIAMETER: {"name": DIAMETER}}
    assert SegmentStatisticsLogic.shown == table.GetID()
    assert table.GetNumberOfRows() == node.GetSegmentation().GetNumberOfSegments()
    assert table.GetName() in panel.ui.messageLabel.text
    assert not slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode") or not slicer.util.getNodes("Statistics*")


def test_each_click_makes_a_table_of_its_own_name_and_none_without_segments(app, openPanel, statistics):
    panel, _, node = segmented(app, openPanel)
    for _ in range(2):
        panel.ui.measureButton.click()
    names = {one.GetName() for one in slicer.util.getNodesByClass("vtkMRMLTableNode")}
    node.GetSegmentation().RemoveAllSegments()
    panel.ui.measureButton.click()
    assert "has no segment to be measured" in panel.ui.messageLabel.text
    assert len(names) == len(slicer.util.getNodesByClass("vtkMRMLTableNode")) == 2


def test_without_the_module_there_is_no_button(app, openPanel):
    panel, *_ = segmented(app, openPanel)
    assert not isShown(panel.ui.measureButton)


def test_a_failure_of_the_module_is_told_and_leaves_nothing(app, openPanel, statistics, monkeypatch):
    panel, *_ = segmented(app, openPanel)

    def fail(self):
        raise RuntimeError("no stencil")

    monkeypatch.setattr(SegmentStatisticsLogic, "updateStatisticsForSegment", fail)
    panel.ui.measureButton.click()
    assert "an error of its own" in panel.ui.messageLabel.text
    assert not slicer.util.getNodes("Statistics*")


def test_of_a_transformed_result_the_module_measures_all_in_the_world(app, openPanel, statistics):
    panel, _, node = segmented(app, openPanel)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    node.SetAndObserveTransformNodeID(transform.GetID())
    panel.ui.measureButton.click()
    assert SegmentStatisticsLogic.asked[f"{DIAMETER}.enabled"] == "True"
    assert (node.GetSegmentation().GetNthSegmentID(0), DIAMETER) not in SegmentStatisticsLogic.statistics


@pytest.mark.parametrize("what", ["nothing", "a stroke", "the scene"])
def test_large_segments_are_measured_a_turn_each_and_anew_if_one_changes(app, openPanel, statistics, monkeypatch, what):
    from USEMASegmentationLib import Steps

    panel, volume, node = segmented(app, openPanel)
    monkeypatch.setattr(Steps, "SMALL", 0)
    panel.ui.measureButton.click()
    assert len(SegmentStatisticsLogic.statistics["SegmentIDs"]) == 1
    assert panel.ui.messageLabel.text == "Measuring..."
    assert not panel.ui.measureButton.enabled
    first = node.GetSegmentation().GetNthSegmentID(0)
    if what == "a stroke":
        array = voxels(node, first, volume).astype("uint8")
        array[0, 0, 0] = 1
        slicer.util.updateSegmentBinaryLabelmapFromArray(array, node, first, volume)
    elif what == "the scene":
        slicer.mrmlScene.Clear(False)
    waitUntil(lambda: panel.ui.measureButton.enabled)
    if what == "the scene":
        assert "was removed while it was measured" in panel.ui.messageLabel.text
    else:
        expected = longest_diameter(voxels(node, first, volume), volume.GetSpacing())
        assert SegmentStatisticsLogic.statistics[first, DIAMETER] == pytest.approx(expected)
        assert "measurements" in panel.ui.messageLabel.text
    assert not slicer.util.getNodes("Statistics*")
