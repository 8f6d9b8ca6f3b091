"""Reading DICOM series, and refusing folders and slices that make no volume."""

from __future__ import annotations

import shutil
import struct

import numpy as np
import pytest
import SimpleITK as sitk
from test_volume import refused
from usema.errors import InputError
from usema.volumes.volume import read_volume


@pytest.fixture(scope="module")
def dicom(data):
    return data / "volumes" / "sarcoma_ct_dicom"


@pytest.fixture
def ct_series(dicom, tmp_path):
    """A writable copy of ten slices of a CT series."""
    folder = tmp_path / "series"
    folder.mkdir()
    for file in sorted((dicom / "CT" / "image").iterdir())[:10]:
        shutil.copyfile(file, folder / file.name)
    return folder


def set_position(file, position):
    """Write another Image Position (Patient) into a slice, with the number of bytes that it had."""
    old = sitk.ReadImage(str(file)).GetMetaData("0020|0032").encode()
    new = "\\".join(f"{value:.6f}" for value in position).encode().ljust(len(old))
    content = file.read_bytes()
    assert len(new) == len(old)
    assert content.count(old) == 1
    file.write_bytes(content.replace(old, new))


def test_one_file_of_a_series_stands_for_its_series(ct_series, dicom):
    for file in sorted((dicom / "MR_T1" / "image").iterdir())[:4]:
        shutil.copyfile(file, ct_series / f"mr{file.name}")
    assert read_volume(ct_series / "000003.dcm").geometry.size == (161, 143, 10)
    assert read_volume(ct_series / "mr000000.dcm").geometry.size == (115, 90, 4)


def test_each_pet_slice_keeps_its_own_rescaling(dicom):
    folder = dicom / "PET" / "image"
    volume = read_volume(folder)
    for file in sorted(folder.iterdir())[::7]:
        image = sitk.ReadImage(str(file))
        z = round((image.GetOrigin()[2] - volume.geometry.origin[2]) / volume.geometry.spacing[2])
        assert np.array_equal(volume.array[z], sitk.GetArrayFromImage(image)[0])


def test_a_series_of_which_one_slice_is_fractional_keeps_the_fractions(ct_series):
    before = read_volume(ct_series).array
    image = sitk.ReadImage(str(ct_series / "000004.dcm"))
    z = round((image.GetOrigin()[2] - read_volume(ct_series).geometry.origin[2]) / 3.27)
    content = (ct_series / "000004.dcm").read_bytes()
    slope = content.index(struct.pack("<HH", 0x0028, 0x1053))
    slope = content.index(b"1.0", slope)
    (ct_series / "000004.dcm").write_bytes(content[:slope] + b"0.5" + content[slope + 3 :])
    after = read_volume(ct_series).array
    intercept = float(image.GetMetaData("0028|1052"))
    assert after.dtype == np.float32
    assert (after[z] % 1 != 0).any()
    assert np.array_equal(after[z], (before[z] - intercept) / 2 + intercept)
    assert np.array_equal(np.delete(after, z, 0), np.delete(before, z, 0))


def test_the_path_of_a_series_may_have_spaces_and_any_letters(ct_series):
    folder = ct_series.rename(ct_series.with_name("Größe 3D, Ωμ 患者"))
    assert read_volume(folder).geometry.size[2] == 10


def test_folders_without_or_with_several_series_are_refused(dicom, ct_series, tmp_path):
    (tmp_path / "none").mkdir()
    refused(tmp_path / "none", "no DICOM images")
    refused(dicom / "CT" / "mask", "no DICOM images, only RS.dcm (RT Structure Set)")
    refused(dicom / "CT" / "mask" / "RS.dcm", "not a DICOM image", "Structure sets")
    for file in sorted((dicom / "MR_T1" / "image").iterdir())[:4]:
        shutil.copyfile(file, ct_series / f"mr{file.name}")
    first = ct_series / "000000.dcm"  # with an umlaut in Latin-1, as scanners write it
    first.write_bytes(first.read_bytes().replace(b"CT_image", b"Sch\xe4del "))
    refused(ct_series, "2 DICOM series", "002_Schädel (CT, 10 images", "IBSI_1_STS_002_MR_T1_image (MR, 4 images")


def test_a_missing_slice_is_named_by_the_gap_it_leaves(ct_series):
    (ct_series / "000004.dcm").unlink()
    refused(ct_series, "6.54 mm", "elsewhere 3.27 mm")


def test_slices_that_make_no_straight_even_stack_are_refused(ct_series):
    files = sorted(ct_series.iterdir())
    shutil.copyfile(files[3], ct_series / "again.dcm")
    set_position(ct_series / "again.dcm", (1.95, 59.57, -629.04 + 2 * 3.27))
    refused(ct_series, "same place", "phases", "again.dcm")
    (ct_series / "again.dcm").unlink()
    set_position(files[3], (4.95, 59.57, float(sitk.ReadImage(str(files[3])).GetOrigin()[2])))
    refused(ct_series, "no straight stack", "000003.dcm lies 3.00 mm beside")


def test_images_of_several_spacings_or_orientations_are_no_volume(ct_series):
    file = ct_series / "000004.dcm"
    original = file.read_bytes()
    for old, new, words in (
        (b"0.976562", b"0.976999", "different spacing: (0.976562, 0.976562) and (0.976999, 0.976562)"),
        (b"1.00000000000000\\0.0000", b"0.00000000000000\\1.0000", "more than one orientation"),
    ):
        assert old in original
        file.write_bytes(original.replace(old, new, 1))
        refused(ct_series, words)


def test_positions_rounded_in_the_file_are_accepted(ct_series):
    for index, file in enumerate(sorted(ct_series.iterdir())):
        set_position(file, (2.0, 59.6, round(-629.04 + index * 1.25, 1)))
    assert read_volume(ct_series).geometry.spacing[2] == pytest.approx(1.25, abs=0.02)


def test_a_single_slice_and_slices_without_a_place_are_refused(ct_series):
    files = sorted(ct_series.iterdir())
    content = files[0].read_bytes()
    tag = content.index(struct.pack("<HH", 0x0020, 0x0032))
    files[0].write_bytes(content[:tag] + struct.pack("<HH", 0x0020, 0x9999) + content[tag + 4 :])
    with pytest.raises(InputError, match=r"000000\.dcm has '' in DICOM tag \(0020,0032\)"):
        read_volume(ct_series)
    for file in files[:9]:
        file.unlink()
    refused(ct_series, "single DICOM slice", "2D image")
