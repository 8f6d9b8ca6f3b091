"""The volumes in a tree of folders."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import image, uid, write_series, write_slice
from pydicom.uid import SegmentationStorage
from usema.resources import sample_volume
from usema.volumes.tree import find_volumes
from usema.volumes.volume import read_volume


@pytest.fixture(scope="module")
def voxels():
    return np.ascontiguousarray(sitk.GetArrayFromImage(sitk.ReadImage(str(sample_volume())))[8:20])


def found(top, **options) -> list[str]:
    return [str(path.relative_to(top)) for path in find_volumes(top, **options).volumes]


def left_out(top) -> dict[str, str]:
    return {str(path.relative_to(top)): why for path, why in find_volumes(top).left_out}


def test_files_and_series_are_found_at_every_depth_and_each_can_be_read(voxels, tmp_path):
    for name in ("b/x.nii.gz", "b/deep/er/y.NRRD", "a.mha", ".hidden/z.nii", "out/earlier.nii.gz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(sample_volume().read_bytes())
    for patient in ("p1", "p2"):
        write_series(tmp_path / patient / "image", voxels, SeriesInstanceUID=uid(patient))
    (tmp_path / "p2" / ".DS_Store").write_bytes(b"\0")
    (tmp_path / "._a.mha").write_bytes(b"\0")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    names = ["a.mha", "b/deep/er/y.NRRD", "b/x.nii.gz", "p1/image", "p2/image"]
    assert found(tmp_path, skip=[tmp_path / "out"]) == names
    for name in names[1:]:
        assert read_volume(tmp_path / name).array.shape[0] in (12, 32)


def test_a_mask_in_the_folder_of_a_series_and_segmentations_are_left_out_with_the_reason(voxels, tmp_path):
    write_series(tmp_path / "ct", voxels)
    for name in ("ct/mask.nii.gz", "ct/mask.nrrd", "ct/Segmentation.seg.nrrd", "mr/MR.nrrd", "mr/S.Seg.NRRD"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(sample_volume(), tmp_path / name)
    os.mkfifo(tmp_path / "mr" / "pipe.nii")
    assert found(tmp_path) == ["ct", "mr/MR.nrrd"]
    reasons = left_out(tmp_path)
    assert set(reasons) == {
        "ct/mask.nii.gz",
        "ct/mask.nrrd",
        "ct/Segmentation.seg.nrrd",
        "mr/S.Seg.NRRD",
        "mr/pipe.nii",
    }
    assert "DICOM series" in reasons["ct/mask.nrrd"]
    assert "segmentation" in reasons["mr/S.Seg.NRRD"]
    assert reasons["mr/pipe.nii"] == "no regular file"


def test_a_folder_with_segmentations_alone_is_no_volume_and_a_broken_series_is_one_to_be_refused(voxels, tmp_path):
    (tmp_path / "seg").mkdir()
    segments = image(SegmentationStorage, "seg", voxels)
    segments.save_as(tmp_path / "seg" / "seg.dcm", enforce_file_format=True)
    assert found(tmp_path) == []
    for path in write_series(tmp_path / "ct", voxels):
        path.write_bytes(b"")
    assert found(tmp_path) == ["ct"]


def test_a_series_spread_over_folders_is_one_volume_and_its_copy_is_another(voxels, tmp_path):
    files = write_series(tmp_path / "case" / "1", voxels)
    (tmp_path / "case" / "2").mkdir()
    for file in files[::2]:
        file.rename(tmp_path / "case" / "2" / file.name)
    assert found(tmp_path) == ["case"]
    assert np.array_equal(read_volume(tmp_path / "case").array, voxels)
    write_series(tmp_path / "whole", voxels, SeriesInstanceUID=uid("whole"))
    shutil.copytree(tmp_path / "whole", tmp_path / "backup")
    assert found(tmp_path) == ["backup", "case", "whole"]


def test_a_pair_of_files_is_one_volume(tmp_path):
    for name in ("a.hdr", "a.img", "B.HDR", "B.IMG", "alone.img", "c.nhdr", "c.raw"):
        (tmp_path / name).touch()
    assert found(tmp_path) == ["B.HDR", "a.hdr", "alone.img", "c.nhdr"]


def test_localizers_in_folders_of_their_own_are_left_out_beside_volumes(voxels, tmp_path):
    write_series(tmp_path / "scout", voxels[:1], SeriesInstanceUID=uid("scout"))
    assert found(tmp_path) == ["scout"]  # reading it says why it is no volume
    localizer = {"SeriesInstanceUID": uid("planes"), "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
    write_series(tmp_path / "planes", voxels[:3], **localizer)
    write_series(tmp_path / "ct", voxels)
    assert found(tmp_path) == ["ct"]
    assert "localizer" in left_out(tmp_path)["planes"]
    for z, plane in enumerate(voxels):  # each rounded in its own way
        turned = [1, z * 1e-6, 0, 0, 1, 0]
        (tmp_path / "mr").mkdir(exist_ok=True)
        write_slice(tmp_path / "mr" / f"{z}.dcm", plane, (0, 0, z), ImageOrientationPatient=turned)
    assert found(tmp_path) == ["ct", "mr"]
    shutil.rmtree(tmp_path / "mr")
    (tmp_path / "scout" / "IM0000.dcm").write_bytes(b"")
    assert found(tmp_path) == ["ct", "scout"]  # broken is not small


def test_a_stray_broken_dicom_file_hides_no_volumes(tmp_path):
    shutil.copy(sample_volume(), tmp_path / "a.nii.gz")
    (tmp_path / "stray.dcm").touch()
    assert found(tmp_path) == ["a.nii.gz"]
    assert left_out(tmp_path) == {"stray.dcm": "a DICOM file, but it is empty"}
