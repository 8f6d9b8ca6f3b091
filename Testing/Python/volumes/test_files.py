"""Files whose headers are unusual or contradict themselves: read with a word, or refused by the true cause."""

from __future__ import annotations

import gzip
import logging
import os
import struct
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import write_frames, write_series
from usema.errors import InputError
from usema.resources import sample_volume
from usema.volumes.volume import Volume, read_volume


@pytest.fixture(scope="module")
def sample():
    return read_volume(sample_volume())


@pytest.fixture(scope="module")
def raw():
    """The sample's file: NIfTI-1, little endian, 8 bits, sform and qform."""
    return gzip.decompress(sample_volume().read_bytes())


def patched(raw: bytes, path, *changes, tail=b""):
    content = bytearray(raw)
    for offset, form, *values in changes:
        struct.pack_into("<" + form, content, offset, *values)
    content = bytes(content)
    path.write_bytes((gzip.compress(content) if path.name.lower().endswith("gz") else content) + tail)
    return path


def said(path, caplog) -> str:
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        said.volume = read_volume(path)
    return caplog.text


def message(path) -> str:
    with pytest.raises(InputError) as caught:
        read_volume(path)
    return str(caught.value)


def raw_lines(capfd, caplog) -> list[str]:
    """What stands on standard error beside what was logged, which other tests may have led there."""
    return [line for line in capfd.readouterr().err.splitlines() if not any(one in line for one in caplog.messages)]


def same(path, sample) -> bool:
    volume = read_volume(path)
    return np.array_equal(volume.array, sample.array) and volume.geometry.same_grid(sample.geometry)


# NIfTI


def test_what_other_readers_read_is_read(raw, sample, tmp_path, capfd):
    nan = float("nan")
    assert same(patched(raw, tmp_path / "slope.nii.gz", (112, "2f", nan, nan)), sample)
    assert same(patched(raw, tmp_path / "slope0.nii", (112, "2f", 0, nan)), sample)
    assert same(patched(raw, tmp_path / "Mixed.Nii.Gz"), sample)
    assert same(patched(raw, tmp_path / "UPPER.NII"), sample)
    assert same(patched(raw, tmp_path / "sign.nii", (80, "f", -1.0)), sample)
    assert same(patched(raw, tmp_path / "qfac.nii", (76, "f", 0.0), (254, "h", 0)), sample)
    for tail in (b"\r\n", b"\0" * 700, b"\x1f"):
        assert same(patched(raw, tmp_path / "tail.nii.gz", tail=tail), sample)
    (tmp_path / "zipped.nii").write_bytes(gzip.compress(raw))
    (tmp_path / "plain.nii.gz").write_bytes(raw)
    (tmp_path / "members.nii.gz").write_bytes(gzip.compress(raw[:20000]) + gzip.compress(raw[20000:]))
    for name in ("zipped.nii", "plain.nii.gz", "members.nii.gz"):
        assert same(tmp_path / name, sample)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", ["Nifti2Image", "Nifti1Pair", "Nifti2Pair", "Spm99AnalyzeImage", "AnalyzeImage"])
def test_nifti_2_and_files_in_pairs_are_read(raw, sample, tmp_path, kind, caplog):
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ sample.geometry.affine
    suffix = ".nii.gz" if kind == "Nifti2Image" else ".img"
    array = sample.array.astype(np.int16).T
    getattr(nibabel, kind)(array, affine).to_filename(tmp_path / f"volume{suffix}")
    for path in tmp_path.iterdir():
        if path.suffix != ".mat":
            words = said(path, caplog)
            assert np.array_equal(said.volume.array, sample.array)
            assert said.volume.geometry.spacing == pytest.approx((1, 1, 1))
            if "Analyze" in kind:
                assert "does not say how the patient lies" in words
            else:
                assert said.volume.geometry.same_grid(sample.geometry)
    if suffix == ".img":
        (tmp_path / "volume.hdr").unlink()
        assert "volume.hdr is not there" in message(tmp_path / "volume.img")


