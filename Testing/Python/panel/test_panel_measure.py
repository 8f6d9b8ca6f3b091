"""The button that hands a result to 3D Slicer's own Segment Statistics, which the stand-in has only the outside of."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest
import slicer
import slicer.util
from panel_cases import isShown, loadSample, waitUntil

pytest_plugins = ["panel_fixtures"]


class SegmentStatisticsLogic:
    """As the panel calls it: parameters in a node, then a table with a row a segment."""

    asked: dict[str, str]

    def getParameterNode(self):
        if not hasattr(self, "node"):
            self.node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "Statistics")
        return self.node

    def computeStatistics(self):
        names = self.node.GetParameterNames()
        SegmentStatisticsLogic.asked = {name: self.node.GetParameter(name) for name in names}

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
        "LabelmapSegmentStatisticsPlugin.feret_diameter_mm.enabled": "True",
    }
    assert SegmentStatisticsLogic.shown == table.GetID()
    assert table.GetNumberOfRows() == node.GetSegmentation().GetNumberOfSegments()
    assert table.GetName() in panel.ui.messageLabel.text
    assert not slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode") or not slicer.util.getNodes("Statistics*")


def test_without_the_module_there_is_no_button(app, openPanel):
    panel, *_ = segmented(app, openPanel)
    assert not isShown(panel.ui.measureButton)


def test_a_failure_of_the_module_is_told_and_leaves_nothing(app, openPanel, statistics, monkeypatch):
    panel, *_ = segmented(app, openPanel)

    def fail(self):
        raise RuntimeError("no stencil")

    monkeypatch.setattr(SegmentStatisticsLogic, "computeStatistics", fail)
    panel.ui.measureButton.click()
    assert "an error of its own" in panel.ui.messageLabel.text
    assert not slicer.util.getNodes("Statistics*")
