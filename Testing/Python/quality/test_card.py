"""The model card: its figures are those of the evaluation, it can be made again, and it travels with the model."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import statistics
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from card_text import section, table
from click.testing import CliRunner
from matplotlib.image import imread
from usema.cli import main
from usema.errors import BundleError, InputError
from usema.inference.predictor import Predictor
from usema.models.bundle import METADATA_FILE, WEIGHTS_FILE, read_bundle
from usema.models.bundle_writing import change_metadata
from usema.models.card_files import CARD_FILE, CASES_FILE, FILES, PICTURES, RELIABILITY_PICTURE
from usema.quality.card.failures import failure
from usema.quality.card.figures import groups, validation_metrics
from usema.quality.card.measure import dice_at_best_shift
from usema.quality.card.results import LabelResult, Pictured, Results, read_results
from usema.quality.card.text import WARNING, render
from usema.quality.evaluation import evaluate_folders, summary
from usema.quality.labelled_cases import names_sha256
from usema.resources import bundled_models
from usema.store import archive, cache
from usema.store.install import install_file, question_of_file
from usema.volumes.volume import read_volume
from usema.volumes.writing import write_label_map

pytest_plugins = ["panel_fixtures"]

DATASET = "nnUNet_raw/Dataset004_Hippocampus"
CASES = ("hippocampus_001", "hippocampus_007", "hippocampus_149", "hippocampus_181")  # two 8-bit, two floating point
LABELS = ("Anterior hippocampus", "Posterior hippocampus")
SECTIONS = (
    "What it does", "Intended use", "Limits", "Input", "Training", "How it was evaluated", "Results",
    "Groups of cases", "Volumes", "Time", "Speeds", "Where it fails", "Weights, licence, citation",
)  # fmt: skip


def usema(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def split(tmp_path_factory) -> Path:
    """A split whose fold 0 holds four of the bundled model's real validation cases."""
    path = tmp_path_factory.mktemp("split") / "splits_final.json"
    path.write_text(json.dumps([{"train": ["a", "b"], "val": CASES}, {"train": ["a", "b"], "val": CASES[:2]}]))
    return path