def test_a_scale_is_applied_as_itk_applies_it_and_more_exactly_to_long_numbers(raw, sample, tmp_path):
    path = patched(raw, tmp_path / "scaled.nii", (112, "2f", 0.5, -3))
    assert np.array_equal(read_volume(path).array, sitk.GetArrayFromImage(sitk.ReadImage(str(path))))
    whole = (sample.array.astype("<i4") + 10**9).tobytes()
    path = patched(raw[:352] + whole, tmp_path / "long.nii", (70, "2h", 8, 32), (112, "2f", 2, 1))
    assert np.array_equal(read_volume(path).array, (sample.array.astype(float) + 10**9) * 2 + 1)


def sform(affine, code=1):
    return [(254, "h", code), (280, "12f", *np.ravel(affine)[:12])]


@pytest.mark.parametrize("off", [2e-4, 3e-3, 8e-3])
def test_axes_that_rounding_took_off_the_perpendicular_are_set_right(raw, tmp_path, off, caplog):
    affine = np.array([[2, 2 * off, 0, 5], [0, 2, 0, 6], [0, 0, 2, 7.0]])
    path = patched(raw, tmp_path / "off.nii", (252, "h", 0), (80, "3f", 2, 2, 2), *sform(affine))
    assert ("off the perpendicular" in said(path, caplog)) == (off > 1e-3)
    axes = said.volume.geometry.axes
    assert np.abs(axes.T @ axes - np.eye(3)).max() <= 1e-3
    assert np.abs(axes - np.diag([-1, -1, 1])).max() <= off
    (sitk_image := sitk.GetImageFromArray(said.volume.array)).SetDirection([1, off, 0, 0, 1, 0, 0, 0, 1])
    for suffix in (".nrrd", ".mha"):
        sitk.WriteImage(sitk_image, str(tmp_path / f"off{suffix}"))
        assert ("off the perpendicular" in said(tmp_path / f"off{suffix}", caplog)) == (off > 1e-3)


def test_a_true_shear_is_refused_as_one_unless_the_qform_is_straight(raw, tmp_path, caplog):
    affine = np.array([[1, 0.1, 0, 5], [0, 1, 0, 6], [0, 0, 1, 7.0]])
    path = patched(raw, tmp_path / "shear.nii", (252, "h", 0), *sform(affine))
    assert "sheared" in message(path)
    assert "5.7 degrees" in message(path)
    assert "Resample" in message(path)
    path = patched(raw, tmp_path / "both.nii", (252, "h", 1), *sform(affine))
    assert "sheared by 5.7 degrees; its qform was taken" in said(path, caplog)


@pytest.mark.parametrize(("code", "taken"), [(1, "sform"), (2, "qform"), (4, "qform")])
def test_the_transform_that_3d_slicer_takes_is_taken_and_said_where_two_disagree(raw, tmp_path, code, taken, caplog):
    affine = np.array([[0, 1, 0, 50], [1, 0, 0, 60], [0, 0, -1, 70.0]])
    path = patched(raw, tmp_path / "two.nii", (252, "h", 1), *sform(affine, code))
    assert f"The {taken} was taken" in said(path, caplog)
    image = sitk.ReadImage(str(path))
    assert np.allclose(said.volume.geometry.origin, image.GetOrigin(), atol=1e-4)
    assert np.allclose(said.volume.geometry.direction, image.GetDirection(), atol=1e-4)


def test_a_pixdim_that_disagrees_with_the_sform_is_said(raw, tmp_path, caplog, capfd):
    affine = np.array([[2, 0, 0, 5], [0, 2, 0, 6], [0, 0, 2, 7.0]])
    path = patched(raw, tmp_path / "pixdim.nii", (252, "h", 0), *sform(affine))
    assert "its sform has voxels of 2 x 2 x 2 mm, its pixdim says 1 x 1 x 1 mm. The sform was taken" in said(
        path, caplog
    )
    assert said.volume.geometry.spacing == (2, 2, 2)
    assert raw_lines(capfd, caplog) == []


@pytest.mark.parametrize(("code", "factor"), [(0, 1), (1, 1000), (2, 1), (3, 0.001)])
def test_units_of_nifti_are_converted(raw, tmp_path, code, factor):
    assert read_volume(patched(raw, tmp_path / "u.nii", (123, "B", code))).geometry.spacing[0] == pytest.approx(factor)


