"""The module's own self-test, as far as it goes in the stand-in: real worker, model and scene, but no views."""

from __future__ import annotations

import re
import sys
import unittest
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import slicer
import slicer.util
from panel_cases import loadSample, pythonqt
from PySide6 import QtGui
from slicer_cases import children

pytest_plugins = ["panel_fixtures"]


def _loadVolume(app, path, properties=None):
    """As the application: what is loaded is shown, unless it shall not be."""
    node = app.loadVolume(Path(path))
    if (properties or {}).get("show", True):
        slicer.util.setSliceViewerLayers(background=node)
    return node


@pytest.fixture
def entry(app, openPanel, monkeypatch):
    """The module's own file, with what the stand-in lacks: Sample Data, files, and the module's place in a window."""
    panel = openPanel(script=None, own=True)
    entry = sys.modules["USEMASegmentation"]

    sources = []

    class SampleDataLogic:
        @staticmethod
        def registerCustomSampleDataSource(**arguments):
            sources.append(arguments["sampleName"])

        def sourceForSampleName(self, name):
            return name if name in sources else None

        def downloadSamples(self, name):
            assert name in sources
            return [loadSample(app)]

    sampleData = ModuleType("SampleData")
    sampleData.SampleDataLogic = SampleDataLogic
    monkeypatch.setitem(sys.modules, "SampleData", sampleData)
    monkeypatch.setattr(entry, "openPanel", lambda: panel)
    monkeypatch.setattr(slicer.util, "mainWindow", lambda: None)  # other tests may have left one to Qt
    monkeypatch.setattr(slicer.util, "loadVolume", partial(_loadVolume, app))
    monkeypatch.setattr(slicer.util, "saveScene", lambda path: app.saveBundle(Path(path)) or True)
    monkeypatch.setattr(slicer.util, "loadScene", lambda path: app.openBundle(Path(path)))
    for name, orientation in (("Red", "Axial"), ("Green", "Coronal")):
        view = slicer.vtkMRMLSliceCompositeNode()
        view.SetLayoutName(name)
        slicer.mrmlScene.AddNode(view)
        slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceNode", orientation)
    return entry


def test_the_whole_way_is_gone_and_reported_with_pictures(entry, tmp_path, monkeypatch):
    before, codes = children(), []
    monkeypatch.setattr(slicer.util, "exit", codes.append)
    entry.selfTest(str(tmp_path / "report"))
    report = (tmp_path / "report" / "report.txt").read_text("utf-8")
    assert codes == [0], report
    outcomes = dict(re.findall(r"(?m)^ ?(\d+) (passed|FAILED|LEFT OUT)", report))
    assert list(outcomes) == [str(number) for number in range(1, 17)], report
    assert [number for number, outcome in outcomes.items() if outcome == "LEFT OUT"] == ["15"], report  # reload
    assert "by array" in report  # for want of views
    assert "quits in the middle of a run" in report
    pictures = sorted((tmp_path / "report").glob("*.png"))
    assert len(pictures) == 16
    assert all(QtGui.QImage(str(one)).height() > 100 for one in pictures)
    for receiver in slicer.app.receivers["aboutToQuit()"]:
        receiver()
    assert children() <= before
    assert pythonqt.slotErrors == []


@contextmanager
def temporary(monkeypatch, folder):
    """With the application's temporary folder elsewhere: the self-test leaves its report there."""
    with monkeypatch.context() as patched:
        patched.setattr(slicer.app, "temporaryPath", str(folder))
        yield


@pytest.fixture
def withoutTorch(monkeypatch):
    from USEMASegmentationLib.Panel.Installer import Installer

    monkeypatch.setattr(Installer, "missing", lambda self, *_: [1])
    monkeypatch.setattr(Installer, "words", lambda self: "Segmenting needs PyTorch.")


def test_without_pytorch_it_does_not_pass_as_if_all_had_run(entry, tmp_path, monkeypatch, withoutTorch):
    codes = []
    monkeypatch.setattr(slicer.util, "exit", codes.append)
    entry.selfTest(str(tmp_path))
    report = (tmp_path / "report.txt").read_text("utf-8")
    assert codes == [2], report
    assert "Segmenting needs PyTorch." in report
    assert "16 steps, 14 left out, 0 failed" in report
    assert "NOTHING WAS SEGMENTED" in report
    with temporary(monkeypatch, tmp_path), pytest.raises(unittest.SkipTest, match="NOTHING WAS SEGMENTED"):
        entry.USEMASegmentationTest().runTest()


def test_a_step_that_fails_is_reported_and_the_exit_code_tells(entry, tmp_path, monkeypatch, withoutTorch):
    codes = []
    monkeypatch.setattr(slicer.util, "exit", codes.append)
    monkeypatch.setattr(entry, "loadSample", lambda: 1 / 0)
    entry.selfTest(str(tmp_path))
    report = (tmp_path / "report.txt").read_text("utf-8")
    assert codes == [1]
    assert "ZeroDivisionError" in report
    assert report.count("FAILED") == 1, report  # what needs the sample is left out, and does not fail as well
    assert "Engine: not started" in report  # versions and the last log, for whoever mends it
    with temporary(monkeypatch, tmp_path), pytest.raises(AssertionError, match="ZeroDivisionError"):
        entry.USEMASegmentationTest().runTest()


def test_a_panel_that_does_not_open_is_one_failure(entry, tmp_path, monkeypatch):
    codes = []
    monkeypatch.setattr(slicer.util, "exit", codes.append)
    monkeypatch.setattr(entry, "openPanel", lambda: 1 / 0)
    entry.selfTest(str(tmp_path))
    report = (tmp_path / "report.txt").read_text("utf-8")
    assert codes == [1]
    assert "16 steps, 15 left out, 1 failed: opens" in report


def test_a_folder_that_cannot_be_written_ends_it_with_the_reason(entry, tmp_path, monkeypatch, capsys):
    codes = []
    monkeypatch.setattr(slicer.util, "exit", codes.append)
    (tmp_path / "file").write_text("")
    entry.selfTest(str(tmp_path / "file"))
    assert codes == [1]
    assert "FileExistsError" in capsys.readouterr().err
