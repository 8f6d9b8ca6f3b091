"""What the panel does to slice views and 3D views, and what of it a saved scene keeps."""

from __future__ import annotations

from contextlib import ExitStack
from types import SimpleNamespace

import numpy as np
import pytest
import slicer
import slicer.util
from slicer_cases import GRIDS, addVolume, blobs, write
from USEMASegmentationLib.Panel import SliceViews
from USEMASegmentationLib.Panel.SurfaceSection import SurfaceSection
from USEMASegmentationLib.Scene import KeptMargins
from USEMASegmentationLib.Steps import atOnce

pytest_plugins = ["slicer_fixtures"]


def addView(name="Red"):
    view = slicer.vtkMRMLSliceNode()
    view.SetName(name)
    view.SetLayoutName(name)
    view.SetSingletonTag(name)
    view = slicer.mrmlScene.AddNode(view)
    view.SetFieldOfView(200, 100, 1)
    return view


def test_a_scene_saved_while_a_region_is_looked_at_shows_what_was_shown_before(host, head, tmp_path):
    view = addView()
    SliceViews.lookAt((1.0, 2.0, 3.0), 5.0)
    SliceViews.lookAt((4.0, 2.0, 3.0), 5.0)
    assert view.GetFieldOfView() == (80, 40, 1)
    host.saveBundle(tmp_path / "case.mrb")
    SliceViews.lookAway()
    assert view.GetFieldOfView() == (200, 100, 1)
    view.SetFieldOfView(60, 30, 1)
    host.openBundle(tmp_path / "case.mrb")
    (view,) = slicer.util.getNodesByClass("vtkMRMLSliceNode")
    assert view.GetFieldOfView()[1] == 40
    SliceViews.lookAway()
    assert view.GetFieldOfView() == (200, 100, 1)
    SliceViews.lookAway()  # once is enough
    assert view.GetAttributeNames() == ()


def test_a_field_of_view_that_nobody_can_read_is_left_out(host):
    view = addView()
    view.SetAttribute("USEMA.fieldOfView", "[1, 2")
    SliceViews.lookAway()
    assert view.GetFieldOfView() == (200, 100, 1)


@pytest.fixture
def threeD(host, monkeypatch):
    """A 3D view that counts how often it was centred."""
    view = SimpleNamespace(times=0)

    def centre(*_):
        view.times += 1

    shown = SimpleNamespace(threeDView=lambda: SimpleNamespace(resetFocalPoint=lambda: None, resetCamera=centre))
    manager = SimpleNamespace(threeDViewCount=1, threeDWidget=lambda _: shown)
    monkeypatch.setattr(slicer.app, "layoutManager", lambda: manager, raising=False)
    return view


@pytest.fixture
def section():
    button = SimpleNamespace(visible=True, setSegmentationNode=lambda _: None, connect=lambda *_: True)
    return SurfaceSection(SimpleNamespace(show3DButton=button))


def test_the_first_surfaces_are_looked_at_and_later_ones_are_not(head, threeD, section):
    node = write(blobs(), head)
    section.update(node, head)
    node.CreateClosedSurfaceRepresentation()
    section.onToggled(True)
    assert threeD.times == 1
    section.onToggled(False)
    assert threeD.times == 1
    other = write(blobs(), head)
    section.update(other, head)
    other.CreateClosedSurfaceRepresentation()
    section.onToggled(True)  # the user has chosen how to look at the first
    assert threeD.times == 1


def test_what_cannot_be_seen_in_three_dimensions_does_not_count(head, threeD, section):
    addVolume(np.zeros((3, 3, 3), np.int16), GRIDS["RAS"])
    write(blobs(), head)  # without surfaces
    node = write(blobs(), head)
    section.update(node, head)
    section.onToggled(True)
    assert threeD.times == 1
    model = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode")
    model.CreateDefaultDisplayNodes()
    section.onToggled(True)
    assert threeD.times == 1
    model.GetDisplayNode().SetVisibility(False)
    section.onToggled(True)
    assert threeD.times == 2


def test_the_first_result_for_a_volume_is_shown_on_it_also_where_it_replaced_that_of_another(host, monkeypatch):
    composite = slicer.mrmlScene.AddNode(slicer.vtkMRMLSliceCompositeNode())
    show = composite.SetBackgroundVolumeID
    monkeypatch.setattr(slicer.util, "setSliceViewerLayers", lambda background, fit: show(background.GetID()))
    first, second = (addVolume(blobs(), GRIDS["oblique"], name) for name in ("first", "second"))
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    node.SetReferenceImageGeometryParameterFromVolumeNode(first)
    segment = node.GetSegmentation().GetSegment(node.GetSegmentation().AddEmptySegment("found"))
    for volume, shown in ((first, first), (second, second), (first, second)):
        segment.SetTag("USEMA.run", volume.GetName())
        KeptMargins.commit(volume.GetName(), "", {}, (slice(0, 1),) * 3, node, volume, ExitStack())
        atOnce(SliceViews.showingOnce(node))
        assert composite.GetBackgroundVolumeID() == shown.GetID(), "later results leave the views to the user"
