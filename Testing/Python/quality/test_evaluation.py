"""Evaluation: pairing of files, tolerances, summary, and refusals."""

from __future__ import annotations

import csv
import math
import os
import shutil
import statistics

import numpy as np
import pytest
import SimpleITK as sitk
from click.testing import CliRunner
from masks import box, by_definition
from usema.cli import main
from usema.errors import InputError, OutputError
from usema.quality.evaluation import Score, evaluate_folders, summary, write_csv


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
    a_moved_grid: r"predictions.case.nii.gz and .*references.case.nii.gz lie on .*from \(0, 0, 0.5\)",
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


@pytest.mark.parametrize(
    ("endings", "title", "lengths"),
    [
        ([".png"], "HD95 / pixels", {"hausdorff95_pixels": "2.0", "tolerance_pixels": "1.0"}),
        ([".nii.gz"], "HD95 / mm", {"hausdorff95_mm": "2.0", "tolerance_mm": "1.0"}),
        (
            [".nii.gz", ".png"],
            "HD95 / mm or pixels",
            {"hausdorff95_mm": "2.0", "tolerance_mm": "1.0", "hausdorff95_pixels": "", "tolerance_pixels": ""},
        ),
    ],
)
def test_lengths_in_pictures_are_in_pixels(endings, title, lengths, folders):
    for folder, start in zip(folders, (3, 5), strict=True):
        image = sitk.GetImageFromArray(box((0, 1), (2, 10), (start, start + 6))[0].astype(np.uint8))
        for ending in endings:
            sitk.WriteImage(image, str(folder / f"a{ending[1:4]}{ending}"))
    table = folders[0].parent / "rows.csv"
    result = CliRunner().invoke(main, ["evaluate", *map(str, folders), "--csv", str(table)])
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert title in said
    assert ("of pictures are in pixels" in said) == (".png" in endings)
    first, *others = csv.DictReader(table.read_text().splitlines())
    assert list(first)[:5] == ["case", "label", "name", "dice", "surface_dice"]
    assert {name: first[name] for name in list(first)[5:]} == lengths
    for other in others:
        assert [other[name] for name in list(other)[5:]] == ["", "", "2.0", "1.0"]


def test_a_case_whose_name_is_no_text_has_its_line_in_the_table(folders, labels):
    for folder in folders:
        shutil.copy(labels(1), folder / os.fsdecode(b"any\xff.nii.gz"))
    table = folders[0].parent / "rows.csv"
    result = CliRunner().invoke(main, ["evaluate", *map(str, folders), "--csv", str(table)])
    assert result.exit_code == 0, result.output
    assert [row["case"] for row in csv.DictReader(table.read_text("utf-8").splitlines())] == ["any?", "any?"]


@pytest.mark.parametrize("names", [None, {1: "liver", 2: "aorta"}])
def test_label_maps_without_any_label_leave_no_empty_table_without_a_word(names, folders):
    image = sitk.GetImageFromArray(np.zeros((4, 5, 6), np.uint8))
    for folder in folders:
        sitk.WriteImage(image, str(folder / "a.nii.gz"))
    said: list[str] = []
    evaluate_folders(*folders, names, report=said.append)
    assert len(said) == 1
    assert "there is nothing to compare" in said[0]
    assert ("liver, aorta" in said[0]) == (names is not None)
    sitk.WriteImage(image + 1, str(folders[1] / "a.nii.gz"))
    evaluate_folders(*folders, names, report=said.append)
    assert len(said) == 1


@pytest.mark.parametrize("tolerance", [-1.0, math.nan, math.inf])
def test_an_impossible_tolerance_is_refused(tolerance, folders):
    with pytest.raises(InputError, match=str(tolerance)):
        evaluate_folders(*folders, tolerance_mm=tolerance)
