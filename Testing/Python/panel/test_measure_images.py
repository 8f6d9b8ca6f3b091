"""Objects and measurements of an image in the scene: a real MRML scene, the real worker, a model that counts discs."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import slicer.util
from image_models import blobs
from slicer_cases import voxels
from usema.measure import Scale
from usema.measure.objects import object_rows
from USEMASegmentationLib.Logic import USEMASegmentationLogic
from USEMASegmentationLib.Scene import Objects
from USEMASegmentationLib.Scene.ImageMeasurements import measureImage

pytest_plugins = ["slicer_fixtures"]

IMAGE, MASK = blobs(100)
GRID = np.array([[-0.5, 0, 0, 5], [0, -0.25, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1.0]])


@pytest.fixture(scope="module")
def model(discs):
    return discs


@pytest.fixture
def segmented(host, tiny, worker, model):
    """On a grid: the logic, the volume, the segmentation, and the ID of its segment."""

    def segment(grid, **options):
        volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "Cells")
        volume.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(grid))
        slicer.util.updateVolumeFromArray(volume, np.stack([IMAGE] * 3, axis=-1)[None])
        logic = USEMASegmentationLogic(worker)
        node = logic.segment(volume, model, **options)
        return logic, volume, node, node.GetSegmentation().GetSegmentIDs()[0]

    return segment


def columns(table) -> dict[str, list[str]]:
    return {
        table.GetColumnName(column): [table.GetCellText(row, column) for row in range(table.GetNumberOfRows())]
        for column in range(table.GetNumberOfColumns())
    }


def summary(table) -> dict[str, tuple[str, str]]:
    found = columns(table)
    return {
        name: (value, unit)
        for name, value, unit in zip(found["Measurement"], found["Value"], found["Unit"], strict=True)
    }


def objectsOf(node, volume) -> np.ndarray:
    return slicer.util.arrayFromVolume(Objects.of(node, volume))


def test_the_objects_of_a_result_lie_beside_it_as_a_label_map_with_a_colour_each(segmented):
    _, volume, node, segment = segmented(GRID)
    objects = objectsOf(node, volume)
    assert np.array_equal(objects[0] > 0, voxels(node, segment, volume)[0] > 0)
    assert sorted(np.unique(objects)) == list(range(objects.max() + 1))
    labelMap = node.GetNodeReference(Objects.ROLE)
    colours = labelMap.GetDisplayNode().GetColorNode()
    assert colours.GetNumberOfColors() > objects.max() > 2
    assert len({tuple(colours.GetLookupTable().GetTableValue(one)) for one in range(objects.max() + 1)}) > objects.max()
    assert labelMap.GetSpacing() == volume.GetSpacing()


def test_a_table_has_a_row_an_object_in_millimetres_where_the_pixel_is_known(segmented):
    _, volume, node, _ = segmented(GRID)
    (whole, table), doubts = measureImage(node, volume)
    found, objects = columns(table), objectsOf(node, volume)
    expected = list(object_rows(objects, Scale(0.5, 0.25, True)))
    assert [int(number) for number in found["object"]] == [row["object"] for row in expected]
    for title in ("pixels", "x", "diameter", "area / mm2", "diameter / mm"):
        assert [float(text) for text in found[title]] == pytest.approx([row[title] for row in expected])
    assert doubts == []
    values = summary(whole)
    assert values["Objects"] == (str(len(expected)), "")
    assert float(values["Area"][0]) == pytest.approx((objects > 0).sum() * 0.125)
    assert values["Area"][1] == values["Mean area"][1] == "mm2"


def test_without_a_known_pixel_everything_is_in_pixels_and_that_is_said(segmented):
    _, volume, node, _ = segmented(np.diag([-1.0, -1.0, 1.0, 1.0]))
    (whole, table), doubts = measureImage(node, volume)
    assert not [title for title in columns(table) if "mm" in title]
    assert {unit for _, unit in summary(whole).values()} == {"pixels", "%", ""}
    assert doubts == ["The size of a pixel is not known, so lengths and areas are in pixels."]


def test_measuring_again_follows_what_was_corrected(segmented):
    """One object is cut in two, one grows, one goes, and a new one is drawn."""
    _, volume, node, segment = segmented(GRID)
    before = objectsOf(node, volume)[0].copy()
    sizes = np.bincount(before.ravel())
    mask = before > 0
    gone, cut = (int(number) for number in np.argsort(sizes[1:])[[0, -1]] + 1)
    mask[before == gone] = False
    rows = np.flatnonzero((before == cut).any(axis=1))
    mask[rows[len(rows) // 2]][before[rows[len(rows) // 2]] == cut] = False
    mask[:3, :3] = True
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask[None].astype(np.uint8), node, segment, volume)
    (whole, table), _ = measureImage(node, volume)
    after = objectsOf(node, volume)[0]
    assert np.array_equal(after > 0, mask)
    assert summary(whole)["Objects"][0] == str(before.max() + 1) == str(table.GetNumberOfRows())
    assert len(np.unique(after[(before == cut) & mask])) == 2
    assert len(np.unique(after[:3, :3])) == 1
    untouched = next(n for n in range(1, before.max() + 1) if n not in (gone, cut))
    assert len(np.unique(after[before == untouched])) == 1


def test_a_region_done_again_leaves_the_objects_around_it(segmented, model):
    logic, volume, node, _ = segmented(GRID)
    before = objectsOf(node, volume)[0].copy()
    roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Left half")
    centre, half = (GRID @ [31.5, 47.5, 0, 1])[:3], (64 * 0.5, 96 * 0.25, 3)
    roi.SetXYZ(*centre) if hasattr(roi, "SetXYZ") else roi.SetCenter(*centre)
    roi.SetSize(*half)
    logic.segment(volume, model, roi=roi, segmentation=node)
    after = objectsOf(node, volume)[0]
    assert np.array_equal(after[:, 70:] > 0, before[:, 70:] > 0)
    assert not set(np.unique(after[:, 70:])) & set(np.unique(after[:, :58])) - {0} - set(np.unique(after[:, 58:70]))
    assert len(slicer.util.getNodesByClass("vtkMRMLLabelMapVolumeNode")) == 1


def test_a_result_that_lost_its_objects_is_split_by_its_shape_and_says_so(segmented):
    _, volume, node, _ = segmented(GRID)
    slicer.mrmlScene.RemoveNode(node.GetNodeReference(Objects.ROLE))
    (_, table), doubts = measureImage(node, volume)
    assert doubts == ["What touches was told apart by its shape alone."]
    assert table.GetNumberOfRows() == objectsOf(node, volume).max() > 2


def test_a_segment_that_no_model_wrote_has_its_area(segmented):
    _, volume, node, _ = segmented(GRID)
    own = node.GetSegmentation().AddEmptySegment("own", "Drawn by hand")
    mask = np.zeros((1, *IMAGE.shape), np.uint8)
    mask[0, :4, :5] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, own, volume)
    (whole, _), _ = measureImage(node, volume)
    found = columns(whole)
    row = next(n for n, name in enumerate(found["Segment"]) if name == "Drawn by hand")
    assert (found["Measurement"][row], float(found["Value"][row])) == ("Area", 20 * 0.125)
