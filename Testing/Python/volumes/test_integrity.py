"""Damage in files that ITK hides: each is refused by its name and value."""

from __future__ import annotations

import gzip
import logging
import os
import resource
import struct
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk
from usema.errors import InputError
from usema.volumes.volume import read_volume


@pytest.fixture
def nifti(data, tmp_path):
    """A real volume as an uncompressed NIfTI file, and a function that changes bytes of it."""
    image = sitk.ReadImage(str(data / "nnUNet_raw/Dataset004_Hippocampus/imagesTr/hippocampus_003_0000.nii.gz"))
    path = tmp_path / "volume.nii"
    sitk.WriteImage(sitk.Cast(image, sitk.sitkFloat32), str(path))

    def change(offset: int, form: str, *values):
        content = bytearray(path.read_bytes())
        struct.pack_into("<" + form, content, offset, *values)
        path.write_bytes(content)
        return path

    return change


@pytest.mark.parametrize(
    ("offset", "form", "value", "message"),
    [
        (108, "f", float("nan"), "byte nan"),
        (108, "f", float("inf"), "byte inf"),
        (108, "f", 0.0, "byte 0"),
        (108, "f", -352.0, "byte -352"),
        (112, "f", float("inf"), "scale inf"),
        (116, "f", float("inf"), "intercept inf"),
        (72, "h", 0, "0 bits a voxel"),
        (72, "h", 1, "1 bits a voxel"),
        (352 + 4 * 5000, "f", float("nan"), "1 NaN or infinite voxels"),
        (352 + 4 * 5000, "f", float("-inf"), "NaN or infinite voxels"),
    ],
)
def test_a_nifti_header_or_voxel_that_itk_would_hide_is_refused(nifti, offset, form, value, message):
    with pytest.raises(InputError, match=message):
        read_volume(nifti(offset, form, value))


def test_the_last_voxel_of_an_odd_number_is_looked_at_and_what_follows_it_is_not(tmp_path):
    path = tmp_path / "odd.nii"
    sitk.WriteImage(sitk.GetImageFromArray(np.arange(125, dtype=np.float32).reshape(5, 5, 5)), str(path))
    content = path.read_bytes()
    path.write_bytes(content + struct.pack("<f", np.nan))
    read_volume(path)
    path.write_bytes(content[:-4] + struct.pack("<f", np.nan))
    with pytest.raises(InputError, match="1 NaN or infinite voxels"):
        read_volume(path)


def test_nan_in_a_compressed_big_endian_file_is_found_too(nifti, tmp_path):
    content = bytearray(nifti(0, "i", 348).read_bytes())
    array = np.frombuffer(content[352:], "<f4").astype(">f4")
    header = bytearray(content[:352])
    # The fields that are read, turned round; the others do not matter here.
    header[0:4] = struct.pack(">i", 348)
    for offset, form in (
        (40, "8h"),
        (70, "h"),
        (72, "h"),
        (76, "8f"),
        (108, "3f"),
        (252, "2h"),
        (256, "6f"),
        (280, "12f"),
    ):
        struct.pack_into(">" + form, header, offset, *struct.unpack_from("<" + form, content, offset))
    whole = tmp_path / "big.nii.gz"
    whole.write_bytes(gzip.compress(bytes(header) + array.tobytes()))
    read_volume(whole)
    array[77] = np.nan
    whole.write_bytes(gzip.compress(bytes(header) + array.tobytes()))
    with pytest.raises(InputError, match="NaN or infinite"):
        read_volume(whole)


def test_a_file_that_does_not_say_how_the_patient_lies_is_warned_of(nifti, caplog):
    with caplog.at_level(logging.WARNING):
        read_volume(nifti(252, "2h", 0, 0))
    assert "volume.nii does not say how the patient lies" in caplog.text


def test_a_name_that_is_no_text_is_read_too(nifti, tmp_path):
    whole = read_volume(nifti(0, "i", 348))
    for suffix in (".nii.gz", ".nrrd", ".mha"):
        sitk.WriteImage(whole.to_image(), str(tmp_path / f"good{suffix}"))
        bad = tmp_path / os.fsdecode(b"bad\xff" + suffix.encode())
        (tmp_path / f"good{suffix}").rename(bad)
        assert np.array_equal(read_volume(bad).array, whole.array)


@pytest.mark.parametrize("name", ["labels.seg.nrrd", "labels.nrrd", "labels.nii.gz", "labels.mha"])
@pytest.mark.parametrize("limit", [0, 100, 512, 2048])
def test_a_result_that_does_not_fit_on_the_disk_is_an_error_and_leaves_nothing(tmp_path, name, limit):
    """A limit on file size stands for the full disk: the write fails in the same call."""
    code = f"""
import numpy as np, resource, signal
from types import SimpleNamespace
from usema.errors import OutputError
from usema.volumes.geometry import Geometry
from usema.volumes.writing import write_label_map, write_segmentation
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
geometry = Geometry((40, 50, 30), (1.0,) * 3, (0.0,) * 3, tuple(np.eye(3).ravel()))
labels = np.random.default_rng(0).integers(0, 2, geometry.shape).astype(np.uint8)
label = SimpleNamespace(value=1, name="One", color=(1, 2, 3), terminology=None)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    if {name!r}.endswith(".seg.nrrd"):
        write_segmentation({str(tmp_path / name)!r}, labels, geometry, [label], {{}})
    else:
        write_label_map({str(tmp_path / name)!r}, labels, geometry)
except OutputError:
    print("refused")
"""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)  # this test needs a system that has such limits
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout.strip() == "refused", run.stderr
    assert list(tmp_path.iterdir()) == []
