"""Evaluation: the metrics against their definitions, pairing of files, and refusals."""

from __future__ import annotations

import csv
import math
import shutil
import statistics
import sys

import numpy as np
import pytest
import SimpleITK as sitk
from usema.errors import InputError, MissingDependencyError, OutputError
from usema.quality.evaluation import Score, compare_masks, evaluate_folders, summary, write_csv


def by_definition(prediction, reference, spacing, tolerance):
    """Dice, surface Dice and 95 % Hausdorff distance, from every pair of surface voxels."""

    def surface(mask):
        padded = np.pad(mask, 1)
        inside = padded.copy()
        for axis in range(3):
            inside &= np.roll(padded, 1, axis) & np.roll(padded, -1, axis)
        return (np.argwhere(padded & ~inside) - 1) * np.array(spacing)

    one, other = surface(prediction), surface(reference)
    distances = np.linalg.norm(one[:, None] - other[None], axis=2)
    there, back = distances.min(axis=1), distances.min(axis=0)
    dice = 2 * (prediction & reference).sum() / (prediction.sum() + reference.sum())
    surface_dice = ((there <= tolerance).sum() + (back <= tolerance).sum()) / (len(there) + len(back))
    return dice, surface_dice, max(np.percentile(there, 95), np.percentile(back, 95))


def box(*slices, shape=(12, 14, 16)):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*limits) for limits in slices)] = True
    return mask


