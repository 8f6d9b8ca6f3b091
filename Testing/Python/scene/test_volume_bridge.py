"""Where the engine is told that a volume lies, and which voxels an ROI means."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import slicer.util
from slicer_cases import GRIDS, addVolume, transformNode
from usema.errors import InputError
from usema.volumes.volume import Volume, resample_onto
from USEMASegmentationLib.Scene.VolumeBridge import cropped, roiBox, wholeBox, worldGeometries

pytest_plugins = ["slicer_fixtures"]

SHAPE = (12, 16, 20)
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
SHEAR = np.eye(4)
SHEAR[0, 1] = 0.2


def volumeOn(grid: str, matrix=None):
    node = addVolume(np.zeros(SHAPE, np.int16), GRIDS[grid])
    if matrix is not None:
        node.SetAndObserveTransformNodeID(transformNode(matrix).GetID())
    return node


def roiFrom(low, high):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "R")
    node.SetCenter(*(np.add(low, high) / 2))
    node.SetSize(*np.subtract(high, low))
    return node


@pytest.mark.parametrize("grid", GRIDS)
def test_a_volume_lies_in_lps_where_mrml_has_it_in_ras(host, grid):
    (geometry,) = worldGeometries([volumeOn(grid)])
    assert geometry.shape == SHAPE
    assert np.allclose(geometry.affine, RAS_TO_LPS @ GRIDS[grid], atol=1e-9)
    if grid in ("RAS", "LPS", "PIR"):
        assert geometry.orientation == grid


@pytest.mark.parametrize("grid", GRIDS)
def test_linear_parent_transforms_are_applied(host, grid):
    turn, scale = np.eye(4), np.diag([1.5, 1.5, 1.5, 1])
    turn[:3, :3] = GRIDS["oblique"][:3, :3] / (0.8, 1.1, 2.5)
    turn[:3, 3] = (5, 6, 7)
    volume = volumeOn(grid, turn)
    volume.GetParentTransformNode().SetAndObserveTransformNodeID(transformNode(scale).GetID())
    (geometry,) = worldGeometries([volume])
    assert np.allclose(geometry.affine, RAS_TO_LPS @ scale @ turn @ GRIDS[grid])


def test_a_sheared_volume_gets_the_nearest_perpendicular_axes(host):
    (straight,) = worldGeometries([volumeOn("PIR")])
    (geometry,) = worldGeometries([volumeOn("PIR", SHEAR)])
    assert geometry.orientation == straight.orientation
    angles = np.degrees(np.arccos(np.clip((geometry.axes * straight.axes).sum(axis=0), -1, 1)))
    assert (angles < 6).all()  # the shear turns one axis by 11 degrees, which the two share
    assert np.allclose(geometry.origin, (RAS_TO_LPS @ SHEAR @ GRIDS["PIR"])[:3, 3])


def test_channels_keep_their_place_beside_each_other_under_a_shear(host):
    points = np.random.default_rng(0).random(SHAPE).astype(np.float32)
    first, second = addVolume(points, GRIDS["RAS"]), addVolume(points, GRIDS["RAS"])
    shear = transformNode(SHEAR)
    for node in (first, second):
        node.SetAndObserveTransformNodeID(shear.GetID())
    geometries = worldGeometries([first, second])
    moved = resample_onto(Volume(points, geometries[1]), geometries[0], 0)
    assert np.allclose(moved.array, points, atol=1e-4)


def test_a_bent_volume_is_taken_as_it_is_stored(host):
    volume = volumeOn("oblique")
    bend = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLGridTransformNode")
    volume.SetAndObserveTransformNodeID(bend.GetID())
    (geometry,) = worldGeometries([volume])
    assert np.allclose(geometry.affine, RAS_TO_LPS @ GRIDS["oblique"])


def test_volumes_bent_in_different_ways_are_refused(host):
    first, second = volumeOn("RAS"), volumeOn("RAS")
    second.SetAndObserveTransformNodeID(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLGridTransformNode").GetID())
    with pytest.raises(InputError, match="different transforms"):
        worldGeometries([first, second])


def test_the_grid_of_a_box_begins_at_its_first_voxel(host):
    (geometry,) = worldGeometries([volumeOn("oblique")])
    part = cropped(geometry, (slice(2, 9), slice(3, 15), slice(4, 18)))
    assert part.shape == (7, 12, 14)
    assert np.allclose(part.origin, (geometry.affine @ [4, 3, 2, 1])[:3])
    assert np.allclose(part.affine[:3, :3], geometry.affine[:3, :3])


def test_an_roi_means_the_voxels_that_it_touches(host):
    volume = addVolume(np.zeros(SHAPE, np.int16), np.eye(4))
    assert roiBox(roiFrom((3.6, 4.4, 5.0), (9.4, 9.6, 5.2)), volume) == (slice(5, 6), slice(4, 11), slice(4, 10))


def test_an_roi_along_voxel_borders_takes_no_voxel_beyond_them(host):
    volume = addVolume(np.zeros(SHAPE, np.int16), GRIDS["LPS"])
    low, high = ((GRIDS["LPS"] @ np.append(np.array(corner) - 0.5, 1))[:3] for corner in ((3, 4, 5), (9, 10, 11)))
    box = roiBox(roiFrom(np.minimum(low, high), np.maximum(low, high)), volume)
    assert box == (slice(5, 11), slice(4, 10), slice(3, 9))


@pytest.mark.parametrize("grid", GRIDS)
def test_the_box_of_an_roi_holds_every_voxel_whose_centre_is_inside(host, grid):
    volume = volumeOn(grid, GRIDS["oblique"])
    centre = (GRIDS["oblique"] @ GRIDS[grid] @ [9, 8, 6, 1])[:3]
    roi = roiFrom(centre - 5, centre + 5)
    roi.SetAndObserveTransformNodeID(transformNode(np.eye(4)).GetID())
    toWorld = GRIDS["oblique"] @ GRIDS[grid]
    indices = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1)
    points = indices[..., ::-1] @ toWorld[:3, :3].T + toWorld[:3, 3]
    inside = (np.abs(points - centre) <= 5).all(axis=-1)
    box = roiBox(roi, volume)
    assert inside[box].sum() == inside.sum() > 0
    assert np.prod([part.stop - part.start for part in box]) < np.prod(SHAPE)


def test_a_turned_roi_gives_the_box_around_it(host):
    volume = addVolume(np.zeros((40, 40, 40), np.int16), np.eye(4))
    roi = roiFrom((-5, -5, -5), (5, 5, 5))
    turn = np.eye(4)
    turn[:2, :2] = np.array([[1, -1], [1, 1]]) / np.sqrt(2)
    turn[:3, 3] = 20
    roi.SetAndObserveTransformNodeID(transformNode(turn).GetID())
    # Half the diagonal of a side of 10 is 7.07.
    assert roiBox(roi, volume) == (slice(15, 26), slice(13, 28), slice(13, 28))


def test_an_roi_that_reaches_beyond_the_volume_is_cut(host):
    volume = addVolume(np.zeros(SHAPE, np.int16), np.eye(4))
    assert roiBox(roiFrom((-50, -50, -50), (50, 50, 50)), volume) == wholeBox(volume)


def test_an_roi_beside_the_volume_or_without_extent_is_refused(host):
    volume = addVolume(np.zeros(SHAPE, np.int16), np.eye(4), "Head")
    with pytest.raises(InputError, match="'R' lies outside the volume 'Head'"):
        roiBox(roiFrom((100, 100, 100), (120, 120, 120)), volume)
    with pytest.raises(InputError, match="no extent"):
        roiBox(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode"), volume)