def test_a_gigantic_size_in_a_damaged_header_takes_no_memory(raw, tmp_path):
    for name in ("a.nii", "a.nii.gz"):
        path = patched(raw, tmp_path / name, (40, "4h", 3, 32000, 32000, 32000))
        assert "is incomplete" in message(path)


# NRRD and MetaImage


def nrrd(path, sample, **fields):
    x, y, z = sample.geometry.size
    lines = {"type": "uint8", "dimension": "3", "sizes": f"{x} {y} {z}", "encoding": "raw"}
    lines |= {key.replace("_", " "): value for key, value in fields.items()}
    header = "NRRD0005\n" + "".join(f"{key}: {value}\n" for key, value in lines.items() if value) + "\n"
    path.write_bytes(header.encode() + sample.array.tobytes())
    return path


UNITS = {"mm": 1, "cm": 0.1, "m": 0.001, "um": 1000, "µm": 1000, "micron": 1000, "inch": 1 / 25.4, "in": 1 / 25.4}


@pytest.mark.parametrize("unit", UNITS)
def test_units_of_nrrd_are_converted(sample, tmp_path, unit, caplog):
    f, (x, y, z) = UNITS[unit], sample.geometry.origin
    fields = {
        "space": "left-posterior-superior",
        "space_directions": f"({-f},0,0) (0,{-f},0) (0,0,{f})",
        "space_origin": f"({x * f},{y * f},{z * f})",
        "space_units": f'"{unit}" "{unit}" "{unit}"',
    }
    path = nrrd(tmp_path / "u.nrrd", sample, **fields)
    assert same(path, sample)
    assert (f"gives its lengths in {unit}" in said(path, caplog)) == (unit != "mm")


def test_each_axis_may_have_its_own_unit_and_an_unknown_one_is_refused_by_its_name(sample, tmp_path):
    place = {"space": "left-posterior-superior", "space_directions": "(1,0,0) (0,0,0.1) (0,2000,0)"}
    path = nrrd(tmp_path / "a.nrrd", sample, **place, space_units='"mm" "um" "cm"')
    assert read_volume(path).geometry.spacing == pytest.approx((1, 1, 2))
    path = nrrd(tmp_path / "b.nrrd", sample, units='"mm" "cm" "um"', spacings="1 0.1 3000")
    assert read_volume(path).geometry.spacing == pytest.approx((1, 1, 3))
    unit = '"furlong" "furlong" "furlong"'
    assert "'furlong'" in message(nrrd(tmp_path / "c.nrrd", sample, **place, space_units=unit))
    assert "'furlong'" in message(nrrd(tmp_path / "d.nrrd", sample, units=unit, spacings="1 1 1"))


def test_a_unit_of_metaimage_is_converted(sample, tmp_path):
    sitk.WriteImage(sample.to_image(), str(tmp_path / "u.mha"))
    content = (tmp_path / "u.mha").read_bytes()
    (tmp_path / "u.mha").write_bytes(content.replace(b"NDims = 3\n", b"NDims = 3\nDistanceUnits = cm\n"))
    assert read_volume(tmp_path / "u.mha").geometry.spacing == (10, 10, 10)


def test_nrrd_and_metaimage_that_do_not_say_how_the_patient_lies_are_warned_of(sample, tmp_path, caplog):
    words = "does not say how the patient lies"
    assert words in said(nrrd(tmp_path / "a.nrrd", sample, spacings="1 1 1"), caplog)
    directions = {"space_directions": "(1,0,0) (0,1,0) (0,0,1)"}
    assert words in said(nrrd(tmp_path / "b.nrrd", sample, space_dimension="3", **directions), caplog)
    assert words in said(nrrd(tmp_path / "c.nrrd", sample, space="scanner-xyz", **directions), caplog)
    assert words not in said(nrrd(tmp_path / "d.nrrd", sample, space="RAS", **directions), caplog)
    sitk.WriteImage(sample.to_image(), str(tmp_path / "a.mha"))
    assert words not in said(tmp_path / "a.mha", caplog)
    lines = (tmp_path / "a.mha").read_bytes().replace(b"TransformMatrix", b"Comment")
    (tmp_path / "a.mha").write_bytes(lines)
    assert words in said(tmp_path / "a.mha", caplog)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_a_fourth_dimension_of_one_volume_is_none(sample, tmp_path, suffix):
    sitk.WriteImage(sitk.JoinSeries([sample.to_image()]), str(tmp_path / f"one{suffix}"))
    assert same(tmp_path / f"one{suffix}", sample)


