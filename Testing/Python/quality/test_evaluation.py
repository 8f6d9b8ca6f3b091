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
from click.testing import CliRunner
from usema.cli import main
from usema.errors import InputError, MissingDependencyError, OutputError
from usema.quality.evaluation import Score, evaluate_folders, summary, write_csv
from usema.quality.label_maps import read_label_map
from usema.quality.metrics import METRICS, compare_masks


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
    # A miss is counted, and does not make the mean distance infinite.
    assert (first.missed, first.mean["hausdorff95_mm"]) == (1, 3.0)
    assert (second.cases, second.missed, math.isnan(second.mean["dice"])) == (0, 0, True)


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
    assert path.read_text().splitlines() == ["case,label,name,dice,surface_dice,hausdorff95_mm,tolerance_mm"]
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


def turned_a_little(predictions, references, labels):
    image = sitk.ReadImage(str(labels(1)))
    angle = math.radians(2)
    turn = (math.cos(angle), -math.sin(angle), 0, math.sin(angle), math.cos(angle), 0, 0, 0, 1)
    image.SetDirection(turn)
    sitk.WriteImage(image, str(predictions / "case.nii.gz"))


def probabilities(predictions, references, labels):
    image = sitk.Cast(sitk.ReadImage(str(labels(1))), sitk.sitkFloat32) * 0.25
    sitk.WriteImage(image, str(predictions / "case.nii.gz"))


def an_image(predictions, references, labels):
    image = labels(1).parents[1] / "imagesTr/hippocampus_001_0000.nii.gz"
    (predictions / "case.nii.gz").unlink()
    shutil.copy(image, predictions / "case.nii.gz")


def an_image_below_zero(predictions, references, labels):
    image = sitk.ReadImage(str(labels(1).parents[1] / "imagesTr/hippocampus_001_0000.nii.gz"))
    sitk.WriteImage(sitk.Cast(image, sitk.sitkInt16) - 1000, str(predictions / "case.nii.gz"))


def colours(predictions, references, labels):
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
    a_wider_grid: "different grids.*voxels lie at the same places",
    turned_a_little: "different grids",
    probabilities: r"predictions.case.nii.gz holds 0\.\d+, which is no label, among 3 different values",
    an_image: r"predictions.case.nii.gz holds [1-9]\d\d different values, from \d+ to \d+,.*: it is an image",
    an_image_below_zero: r"holds -\d+, which is no label, among [1-9]\d\d different values. It looks like an image",
    colours: "case.nrrd has 2 values in each voxel",
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


def write_segmentation(path, image, segments):
    """As 3D Slicer writes it: tags for each segment, layers as components."""
    if path.name.endswith(".seg.nrrd"):
        for number, (name, (layer, value)) in enumerate(segments.items()):
            for key, text in {"ID": f"S{number}", "Name": name, "Layer": layer, "LabelValue": value}.items():
                image.SetMetaData(f"Segment{number}_{key}", str(text))
    sitk.WriteImage(image, str(path), useCompression=True)


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


def test_predictions_named_after_images_of_nnunets_layout_find_their_labels(folders, labels):
    predictions, references = folders
    for number in (1, 351):
        shutil.copy(labels(number), predictions / f"case_{number}_0000.nii.gz")
        shutil.copy(labels(number), references / f"case_{number}.nii.gz")
    shutil.copy(labels(1), predictions / "._case_1_0000.nii.gz")
    (references / ".DS_Store").write_bytes(b"x")
    assert [score.case for score in evaluate_folders(*folders)] == ["case_1"] * 2 + ["case_351"] * 2
    shutil.copy(labels(1), predictions / "case_1.nii.gz")
    with pytest.raises(InputError, match=r"only in .*predictions: case_1_0000"):
        evaluate_folders(*folders)


def test_each_label_may_have_a_tolerance_of_its_own(folders):
    shifted = box((2, 8), (3, 9), (4, 10)), box((2, 8), (3, 9), (6, 12))  # two voxels, 2 mm apart
    for folder, mask in zip(folders, shifted, strict=True):
        both = np.concatenate((mask.astype(np.uint8), 2 * mask.astype(np.uint8)))
        sitk.WriteImage(sitk.GetImageFromArray(both), str(folder / "case.nii.gz"))
    names = {1: "liver", 2: "aorta"}
    surface = {}
    for tolerances in ({"": 1.0}, {"liver": 2.0}, {"": 2.0, "aorta": 0.5}, {"1": 2.0}):
        surface[str(tolerances)] = evaluate_folders(*folders, names, tolerances)
    (one, _), (own, other), (all_others, aorta), (by_value, _) = surface.values()
    assert one.surface_dice < 1
    assert (own.surface_dice, own.tolerance_mm, other.tolerance_mm) == (1.0, 2.0, 1.0)
    assert other.surface_dice == one.surface_dice
    assert (all_others.surface_dice, aorta.tolerance_mm) == (1.0, 0.5)
    assert by_value.surface_dice == 1.0
    with pytest.raises(InputError, match=r"No case has the label 'spleen' of a tolerance. .*: aorta, liver"):
        evaluate_folders(*folders, names, {"spleen": 3.0})


def test_the_command_takes_a_tolerance_for_each_label_and_says_what_its_figures_are(folders, labels):
    for folder, number in zip(folders, (351, 1), strict=True):
        shutil.copy(labels(number), folder / "case.nii.gz")
    command = ["evaluate", *map(str, folders), "--csv", str(folders[0].parent / "rows.csv"), "--overwrite"]
    rows = {}
    for tolerances in (("2",), ("2", "1=0.5"), ("1=0.5",)):
        result = CliRunner().invoke(main, command + [part for each in tolerances for part in ("--tolerance", each)])
        assert result.exit_code == 0, result.output
        assert "counts voxels of the surfaces" in " ".join(result.output.split())
        with (folders[0].parent / "rows.csv").open(newline="") as stream:
            rows[tolerances] = [float(row["tolerance_mm"]) for row in csv.DictReader(stream)]
    assert list(rows.values()) == [[2.0, 2.0], [0.5, 2.0], [0.5, 1.0]]
    wrong = CliRunner().invoke(main, [*command, "--tolerance", "1=thick"])
    assert (wrong.exit_code, "'1=thick' is no tolerance" in wrong.output) == (1, True)


def test_a_map_of_many_labels_is_no_image(tmp_path):
    blocks = np.arange(512, dtype=np.uint16).reshape(8, 8, 8).repeat(4, 0).repeat(4, 1).repeat(4, 2)
    sitk.WriteImage(sitk.GetImageFromArray(blocks), str(tmp_path / "atlas.nii.gz"))
    assert len(read_label_map(tmp_path / "atlas.nii.gz").values()) == 511


@pytest.mark.parametrize("tolerance", [-1.0, math.nan, math.inf])
def test_an_impossible_tolerance_is_refused(tolerance, folders):
    with pytest.raises(InputError, match=str(tolerance)):
        evaluate_folders(*folders, tolerance_mm=tolerance)


def test_without_monai_the_reason_and_the_command_are_given(monkeypatch):
    monkeypatch.setitem(sys.modules, "monai.metrics", None)
    mask = box((2, 8), (3, 9), (4, 10))
    with pytest.raises(MissingDependencyError, match=r"monai.*pip install \"usema\[evaluate\]\""):
        compare_masks(mask, mask, (1, 1, 1), 1.0)