@pytest.fixture(scope="module")
def measured(tmp_path_factory, data, split) -> Path:
    """The bundled model with a card; not to be changed."""
    folder = shutil.copytree(bundled_models()["hippocampus-mr"], tmp_path_factory.mktemp("measured") / "bundle")
    shutil.rmtree(folder / "card", ignore_errors=True)
    bundle = read_bundle(folder)
    # As if its training had been the split's.
    training = {**bundle.metadata.training, "cases": 2, "validation_cases": 4, "cases_sha256": names_sha256("ab")}
    training["validation_cases_sha256"] = names_sha256(CASES)
    change_metadata(bundle, metrics={"validation": {"cases": 1}, "mine": 7}, training=training)
    images, labels = data / DATASET / "imagesTr", data / DATASET / "labelsTr"
    result = usema("card", folder, "--images", images, "--labels", labels, "--split", split, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert str(folder / CARD_FILE) in result.output
    return folder


@pytest.fixture
def bundle(measured, tmp_path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(measured, tmp_path / "bundle")


@pytest.fixture(scope="module")
def text(measured) -> str:
    return (measured / CARD_FILE).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def results(measured) -> Results:
    return read_results(read_bundle(measured))


# What the card says


def test_every_section_is_there_and_the_warning_stands_first(text, measured):
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == list(SECTIONS)
    assert text.splitlines()[2] == f"> {WARNING}"
    metadata = read_bundle(measured).metadata
    for words in (metadata.intended_use, metadata.limits, metadata.citation, metadata.licence["attribution"]):
        assert words in text
    assert metadata.weights["sha256"] in section(text, "Weights, licence, citation")
    assert ["iterations", str(metadata.training["iterations"])] in table(text, "Training")
    assert str(measured) not in text, "a path of this computer is nobody's business"


def test_the_figures_are_those_of_the_evaluation_of_the_same_results(text, measured, results, data, tmp_path):
    predictor = Predictor(read_bundle(measured), "cpu")
    predictions, references = tmp_path / "predictions", tmp_path / "references"
    predictions.mkdir()
    references.mkdir()
    for case in CASES:
        result = predictor.segment(read_volume(data / DATASET / "imagesTr" / f"{case}_0000.nii.gz"))
        write_label_map(predictions / f"{case}.nii.gz", result.labels, result.geometry)
        shutil.copy(data / DATASET / "labelsTr" / f"{case}.nii.gz", references)
    scores = evaluate_folders(predictions, references, dict(enumerate(LABELS, 1)))
    kept = [
        (case.case, label.label, label.dice, label.surface_dice, label.hausdorff95_mm)
        for case in results.cases
        for label in case.labels
    ]
    assert kept == [(one.case, one.name, one.dice, one.surface_dice, one.hausdorff95_mm) for one in scores]

    rows = iter(table(text, "Results"))
    for label in summary(scores):
        for metric, title, digits in (
            ("dice", "Dice", 3),
            ("surface_dice", "surface Dice", 3),
            ("hausdorff95_mm", "HD95 / mm", 2),
        ):
            segment, cases, what, mean, interval, median, worst = next(rows)
            assert (segment, cases, what) == (label.name, "4 *", title)
            assert (mean, median) == (f"{label.mean[metric]:.{digits}f}", f"{label.median[metric]:.{digits}f}")
            low, high = map(float, interval.split(" to "))
            assert low <= float(mean) <= high
            values = {one.case: getattr(one, metric) for one in scores if one.name == label.name}
            extreme = (max if metric == "hausdorff95_mm" else min)(values.values())
            value, case = re.fullmatch(r"(\S+) \((.*)\)", worst).groups()
            assert value == f"{extreme:.{digits}f}"
            assert values[case] == extreme
    assert next(rows, None) is None


def test_the_models_own_metrics_become_what_was_measured_and_its_weights_stay(measured, results):
    original = bundled_models()["hippocampus-mr"]
    bundle = read_bundle(measured)
    bundle.verify()
    assert (measured / WEIGHTS_FILE).read_bytes() == (original / WEIGHTS_FILE).read_bytes()
    before, after = (read_bundle(folder).metadata.to_dict() for folder in (original, measured))
    assert {key for key in before if before[key] != after[key]} <= {"metrics", "training"}
    assert after["metrics"]["mine"] == 7
    validation = after["metrics"]["validation"]
    assert validation == validation_metrics(results)
    assert validation["cases"] == 4
    for index, name in enumerate(LABELS):
        dice = [case.labels[index].dice for case in results.cases]
        assert validation["dice"][name] == pytest.approx(statistics.fmean(dice), abs=1e-4)
        assert validation["dice"][name] > 0.8, "the bundled model finds both"


def test_volumes_and_errors_add_up_to_what_the_label_files_hold(results, data):
    for case in results.cases:
        reference = read_volume(data / DATASET / "labelsTr" / f"{case.case}.nii.gz").array
        for value, label in enumerate(case.labels, 1):
            assert label.reference_ml == pytest.approx((reference == value).sum() / 1000)
            shared = label.reference_ml - sum(label.missing_ml.values())
            assert shared == pytest.approx(label.predicted_ml - sum(label.added_ml.values()))
            assert label.dice == pytest.approx(2 * shared / (label.reference_ml + label.predicted_ml))


def test_the_groups_of_each_kind_hold_every_case_once(results, text):
    assert [case.intensity_type for case in results.cases] == ["8-bit integers", "floating point"] * 2
    for name in LABELS:
        found = groups(results.of_label(name))
        assert {group.kind for group in found} == {"voxels", "size"}
        for kind in ("voxels", "size"):
            members = [case.case for group in found if group.kind == kind for case, _ in group.members]
            assert sorted(members) == sorted(CASES)
        sizes = [[label.reference_ml for _, label in group.members] for group in found if group.kind == "size"]
        assert all(max(smaller) <= min(larger) for smaller, larger in itertools.pairwise(sizes))
    counts = [row[3] for row in table(text, "Groups of cases")]
    assert counts == ["2 *", "2 *", "4 *"] * 2, "few cases are marked as few, and not divided by size"


def test_the_worst_cases_are_shown_with_both_contours(measured, results, text):
    worst = sorted(results.cases, key=lambda case: case.dice)[:3]
    assert [shown.case for shown in results.pictured] == [case.case for case in worst]
    for picture, case in zip(PICTURES, worst, strict=True):
        assert f"### {case.case}: mean Dice {case.dice:.3f}" in text
        assert f"]({picture})" in text
        pixels = imread(measured / picture)[..., :3]
        assert (measured / picture).stat().st_size < 150_000
        assert pixels[100:300].std() > 0.1, "blank"
        drawn = [label.color for label in read_bundle(measured).metadata.labels]
        for color in [*(np.array(color) / 255 for color in drawn), np.array((1.0, 0.25, 1.0))]:
            on_slices = pixels[: int(0.85 * len(pixels))]  # the legend below has these colours, too
            assert (np.abs(on_slices - color).max(axis=-1) < 0.1).sum() > 50, f"{color} is not drawn"


def test_a_failure_is_described_in_millilitres(results):
    case = min(results.cases, key=lambda case: case.dice)
    worst = min(case.labels, key=lambda label: label.dice)
    said = failure(case)
    assert f"Worst segment: {worst.label}, Dice {worst.dice:.3f}" in said
    assert f"{sum(worst.missing_ml.values()):.2f} ml are missing" in said
    swapped = LabelResult("Head", 0.5, 0.5, 3.0, 2.0, 1.5, {"Tail": 0.9, "background": 0.3}, {"background": 0.2})
    assert failure(replace(case, labels=(swapped,))).endswith(
        "1.20 ml are missing (called 0.90 ml Tail, 0.30 ml background). "
        "0.20 ml are added (in the reference background)."
    )


def test_a_displaced_reference_is_told_from_a_poor_result(measured, data, results):
    predictor, source = Predictor(read_bundle(measured), "cpu"), data / DATASET
    volume = read_volume(source / "imagesTr/hippocampus_149_0000.nii.gz")
    segmentation, reference = predictor.segment(volume), read_volume(source / "labelsTr/hippocampus_149.nii.gz").array
    assert volume.geometry.orientation == "RAS"
    dice = next(case.dice for case in results.cases if case.case == "hippocampus_149")
    assert dice_at_best_shift(segmentation, reference) == (pytest.approx(dice), "")
    displaced = np.roll(reference, (1, 0, -1), (0, 1, 2))  # one voxel superior and one left
    assert dice_at_best_shift(segmentation, displaced) == (pytest.approx(dice), "1 mm inferior, 1 mm right")

    case = replace(results.cases[0], labels=(replace(results.cases[0].labels[0], dice=0.8),))
    shown = replace(results, cases=(case,), pictured=(Pictured(case.case, 0.9, "1 mm left"),))
    metadata = read_bundle(measured).metadata
    assert "reference moved 1 mm left, the mean Dice would be 0.900" in render(metadata, shown, [])
    slightly = replace(shown, pictured=(Pictured(case.case, 0.81, "1 mm left"),))
    assert "moved" not in section(render(metadata, slightly, []), "Where it fails")


def test_training_is_only_said_to_have_left_out_its_own_validation_fold(text, bundle, split, data):
    assert "Training left these cases out" in text
    images, labels = data / DATASET / "imagesTr", data / DATASET / "labelsTr"
    arguments = ("--images", images, "--labels", labels, "--split", split, "--fold", 1, "--device", "cpu")
    assert usema("card", bundle, *arguments).exit_code == 0
    said = (bundle / CARD_FILE).read_text(encoding="utf-8")
    assert "Training left these cases out" not in said
    assert "is not known" in section(said, "How it was evaluated")
    assert not (bundle / PICTURES[2]).exists(), "two cases have no third"


def test_calibration_and_robustness_are_shown_where_they_were_measured(results, measured):
    metadata = read_bundle(measured).metadata
    calibration = {"cases": 26, "voxels": 9, "region": "near the foreground", "cases_from": "here", "left_out": False}
    calibration |= {"ece": 0.05, "ece_with_temperature": 0.01, "nll": 0.3, "nll_with_temperature": 0.2}
    robustness = [{"change": "8 bit", "cases": 6, "dice_drop": 0.0123, "low": 0.001, "high": 0.02}]
    metadata = replace(
        metadata, inference={"temperature": 1.31}, metrics={"calibration": calibration, "robustness": robustness}
    )
    text = render(metadata, results, [RELIABILITY_PICTURE])
    assert ["expected calibration error", "0.0500", "0.0100"] in table(text, "Calibration")
    assert "temperature 1.31" in text
    assert "Whether training saw any of these cases is not known" in section(text, "Calibration")
    assert f"]({RELIABILITY_PICTURE})" in text
    assert table(text, "Robustness") == [["8 bit", "6", "0.012 (0.001 to 0.020)"]]
    assert not any(picture in text for picture in PICTURES), "pictures that are not there are not mentioned"


@pytest.mark.parametrize(
    "metrics", [{"robustness": [{"name": "noise", "drop": 0.1}]}, {"calibration": {"ece_with_temperature": 0.1}}]
)
def test_figures_that_no_usema_wrote_are_refused_by_their_file(bundle, metrics):
    change_metadata(read_bundle(bundle), metrics=metrics, inference={"mirror_axes": [], "temperature": 2.0})
    result = usema("card", bundle)
    assert result.exit_code == 1
    assert "holds figures that no USEMA wrote" in result.output


def test_the_tolerance_is_the_coarsest_voxel_that_training_saw(bundle, data, tmp_path):
    """With voxels of 3 mm, surfaces 3 mm apart are as good as they can be told apart."""
    change_metadata(read_bundle(bundle), expected_spacing_mm={"min": [1.0] * 3, "max": [1.0, 3.0, 1.0]})
    images, labels = tmp_path / "images", tmp_path / "labels"
    for folder, part, name in (
        (images, "imagesTr", f"{CASES[0]}_0000.nii.gz"),
        (labels, "labelsTr", f"{CASES[0]}.nii.gz"),
    ):
        folder.mkdir()
        shutil.copy(data / DATASET / part / name, folder)
    result = usema("card", bundle, "--images", images, "--labels", labels, "--device", "cpu")
    assert result.exit_code == 0, result.output
    measured = read_results(read_bundle(bundle))
    assert measured.tolerance_mm == 3.0
    assert "within 3 mm of the other, counted in voxels" in (bundle / CARD_FILE).read_text(encoding="utf-8")
    predictions = tmp_path / "predictions"
    predictions.mkdir()
    found = Predictor(read_bundle(bundle), "cpu").segment(read_volume(images / f"{CASES[0]}_0000.nii.gz"))
    write_label_map(predictions / f"{CASES[0]}.nii.gz", found.labels, found.geometry)
    (wide, _), (narrow, _) = (evaluate_folders(predictions, labels, tolerance_mm=mm) for mm in (3.0, 1.0))
    assert measured.cases[0].labels[0].surface_dice == wide.surface_dice > narrow.surface_dice


# It is made again, and travels


def test_made_again_without_images_it_is_the_same(bundle, text):
    (bundle / CARD_FILE).unlink()
    before = (bundle / METADATA_FILE).read_bytes()
    assert usema("card", bundle).exit_code == 0
    assert (bundle / CARD_FILE).read_text(encoding="utf-8") == text
    assert (bundle / METADATA_FILE).read_bytes() == before


def test_it_travels_with_the_model_and_is_found_where_it_arrives(measured, tmp_path):
    file = archive.pack(measured, tmp_path / "model.usema")
    installed = install_file(file, consent=question_of_file(file)).path  # it takes the bundled model's place
    assert installed.is_relative_to(cache.folder())
    for name in FILES:
        assert (installed / name).exists() == (measured / name).exists(), name
        if (measured / name).exists():
            assert (installed / name).read_bytes() == (measured / name).read_bytes()
    assert archive.pack(installed, tmp_path / "again.usema").read_bytes() == file.read_bytes()
    shown = usema("models", "show", "hippocampus-mr", "--json")
    assert json.loads(shown.stdout)["name"] == "hippocampus-mr"
    assert f"Model card: {installed / CARD_FILE}" in shown.stderr


def test_the_panel_links_to_it(measured, tmp_path, openPanel):
    file = archive.pack(measured, tmp_path / "model.usema")
    installed = install_file(file, consent=question_of_file(file)).path
    assert f'href="{(installed / CARD_FILE).as_uri()}"' in openPanel().ui.modelInfoLabel.text


def with_member(file: Path, name: str, data: bytes) -> Path:
    with zipfile.ZipFile(file, "a") as opened:
        opened.writestr(name, data)
    return file


def test_a_foreign_file_beside_the_card_stays_in_the_zip(measured, bundle, tmp_path):
    (bundle / "card" / "notes.txt").write_text("Not for others.")
    file = archive.pack(bundle, tmp_path / "model.usema")
    assert not any("notes" in name for name in zipfile.ZipFile(file).namelist())
    for name in ("card/run.py", "card/worst-4.png", "card/deeper/cases.json", "card/card.md"):
        with_member(file, name, b"evil")
    unpacked = archive.unpack(file, tmp_path / "out").path
    present = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
    assert present == {METADATA_FILE, WEIGHTS_FILE, "LICENSE.txt", CARD_FILE, CASES_FILE, *PICTURES}


@pytest.mark.fault
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (RELIABILITY_PICTURE, bytes(20 * 2**20), "of 20971520 bytes"),
        ("card/../../evil", b"evil", "leads out of its folder"),
        (CARD_FILE, b"another", "twice"),
    ],
)
def test_a_card_that_is_not_safe_is_refused(name, content, message, measured, tmp_path):
    file = archive.pack(measured, tmp_path / "model.usema")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a name is there twice
        with_member(file, name, content)
    with pytest.raises(BundleError, match=message):
        archive.unpack(file, tmp_path / "out")


