"""Label maps as people keep them: other axes, crops, layers, slices, rounding."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
import SimpleITK as sitk
from masks import box, write_segmentation
from usema.errors import InputError
from usema.quality.evaluation import evaluate_folders
from usema.quality.label_maps import read_label_map
from usema.quality.metrics import METRICS


def as_it_is(image):
    return image


def stored_backwards(image):
    return sitk.DICOMOrient(image, "RAI")


def axes_exchanged(image):
    return sitk.DICOMOrient(image, "SLA")


def cropped(image):
    box = sitk.LabelShapeStatisticsImageFilter()
    box.Execute(image > 0)
    x, y, z, *size = box.GetBoundingBox(1)
    return image[x : x + size[0], y : y + size[1], z : z + size[2]]


def cropped_and_exchanged(image):
    return axes_exchanged(cropped(image))


def padded(image):
    return sitk.ConstantPad(image, (3, 0, 5), (2, 7, 0), 0)


def rounded(image):
    return sitk.Cast(image, sitk.sitkFloat32) - 0.000001


@pytest.mark.parametrize("kept", [stored_backwards, axes_exchanged, cropped, cropped_and_exchanged, padded, rounded])
@pytest.mark.parametrize("swap", [False, True], ids=["prediction", "reference"])
def test_the_same_drawing_kept_in_another_way_is_the_same_drawing(kept, swap, folders, labels):
    """Against another person's drawing on the same grid, both ways give the same figures."""
    drawn, other = (sitk.ReadImage(str(labels(number)), sitk.sitkUInt8) for number in (351, 1))
    scores = {}
    for way in (as_it_is, kept):
        pair = (other, way(drawn)) if swap else (way(drawn), other)
        for folder, image in zip(folders, pair, strict=True):
            # A .seg.nrrd is cropped to what it holds: around it, the reference is known to be empty.
            name = "case.nrrd" if folder is folders[0] else "case.seg.nrrd"
            write_segmentation(folder / name, image, {"Anterior": (0, 1), "Posterior": (0, 2)})
        scores[way] = evaluate_folders(*folders, labels={1: "Anterior", 2: "Posterior"})
    for before, after in zip(scores[as_it_is], scores[kept], strict=True):
        assert 0.3 < before.dice < 0.95
        assert (after.case, after.name) == (before.case, before.name)
        assert [getattr(after, metric) for metric in METRICS] == pytest.approx(
            [getattr(before, metric) for metric in METRICS], rel=1e-6
        )


