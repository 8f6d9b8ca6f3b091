"""`usema segment` with a model for images: formats in and out, objects, measurements, folders, and refusals."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk
from click.testing import CliRunner
from image_files import dicom_image, save_dicom, write_all_formats
from image_models import blobs, write_image_bundle
from PIL import Image
from usema.cli import main
from usema.cli.cases import plan_cases, targets
from usema.measure import Measurement

IMAGE, MASK = blobs(100)


@pytest.fixture(scope="module")
def model(discs):
    return discs


@pytest.fixture
def image(tmp_path):
    Image.fromarray(IMAGE).save(tmp_path / "cells.png", dpi=(72, 72))
    return tmp_path / "cells.png"


def segment(*arguments):
    return CliRunner().invoke(main, ["segment", *map(str, arguments)], catch_exceptions=False)


def indices(path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_an_image_becomes_a_label_picture_objects_a_table_and_an_overlay(model, image, tmp_path):
    out = tmp_path / "out"
    result = segment(
        image, "-o", out / "labels.png", "--objects", out / "objects.png", "--table", out / "objects.csv",
        "--overlay", out / "overlay.png", "--model", model,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    labels = Image.open(out / "labels.png")
    assert labels.mode == "P"
    assert labels.getpalette()[3:6] == [40, 200, 90]
    assert labels.info["USEMA.model"] == "discs"
    assert labels.info["USEMA.pixelSize"] == "not known"
    found = np.asarray(labels) == 1
    assert 2 * (found & MASK).sum() / (found.sum() + MASK.sum()) > 0.98
    objects = indices(out / "objects.png")
    assert np.array_equal(objects != 0, found)
    with (out / "objects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["object"]) for row in rows] == list(range(1, objects.max() + 1))
    assert sum(int(row["pixels"]) for row in rows) == found.sum()
    overlay = indices(out / "overlay.png").astype(int)
    assert overlay.shape == (96, 128, 3)
    assert np.array_equal(overlay[~found], np.stack([IMAGE] * 3, axis=-1)[~found])
    assert (overlay[found] != np.stack([IMAGE] * 3, axis=-1)[found]).any(axis=-1).mean() > 0.9
    assert f"Objects {objects.max()}" in result.output
    assert f"Disc {found.sum()} pixels" in result.output
    for text in (result.output, (out / "objects.csv").read_text()):
        assert not any(unit in text.split() for unit in ("mm", "mm²", "ml", "/ml"))
        assert " mm" not in text
        assert " ml" not in text


def test_with_the_size_of_a_pixel_areas_are_in_millimetres(model, image, tmp_path):
    out = tmp_path / "labels.seg.nrrd"
    result = segment(image, "-o", out, "--pixel-size", "0.5", "--model", model, "--table", tmp_path / "t.csv")
    assert "mm²" in result.output
    assert " ml" not in result.output
    with (tmp_path / "t.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert float(row["area / mm2"]) == pytest.approx(int(row["pixels"]) / 4)
    image = sitk.ReadImage(str(out))
    assert image.GetSpacing() == (0.5, 0.5, 1)
    assert image.GetMetaData("Segment0_Name") == "Disc"
    assert not image.HasMetaDataKey("Segment1_Name")
    assert "mm" in image.GetMetaData("Segment0_Tags")


def test_formats_of_one_image_in_a_folder_give_the_same_mask(model, tmp_path):
    """Each is a case, and each result a picture, beside one table."""
    given = write_all_formats(tmp_path, IMAGE)
    (tmp_path / "in").mkdir()
    for name in ("grey.png", "palette.tif", "monochrome1.dcm", "slice.nii"):
        given[name].rename(tmp_path / "in" / name)
    result = segment(tmp_path / "in", "-o", f"{tmp_path / 'out'}/", "--format", ".png", "--model", model)
    assert result.exit_code == 0, result.output
    results = sorted((tmp_path / "out").glob("*.png"))
    assert [path.name for path in results] == ["grey.png", "monochrome1.png", "palette.png", "slice.png"]
    expected = indices(results[0])
    assert 2 * ((expected == 1) & MASK).sum() / ((expected == 1).sum() + MASK.sum()) > 0.98
    for path in results:
        assert np.array_equal(indices(path), expected), path.name
    with (tmp_path / "out" / "cohort.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["Disc / pixels"] for row in rows} == {str(float((expected == 1).sum()))}
    assert all(float(row["Objects"]) > 3 for row in rows)
    assert not any("ml" in column.split() for column in rows[0])
    again = segment(tmp_path / "in", "-o", f"{tmp_path / 'out'}/", "--format", ".png", "--model", model)
    assert "4 of 4 were done before" in again.output


def test_images_that_differ_in_their_ending_alone_have_results_of_their_own(model, tmp_path):
    places = targets(f"{tmp_path / 'out'}/", None, None, None, None, True)
    for name in ("a.png", "a.jpg", "a.dcm"):
        (tmp_path / name).touch()
    cases, _ = plan_cases([tmp_path / name for name in ("a.png", "a.jpg", "a.dcm")], [], places, images=True)
    assert [case.output.name for case in cases] == ["a_png.png", "a_jpg.png", "a_dcm.nii.gz"]
    assert [case.name for case in cases] == ["a.png", "a.jpg", "a.dcm"]


def test_a_cine_is_segmented_frame_by_frame(model, tmp_path):
    frames = np.stack([IMAGE, IMAGE[::-1], IMAGE[:, ::-1]])
    cine = save_dicom(tmp_path / "cine.dcm", dicom_image(frames, frames=3, PixelSpacing=[0.2, 0.2]))
    assert (
        "holds one picture, and there are 3 frames" in segment(cine, "-o", tmp_path / "a.png", "--model", model).output
    )
    out, overlay = tmp_path / "a.tif", tmp_path / "o.png"
    result = segment(cine, "-o", out, "--model", model, "--overlay", overlay, "--table", tmp_path / "t.csv")
    assert result.exit_code == 0, result.output
    pages = Image.open(out)
    assert pages.n_frames == 3
    assert "of 3" in result.output
    with (tmp_path / "t.csv").open(newline="") as file:
        assert {row["frame"] for row in csv.DictReader(file)} == {"1", "2", "3"}
    assert segment(cine, "-o", tmp_path / "b.nii.gz", "--model", model).exit_code == 0
    image = sitk.ReadImage(str(tmp_path / "b.nii.gz"))
    assert image.GetSize() == (128, 96, 3)
    assert image.GetSpacing()[:2] == pytest.approx((0.2, 0.2))


def test_a_table_of_a_model_without_objects_has_the_areas_of_each_frame(tmp_path):
    write_image_bundle(tmp_path / "discs")
    frames = np.stack([IMAGE, np.full_like(IMAGE, 60)])
    cine = tmp_path / "cine.dcm"
    save_dicom(cine, dicom_image(frames, frames=2))
    for size, unit, pixel in (((), "pixels", 1), (("--pixel-size", "0.5"), "mm2", 0.25)):
        table, labels = tmp_path / f"{unit}.csv", tmp_path / f"{unit}.nii.gz"
        told = segment(cine, "-o", labels, "--table", table, "--model", tmp_path / "discs", *size)
        assert told.exit_code == 0, told.output
        with table.open(newline="") as file:
            rows = list(csv.DictReader(file))
        counted = (sitk.GetArrayFromImage(sitk.ReadImage(str(labels))) == 1).sum(axis=(1, 2)) * pixel
        assert [float(row[f"Disc / {unit}"]) for row in rows] == pytest.approx(counted.tolist())
        assert [row["frame"] for row in rows] == ["1", "2"]
        assert counted[0] > counted[1] == 0
        assert f"Disc {Measurement('', counted.mean(), unit).amount}" in " ".join(told.output.split())


@pytest.mark.parametrize(("across", "ending"), [(0, ".nii.gz"), (1, ".nrrd"), (0, ".mha")])
def test_a_sagittal_or_coronal_slice_is_seen_upright_and_its_result_lies_on_its_grid(model, tmp_path, across, ending):
    """Stored as a volume's slice is, from inferior to superior; as a picture, superior is up."""
    stored = np.expand_dims(IMAGE[::-1], 2 - across)
    slices = sitk.GetImageFromArray(stored)
    slices.SetSpacing((0.7, 3.0, 0.5) if across else (3.0, 0.7, 0.5))
    slices.SetOrigin((-20, 10, 300))
    sitk.WriteImage(slices, str(tmp_path / f"slice{ending}"))
    Image.fromarray(IMAGE).save(tmp_path / "upright.png")
    for given, out in (("upright.png", "upright.labels.png"), (f"slice{ending}", "slice.png")):
        told = segment(tmp_path / given, "-o", tmp_path / out, "--model", model)
        assert told.exit_code == 0, told.output
    upright = indices(tmp_path / "upright.labels.png")
    assert np.array_equal(indices(tmp_path / "slice.png"), upright)
    out = tmp_path / f"labels{ending}"
    told = segment(
        tmp_path / f"slice{ending}", "-o", out, "--objects", tmp_path / "o.nrrd", "--table", tmp_path / "t.csv",
        "--model", model,
    )  # fmt: skip
    assert told.exit_code == 0, told.output
    for path in (out, tmp_path / "o.nrrd"):
        found = sitk.ReadImage(str(path))
        assert (found.GetSize(), found.GetOrigin()) == (slices.GetSize(), pytest.approx(slices.GetOrigin()))
        assert found.GetSpacing() == pytest.approx(slices.GetSpacing())
        assert found.GetDirection() == pytest.approx(slices.GetDirection())
        array = sitk.GetArrayFromImage(found)
        assert np.array_equal(array.squeeze(2 - across) > 0, upright[::-1] > 0)
    with (tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(float(row["area / mm2"]) for row in rows) == pytest.approx((upright > 0).sum() * 0.35)


def test_the_other_kind_of_input_is_refused_before_torch_is_loaded(model, image, tmp_path):
    volume = tmp_path / "ct.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(np.stack([IMAGE] * 20)), str(volume))
    program = (
        "import sys\n"
        "from usema.cli import main\n"
        "try: main()\n"
        "finally: print('torch' if 'torch' in sys.modules else 'no engine', file=sys.stderr)\n"
    )
    for given, more, message in (
        (volume, ["--model", model], "a volume of 128 x 96 x 20 voxels, and the model is for two-dimensional images"),
        (image, [], "is a two-dimensional image, and the model is for volumes"),
    ):
        command = [sys.executable, "-c", program, "segment", str(given), "-o", str(tmp_path / "x.nii.gz"), *more]
        run = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
        assert run.returncode == 1
        assert message in " ".join(run.stderr.split())
        assert "no engine" in run.stderr
        assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pixel-size", "0"], "A pixel of 0 mm is none"),
        (["--pixel-size", "nan"], "A pixel of nan mm is none"),
        (["--statistics", "s.csv"], "--statistics is for volumes"),
        (["--objects", "o.seg.nrrd"], "none of the suffixes"),
        (["--format", ".png"], "a.png is a file: leave out one of the two"),
        (["--only", "Rim"], "Rim"),
    ],
)
def test_options_that_do_not_fit_are_refused(model, image, tmp_path, options, message):
    result = segment(image, "-o", tmp_path / "a.png", "--model", model, *options)
    assert result.exit_code != 0
    assert message in " ".join(result.output.split())
    assert not (tmp_path / "a.png").exists()