# What cannot be made


def test_what_was_never_measured_or_with_other_weights_has_no_card(bundle):
    read = read_bundle(bundle)
    other = replace(read, metadata=replace(read.metadata, weights={**read.metadata.weights, "sha256": "0" * 64}))
    with pytest.raises(InputError, match="other weights"):
        read_results(other)
    without = json.loads((bundle / CASES_FILE).read_text(encoding="utf-8")) | {"cases": []}
    for damaged in ('{"cases": [{}]}', "[]", "{", json.dumps(without)):
        (bundle / CASES_FILE).write_text(damaged)
        with pytest.raises(BundleError, match="is not what `usema card` writes"):
            read_results(read)
    (bundle / CASES_FILE).unlink()
    result = usema("card", bundle)
    assert result.exit_code == 1
    assert "no measured cases" in result.output
    assert "--images" in result.output


def test_input_that_does_not_fit_is_named(bundle, data, split, tmp_path):
    images, labels = data / DATASET / "imagesTr", data / DATASET / "labelsTr"
    before = (bundle / CARD_FILE).read_bytes(), (bundle / METADATA_FILE).read_bytes()
    swapped = tmp_path / "labels"
    swapped.mkdir()
    shutil.copy(labels / "hippocampus_007.nii.gz", swapped / "hippocampus_001.nii.gz")
    for arguments, message in (
        (["--images", images], "--images and --labels, or neither"),
        (["--split", split], "--split chooses among"),
        (["--images", tmp_path, "--labels", labels, "--split", split], "has no image hippocampus_001_0000"),
        (["--images", images, "--labels", labels, "--split", split, "--fold", 7], "no fold 7"),
        (["--images", images, "--labels", swapped], "lie on different grids"),
    ):
        result = usema("card", bundle, *arguments)
        assert result.exit_code != 0
        assert message in result.output
    file = archive.pack(bundle, tmp_path / "model.usema")
    assert "is no folder" in usema("card", file).output
    assert before == ((bundle / CARD_FILE).read_bytes(), (bundle / METADATA_FILE).read_bytes())