def test_what_a_prediction_has_around_a_cropped_label_map_is_not_compared_and_said(folders, labels):
    image = sitk.ReadImage(str(labels(1)), sitk.sitkUInt8)
    sitk.WriteImage(image, str(folders[0] / "case.nii.gz"))
    half = image[: image.GetWidth() // 2, :, :]
    sitk.WriteImage(half, str(folders[1] / "case.nii.gz"))
    said = []
    scores = evaluate_folders(*folders, report=said.append)
    assert [score.dice for score in scores] == [1.0, 1.0]
    outside = np.count_nonzero(sitk.GetArrayFromImage(image)) - np.count_nonzero(sitk.GetArrayFromImage(half))
    assert "35 x 51 x 35 and 17 x 51 x 35 voxels: is it the same image?" in said[0]
    assert said[1:] == [
        f"{folders[0] / 'case.nii.gz'}: {outside} labelled voxels lie outside {folders[1] / 'case.nii.gz'}, and are "
        "not compared."
    ]


def test_overlapping_segments_are_compared_by_name(folders):
    """Each in a layer of its own with the value 1, in another order in the other file."""
    organ, tumour = box((2, 8), (3, 9), (4, 10)), box((4, 6), (5, 7), (6, 12))
    other = box((4, 6), (5, 7), (6, 11))
    for folder, layers, names in zip(
        folders, ((tumour, organ), (organ, other)), (("tumour", "organ"), ("organ", "tumour")), strict=True
    ):
        image = sitk.Compose(*(sitk.GetImageFromArray(layer.astype(np.uint8)) for layer in layers))
        write_segmentation(folder / "case.seg.nrrd", image, {name: (at, 1) for at, name in enumerate(names)})
    scores = {score.name: score.dice for score in evaluate_folders(*folders)}
    assert scores == pytest.approx({"organ": 1.0, "tumour": 2 * 20 / (24 + 20)})
    assert {score.name for score in evaluate_folders(*folders, labels={7: "tumour"})} == {"tumour"}

    (folders[1] / "case.seg.nrrd").unlink()
    sitk.WriteImage(sitk.GetImageFromArray(organ.astype(np.uint8)), str(folders[1] / "case.nii.gz"))
    with pytest.raises(InputError, match="'tumour' and 'organ' overlap and both have the value 1"):
        evaluate_folders(*folders)
    (score,) = evaluate_folders(*folders, labels={1: "organ"})
    assert score.dice == 1.0


def test_slicers_own_overlapping_segments_are_all_found(folders, data):
    file = data / "volumes/chest_ct/SegmentationOverlapping.seg.nrrd"
    for folder in folders:
        shutil.copy(file, folder / "chest.seg.nrrd")
    scores = evaluate_folders(*folders)
    assert len(scores) == len({score.name for score in scores}) > 1
    assert len(read_label_map(file).layers) == 2
    assert all(score.dice == 1 for score in scores)


def test_segmentations_without_a_common_name_are_refused(folders, labels):
    image = sitk.ReadImage(str(labels(1)), sitk.sitkUInt8)
    for folder, name in zip(folders, ("head", "Segment_1"), strict=True):
        write_segmentation(folder / "case.seg.nrrd", image, {name: (0, 1)})
        image = sitk.ReadImage(str(labels(1)), sitk.sitkUInt8)
    with pytest.raises(InputError, match="no segment name in common: head; Segment_1"):
        evaluate_folders(*folders)


@pytest.mark.parametrize("flat", [2, 3])
def test_single_slices_are_compared_in_their_plane(flat, folders):
    """Through a slice there are no neighbours: only within it has a shape a surface."""
    shapes = box((0, 1), (2, 10), (3, 11))[0], box((0, 1), (2, 10), (4, 12))[0]
    for folder, shape in zip(folders, shapes, strict=True):
        image = sitk.GetImageFromArray(shape.astype(np.uint8) if flat == 2 else shape.astype(np.uint8)[None])
        image.SetSpacing((0.5, 2.0, 9.0)[:flat])
        sitk.WriteImage(image, str(folder / "case.nii.gz"))
    (score,) = evaluate_folders(*folders, tolerance_mm=0.0)
    assert score.dice == pytest.approx(2 * 56 / 128)
    assert score.hausdorff95_mm == pytest.approx(0.5)
    # Of the 28 pixels on the edge of each, the seven of either long edge but one lie on the other's: 2 * 7 of 28.
    assert score.surface_dice == pytest.approx(14 / 28)


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_a_slice_is_read_whatever_its_name(ending, tmp_path):
    """In capitals, or no text at all, at which ITK would end the process."""
    shape = box((0, 1), (2, 10), (3, 11))[0].astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(shape), str(tmp_path / f"good{ending}"))
    for name in (os.fsdecode(b"bad\xff" + ending.encode()), f"LOUD{ending.upper()}"):
        shutil.copy(tmp_path / f"good{ending}", tmp_path / name)
        assert np.array_equal(read_label_map(tmp_path / name).layers[0, 0], shape)


def test_segments_have_their_names_where_the_file_has_none_that_is_text(tmp_path, labels):
    image = sitk.ReadImage(str(labels(1)), sitk.sitkUInt8)
    write_segmentation(tmp_path / "good.seg.nrrd", image, {"Anterior": (0, 1), "Posterior": (0, 2)})
    bad = (tmp_path / "good.seg.nrrd").rename(tmp_path / os.fsdecode(b"bad\xff.seg.nrrd"))
    assert read_label_map(bad).segments == {"Anterior": (0, 1), "Posterior": (0, 2)}


def test_a_map_of_many_labels_is_no_image(tmp_path):
    blocks = np.arange(512, dtype=np.uint16).reshape(8, 8, 8).repeat(4, 0).repeat(4, 1).repeat(4, 2)
    sitk.WriteImage(sitk.GetImageFromArray(blocks), str(tmp_path / "atlas.nii.gz"))
    assert len(read_label_map(tmp_path / "atlas.nii.gz").values()) == 511


def test_two_files_in_place_of_folders_are_refused_with_what_to_give(folders):
    path = folders[0] / "case.nii.gz"
    path.touch()
    with pytest.raises(InputError, match=r"case\.nii\.gz is not a folder") as refused:
        evaluate_folders(path, path)
    assert "Give the folders" in refused.value.hint
    with pytest.raises(InputError, match="nowhere is not a folder") as refused:
        evaluate_folders(folders[0] / "nowhere", folders[1])
    assert refused.value.hint == "Check the path."