def test_results_of_images_are_no_dicom_and_objects_are_of_models_that_find_some(model, image, tmp_path):
    for output, more, message in (
        ("a.dcm", (), "'a.dcm' has none of the suffixes that can be written"),
        ("a.rtstruct.dcm", (), "'a.rtstruct.dcm' has none of the suffixes that can be written"),
        ("out/", ("--format", ".dcm"), "--format .dcm is for volumes"),
    ):
        result = segment(image, "-o", f"{tmp_path}/{output}", "--model", model, *more)
        assert result.exit_code != 0
        assert message in " ".join(result.output.split())
    write_image_bundle(tmp_path / "discs")
    labels = tmp_path / "a.png"
    result = segment(image, "-o", labels, "--objects", tmp_path / "o.png", "--model", tmp_path / "discs")
    assert "does not split what it finds into objects" in " ".join(result.output.split())
    assert not labels.exists()


def test_options_for_images_are_refused_with_a_model_for_volumes(image, tmp_path):
    result = segment(image, "-o", tmp_path / "a.nii.gz", "--table", tmp_path / "t.csv")
    assert "--table is for two-dimensional images" in " ".join(result.output.split())
    assert "none of the suffixes" in " ".join(segment(image, "-o", tmp_path / "a.png").output.split())


def test_conversions_are_said_and_kept_with_the_case(model, tmp_path):
    Image.fromarray(np.stack([IMAGE] * 3, axis=-1)).save(tmp_path / "a.png")
    Image.fromarray(IMAGE).save(tmp_path / "b.png")
    result = segment(tmp_path / "a.png", tmp_path / "b.png", "-o", f"{tmp_path / 'out'}/", "--model", model)
    assert "the model sees its luminance" in " ".join(result.output.split())
    status = [json.loads(path.read_text("utf-8")) for path in (tmp_path / "out" / "status").iterdir()]
    assert sorted(len(one["warnings"]) for one in status) == [0, 1]
    assert np.array_equal(indices(tmp_path / "out/a.png"), indices(tmp_path / "out/b.png"))