def test_voxels_that_stayed_on_another_computer_are_named(sample, tmp_path, capfd):
    for name, field in (("a.mhd", b"ElementDataFile = "), ("b.nhdr", b"data file: ")):
        sitk.WriteImage(sample.to_image(), str(tmp_path / name))
        lines = (tmp_path / name).read_bytes().splitlines()
        lines = [field + rb"C:\data\scan.raw" if line.startswith(field) else line for line in lines]
        (tmp_path / name).write_bytes(b"\n".join(lines) + b"\n\n")
        assert r"C:\data\scan.raw" in message(tmp_path / name)
        lines = [field + b"LIST" if line.startswith(field) else line for line in lines]
        (tmp_path / name).write_bytes(b"\n".join(lines) + b"\n1.raw\n2.raw\n")
        assert "1.raw" in message(tmp_path / name)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", [".mhd", ".nhdr"])
@pytest.mark.parametrize("place", [b"any\xff/v", b"v\xff"], ids=["folder", "file"])
def test_a_header_and_its_voxels_are_read_where_a_name_is_no_text(sample, tmp_path, suffix, place):
    path = tmp_path / f"{os.fsdecode(place)}{suffix}"
    path.parent.mkdir(exist_ok=True)
    sitk.WriteImage(sample.to_image(), str(tmp_path / f"v{suffix}"))
    (raw,) = (beside for beside in tmp_path.glob("v.*") if beside.suffix != suffix)
    moved = raw.rename(f"{path}.raw")  # whose name the header tells
    header = (tmp_path / f"v{suffix}").read_bytes()
    path.write_bytes(header.replace(os.fsencode(raw.name), os.fsencode(moved.name)))
    assert same(path, sample)
    moved.unlink()
    assert "are in a file that is not there" in message(path)


def test_what_a_file_holds_counts_not_its_name(sample, tmp_path):
    for written, named in ((".nrrd", ".nii.gz"), (".mha", ".nrrd"), (".nii", ".mha")):
        sitk.WriteImage(sample.to_image(), str(tmp_path / f"v{written}"))
        (tmp_path / f"v{written}").rename(tmp_path / f"w{named}")
        assert same(tmp_path / f"w{named}", sample)
    (tmp_path / "z.nrrd").write_bytes(gzip.compress(nrrd(tmp_path / "y.nrrd", sample, spacings="1 1 1").read_bytes()))
    assert "compressed as a whole" in message(tmp_path / "z.nrrd")
    (tmp_path / "none.nii").touch()
    assert "is empty" in message(tmp_path / "none.nii")


# Values


def test_nan_outside_the_field_of_view_is_background_and_inside_damage(sample, tmp_path, caplog):
    array = sample.array.astype(np.float32)
    array[:3] = array[:, :, -2:] = np.nan
    image = sitk.GetImageFromArray(array)
    for suffix in (".nii.gz", ".nrrd", ".mha"):
        sitk.WriteImage(image, str(tmp_path / f"v{suffix}"))
        count = int(np.isnan(array).sum())
        assert f"{count} NaN voxels" in said(tmp_path / f"v{suffix}", caplog)
        assert np.array_equal(said.volume.array, np.nan_to_num(array))
    below = array - 1000
    sitk.WriteImage(sitk.GetImageFromArray(below), str(tmp_path / "ct.nii"))
    assert read_volume(tmp_path / "ct.nii").array.min() == np.nanmin(below)
    array[10, 20, 15] = np.nan
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / "hole.nii"))
    assert "1 NaN or infinite voxels; the first is nan at x 15, y 20, z 10" in message(tmp_path / "hole.nii")


def test_values_beyond_single_precision_are_refused_at_the_door(sample, tmp_path):
    array = sample.array.astype(np.float64)
    array[4, 5, 6] = -1e300
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / "v.nrrd"))
    assert "-1e+300" in message(tmp_path / "v.nrrd")


# Damage anywhere