RANDOM = np.random.default_rng(3)
SHAPES = {
    "a shifted box": (box((2, 8), (3, 9), (4, 10)), box((3, 9), (3, 9), (6, 12))),
    "a box at the border": (box((0, 5), (0, 14), (0, 6)), box((0, 6), (2, 14), (0, 7))),
    "one voxel": (box((6, 7), (6, 7), (6, 7)), box((2, 8), (3, 9), (4, 10))),
    "far apart": (box((0, 3), (0, 3), (0, 3)), box((9, 12), (10, 14), (12, 16))),
    "noise": (RANDOM.random((12, 14, 16)) < 0.3, RANDOM.random((12, 14, 16)) < 0.2),
}


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.3, 0.7, 0.98)], ids=str)
@pytest.mark.parametrize("tolerance", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("shapes", SHAPES)
def test_the_metrics_are_their_definitions(shapes, tolerance, spacing):
    prediction, reference = SHAPES[shapes]
    measured = compare_masks(prediction, reference, spacing, tolerance)
    assert measured == pytest.approx(by_definition(prediction, reference, spacing, tolerance), rel=1e-5)


def test_empty_masks_are_not_measured_or_missed():
    mask, empty = box((2, 8), (3, 9), (4, 10)), box((0, 0))
    assert compare_masks(mask, mask, (1, 1, 1), 1.0) == (1.0, 1.0, 0.0)
    assert compare_masks(empty, mask, (1, 1, 1), 1.0) == (0.0, 0.0, math.inf)
    assert compare_masks(mask, empty, (1, 1, 1), 1.0) == (0.0, 0.0, math.inf)
    assert all(math.isnan(value) for value in compare_masks(empty, empty, (1, 1, 1), 1.0))


@pytest.fixture
def folders(tmp_path):
    predictions, references = tmp_path / "predictions", tmp_path / "references"
    predictions.mkdir()
    references.mkdir()
    return predictions, references


@pytest.fixture
def labels(data):
    """The label file of a hippocampus case. Cases 1 and 351 happen to have the same grid."""
    return lambda number: data / f"nnUNet_raw/Dataset004_Hippocampus/labelsTr/hippocampus_{number:03}.nii.gz"


def test_two_hippocampi_are_compared_as_by_hand(folders, labels):
    predictions, references = folders
    image = sitk.ReadImage(str(labels(351)))
    # Another format, paired by the name alone; it keeps the NIfTI header's entries, which must not confuse the reader.
    sitk.WriteImage(image, str(predictions / "case.nrrd"), useCompression=True)
    shutil.copy(labels(1), references / "case.nii.gz")
    (predictions / "summary.json").write_text("{}")
    scores = evaluate_folders(predictions, references, {1: "Anterior", 2: "Posterior"}, tolerance_mm=1.0)

    overlap = sitk.LabelOverlapMeasuresImageFilter()
    reference = sitk.ReadImage(str(labels(1)))
    overlap.Execute(sitk.Cast(image, sitk.sitkUInt8), sitk.Cast(reference, sitk.sitkUInt8))
    arrays = [sitk.GetArrayFromImage(each) for each in (image, reference)]
    assert [(score.case, score.label, score.name) for score in scores] == [
        ("case", 1, "Anterior"),
        ("case", 2, "Posterior"),
    ]
    for score in scores:
        expected = by_definition(*(array == score.label for array in arrays), image.GetSpacing()[::-1], 1.0)
        assert (score.dice, score.surface_dice, score.hausdorff95_mm) == pytest.approx(expected, rel=1e-5)
        assert score.dice == pytest.approx(overlap.GetDiceCoefficient(score.label), rel=1e-6)
        assert 0.3 < score.dice < 0.95, "two people's hippocampi are alike, not equal"


def test_the_spacing_of_the_files_counts_axis_by_axis(folders):
    for folder, start in zip(folders, (2, 4), strict=True):
        image = sitk.GetImageFromArray(box((start, start + 4), (3, 9), (4, 10)).astype(np.uint8))
        image.SetSpacing((0.5, 0.7, 3.0))  # x, y, z; the boxes are two voxels apart along z
        sitk.WriteImage(image, str(folder / "case.mha"))
    (score,) = evaluate_folders(*folders)
    assert score.hausdorff95_mm == pytest.approx(6.0)
    assert (score.label, score.name) == (1, "1")


def test_a_segmentation_of_slicer_is_compared_segment_by_segment(folders, data):
    predictions, references = folders
    file = data / "volumes/chest_ct/Segmentation.seg.nrrd"
    shutil.copy(file, predictions / "chest.seg.nrrd")
    sitk.WriteImage(sitk.ReadImage(str(file)), str(references / "chest.nii.gz"))
    scores = evaluate_folders(predictions, references)
    assert [score.label for score in scores] == [1, 2, 3, 4, 5, 6, 7]
    assert all(score.dice == 1 and score.hausdorff95_mm == 0 for score in scores)


def test_the_summary_has_mean_and_median_and_leaves_nothing_measured_out():
    rows = [(0.8, 0.9, 2.0), (0.6, 0.5, 4.0), (0.0, 0.0, math.inf), (math.nan,) * 3]
    anterior = [Score(f"case{index}", 1, "Anterior", *row) for index, row in enumerate(rows)]
    (first, second) = summary([Score("case0", 2, "Posterior", *(math.nan,) * 3), *anterior])
    assert (first.label, first.name, first.cases) == (1, "Anterior", 3)
    assert first.mean["dice"] == pytest.approx(statistics.fmean([0.8, 0.6, 0.0]))
    assert first.median == {"dice": 0.6, "surface_dice": 0.5, "hausdorff95_mm": 4.0}
    assert first.mean["hausdorff95_mm"] == math.inf
    assert (second.cases, math.isnan(second.mean["dice"])) == (0, True)


def test_the_table_is_written_whole_and_never_over_another(tmp_path):
    path = tmp_path / "scores.csv"
    scores = [Score("case, with a comma", 1, "Anterior", 0.875, 0.5, math.inf)]
    write_csv(path, scores)
    with path.open(newline="", encoding="utf-8") as stream:
        (row,) = csv.DictReader(stream)
    assert (row["case"], float(row["dice"]), float(row["hausdorff95_mm"])) == ("case, with a comma", 0.875, math.inf)
    with pytest.raises(OutputError, match="exists already"):
        write_csv(path, [])
    write_csv(path, [], overwrite=True)
    assert path.read_text().splitlines() == ["case,label,name,dice,surface_dice,hausdorff95_mm"]
    assert list(tmp_path.iterdir()) == [path]


def one_case_too_many(predictions, references, labels):
    shutil.copy(labels(1), references / "other.nii.gz")


def a_prediction_without_reference(predictions, references, labels):
    shutil.copy(labels(1), predictions / "other.nii.gz")


def the_same_case_twice(predictions, references, labels):
    sitk.WriteImage(sitk.ReadImage(str(labels(1))), str(predictions / "case.nrrd"))


def a_moved_grid(predictions, references, labels):
    image = sitk.ReadImage(str(labels(1)))
    image.SetOrigin((0.0, 0.0, 0.5))
    sitk.WriteImage(image, str(predictions / "case.nii.gz"))


def a_wider_grid(predictions, references, labels):
    image = sitk.ReadImage(str(labels(1)))
    image.SetSpacing((1.0, 1.0, 1.01))
    sitk.WriteImage(image, str(predictions / "case.nii.gz"))


def another_size(predictions, references, labels):
    shutil.copy(labels(3), predictions / "case.nii.gz")


def probabilities(predictions, references, labels):
    image = sitk.Cast(sitk.ReadImage(str(labels(1))), sitk.sitkFloat32) * 0.25
    sitk.WriteImage(image, str(predictions / "case.nii.gz"))


def overlapping_segments(predictions, references, labels):
    image = sitk.ReadImage(str(labels(1)))
    (predictions / "case.nii.gz").unlink()
    sitk.WriteImage(sitk.Compose(image, image), str(predictions / "case.nrrd"))


def half_a_compressed_file(predictions, references, labels):
    (predictions / "case.nii.gz").write_bytes(labels(1).read_bytes()[:300])


def half_a_plain_file(predictions, references, labels):
    (predictions / "case.nii.gz").unlink()
    path = predictions / "case.nii"
    sitk.WriteImage(sitk.ReadImage(str(labels(1))), str(path))
    path.write_bytes(path.read_bytes()[:-1])


def no_files(predictions, references, labels):
    (predictions / "case.nii.gz").unlink()


REFUSED = {
    one_case_too_many: "only in .*references: other",
    a_prediction_without_reference: "only in .*predictions: other",
    the_same_case_twice: "two files of case 'case'",
    a_moved_grid: r"predictions.case.nii.gz and .*references.case.nii.gz lie on .*origin=\(0.0, 0.0, 0.5\)",
    a_wider_grid: "different grids",
    another_size: "different grids",
    probabilities: r"predictions.case.nii.gz holds 0\.\d+, which is no label",
    overlapping_segments: "case.nrrd has 2 values in each voxel",
    half_a_compressed_file: r"predictions.case\.nii\.gz",
    half_a_plain_file: r"predictions.case\.nii",
    no_files: "predictions holds no label maps",
}


@pytest.mark.parametrize("spoil", REFUSED, ids=lambda spoil: spoil.__name__)
def test_what_cannot_be_compared_is_refused_with_the_reason(spoil, folders, labels):
    for folder in folders:
        shutil.copy(labels(1), folder / "case.nii.gz")
    assert evaluate_folders(*folders)[0].dice == 1.0
    for folder in folders:
        (folder / "case.nii.gz").chmod(0o644)
    spoil(*folders, labels)
    with pytest.raises(InputError, match=REFUSED[spoil]):
        evaluate_folders(*folders)


@pytest.mark.parametrize("tolerance", [-1.0, math.nan, math.inf])
def test_an_impossible_tolerance_is_refused(tolerance, folders):
    with pytest.raises(InputError, match=str(tolerance)):
        evaluate_folders(*folders, tolerance_mm=tolerance)


def test_without_monai_the_reason_and_the_command_are_given(monkeypatch):
    monkeypatch.setitem(sys.modules, "monai.metrics", None)
    mask = box((2, 8), (3, 9), (4, 10))
    with pytest.raises(MissingDependencyError, match=r"monai.*pip install \"usema\[evaluate\]\""):
        compare_masks(mask, mask, (1, 1, 1), 1.0)