def test_bytes_changed_anywhere_lead_to_a_message_or_a_volume_and_to_no_line_of_a_library(
    sample, tmp_path, capfd, caplog
):
    small = Volume(sample.array[:6, :8, :10].copy(), replace(sample.geometry, size=(10, 8, 6)))
    random = np.random.default_rng(5)
    write_series(tmp_path / "series", small.array, SeriesInstanceUID="1.2.3")
    (tmp_path / "frames").mkdir()
    write_frames(tmp_path / "frames" / "all.dcm", small.array, 2.0 * np.arange(6))
    targets = {
        tmp_path / "series" / "IM0003.dcm": tmp_path / "series",
        tmp_path / "frames/all.dcm": tmp_path / "frames",
    }
    for name in ("v.nii", "v.nii.gz", "v.nrrd", "v.nhdr", "v.mha", "v.mhd"):
        sitk.WriteImage(small.to_image(), str(tmp_path / name), useCompression=name == "v.nrrd")
        targets[tmp_path / name] = tmp_path / name
    outcomes = Counter()
    for file, target in targets.items():
        whole = file.read_bytes()
        for _ in range(25):
            content = bytearray(whole)
            for place in random.integers(0, min(len(whole), 900), 3):
                content[place] = random.integers(0, 256)
            file.write_bytes(content if random.random() < 0.8 else content[: random.integers(0, len(content))])
            try:
                read_volume(target)
                outcomes["read"] += 1
            except InputError:
                outcomes["refused"] += 1
        file.write_bytes(whole)
    assert outcomes["read"] > 20
    assert outcomes["refused"] > 20
    assert raw_lines(capfd, caplog) == []


# No files


def test_pipes_devices_and_dead_links_are_refused_and_never_wait(tmp_path):
    os.mkfifo(tmp_path / "pipe.nii.gz")
    os.mkfifo(tmp_path / "pipe.dcm")
    (tmp_path / "link.nrrd").symlink_to("/dev/zero")
    (tmp_path / "dead.mha").symlink_to(tmp_path / "nowhere")
    assert "a named pipe" in message(tmp_path / "pipe.nii.gz")
    assert "a named pipe" in message(tmp_path / "pipe.dcm")
    assert "a device" in message(tmp_path / "link.nrrd")
    assert "a link to a file that is not there" in message(tmp_path / "dead.mha")
    assert "File name too long" in message(tmp_path / ("x" * 300))


def test_lines_that_a_library_prints_are_caught_and_those_of_python_are_not(tmp_path):
    code = """
import logging, os, sys
from pathlib import Path
from usema.volumes.itk_messages import itk_warnings_logged
logging.basicConfig(stream=sys.stdout, format="%(message)s")
with itk_warnings_logged(Path("a.mha")):
    os.write(2, b"** raw line\\n")
    print("from Python", file=sys.stderr)
try:
    with itk_warnings_logged(Path("b.mha")):
        os.write(2, b"** why it failed\\n")
        raise RuntimeError
except RuntimeError:
    print("end", file=sys.stderr)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stderr.splitlines() == ["from Python", "end"]
    assert run.stdout.splitlines() == ["a.mha: ** raw line"]


@pytest.mark.parametrize("locale", [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])
def test_names_with_any_bytes_are_read_in_any_locale(sample, tmp_path, locale):
    folder = os.fsencode(tmp_path / "f") + b"\xff\xc3\xb6"
    os.mkdir(folder)
    for suffix in (b".nii.gz", b".nrrd", b".mha"):
        sitk.WriteImage(sample.to_image(), str(tmp_path / f"v{suffix.decode()}"))
        os.rename(tmp_path / f"v{suffix.decode()}", folder + b"/\xe4 \xc3\xb6" + suffix)
    code = """
import os, sys
from pathlib import Path
from usema.volumes.volume import read_volume
for path in sorted(Path(sys.argv[1]).iterdir()):
    print(read_volume(path).array.shape)
"""
    run = subprocess.run(
        [sys.executable, "-c", code, folder], capture_output=True, text=True, env={**os.environ, **locale}, check=False
    )
    assert run.stdout.split("\n")[:3] == [str(sample.array.shape)] * 3, run.stderr
