"""Files that are opened in the browser are read as the command reads them: refused or told where a reader of 3D Slicer
would make a volume of them without a word, of which a mask would be wrong."""

from __future__ import annotations

import gzip
import shutil
from types import SimpleNamespace
from zipfile import ZipFile

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
import slicer.util
from dicom_files import image, uid, write_series
from pydicom.uid import RTStructureSetStorage
from slicer_cases import GRIDS
from usema.errors import InputError
from USEMASegmentationLib.Scene.Hierarchy import modalityOf
from USEMASegmentationLib.Scene.VolumeBridge import ijkToRas

pytest.importorskip("trame_slicer", reason="the browser front end (extra `web`) is not installed")
pytest_plugins = ["slicer_fixtures"]

VOXELS = np.random.default_rng(0).integers(1, 900, (6, 9, 10)).astype(np.uint16)


def raises(*_):
    raise IndexError("list index out of range")


@pytest.fixture
def opened(host):
    """Opens files; whatever is left to 3D Slicer's readers ends in an error of theirs."""
    from usema_web.files import open_files

    app = SimpleNamespace(io_manager=SimpleNamespace(load_volumes=raises, load_scene=ZipFile))
    return lambda *paths: open_files(app, paths)


def arrays(result) -> dict[str, np.ndarray]:
    return {node.GetName(): slicer.util.arrayFromVolume(node) for node in result.volumes}


@pytest.fixture
def sample(root):
    return root / "Resources/Samples/hippocampus_149.nii.gz"


@pytest.mark.parametrize("name", ["cut.nii.gz", "cut.nii"])
def test_a_file_that_was_cut_off_is_refused_and_not_filled_with_zeros(opened, sample, tmp_path, name):
    content = sample.read_bytes() if name.endswith(".gz") else gzip.decompress(sample.read_bytes())
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=f"^{name} is .*incomplete"):
        opened(tmp_path / name)
    assert slicer.util.getNodesByClass("vtkMRMLVolumeNode") == []


def test_a_series_whose_slice_is_broken_is_refused_with_the_name_of_the_file(opened, tmp_path):
    paths = write_series(tmp_path / "series", VOXELS)
    paths[0].write_bytes(paths[0].read_bytes()[:-50])
    with pytest.raises(InputError, match=r"^series: 1 of 6 DICOM files are broken: IM0000.dcm"):
        opened(*paths)


def test_copies_of_slices_do_not_stretch_a_series(opened, tmp_path):
    paths = write_series(tmp_path / "series", VOXELS)
    copies = [shutil.copy(path, path.with_name(f"copy of {path.name}")) for path in paths[2:4]]
    result = opened(*paths, *copies)
    (volume,) = result.volumes
    assert np.array_equal(slicer.util.arrayFromVolume(volume), VOXELS)
    assert volume.GetSpacing() == pytest.approx((1, 1, 2))
    assert any("copies of others" in note for note in result.notes)
    assert modalityOf(volume) == "CT"


def test_a_series_with_a_missing_slice_is_refused(opened, tmp_path):
    paths = write_series(tmp_path / "series", VOXELS)
    with pytest.raises(InputError, match="missing or unevenly spaced slices"):
        opened(*paths[:2], *paths[3:])


def test_each_series_of_a_study_is_a_volume_whatever_folder_its_files_lie_in(opened, tmp_path):
    """Two of one acquisition number and one of another, which 3D Slicer's reader mixes."""
    found = {}
    for number, (title, acquisition) in enumerate([("CT", 1), ("PET", 1), ("late", 2)], 1):
        fields = {"SeriesInstanceUID": uid(title), "SeriesDescription": title, "AcquisitionNumber": acquisition}
        write_series(tmp_path / title, VOXELS + number, SeriesNumber=number, **fields)
        found[f"{number}: {title}"] = VOXELS + number
    mixed = tmp_path / "received"
    for number, path in enumerate(sorted(tmp_path.rglob("*.dcm"))):
        (mixed / str(number % 5)).mkdir(parents=True, exist_ok=True)
        path.rename(mixed / str(number % 5) / f"{number}.dcm")
    read = arrays(opened(mixed))
    assert read.keys() == found.keys()
    assert all(np.array_equal(read[name], voxels) for name, voxels in found.items())


def test_kinds_of_image_in_one_series_are_volumes_of_their_own(opened, tmp_path):
    kinds = {"ORIGINAL/WATER": VOXELS, "ORIGINAL/FAT": VOXELS + 1}
    for kind, voxels in kinds.items():
        write_series(tmp_path / kind.replace("/", "_"), voxels, ImageType=kind.split("/"))
    read = arrays(opened(tmp_path))
    assert read.keys() == {f"series, {kind}" for kind in kinds}
    assert all(np.array_equal(read[f"series, {kind}"], voxels) for kind, voxels in kinds.items())


def test_each_frame_of_a_file_is_a_volume_and_that_is_said(opened, tmp_path):
    frames = [sitk.GetImageFromArray(VOXELS + number) for number in range(3)]
    sitk.WriteImage(sitk.JoinSeries(frames), str(tmp_path / "heart.nii.gz"))
    result = opened(tmp_path / "heart.nii.gz")
    assert [voxels[0, 0, 0] - VOXELS[0, 0, 0] for voxels in arrays(result).values()] == [0, 1, 2]
    assert result.notes == ["heart holds 3 volumes (frames): each was opened as a volume of its own."]


def test_what_is_no_volume_is_told_and_ends_nothing(opened, tmp_path):
    structures = tmp_path / "RS.dcm"
    dataset = image(RTStructureSetStorage, "RS", VOXELS[0])
    del dataset.PixelData
    dataset.save_as(structures, enforce_file_format=True)
    (tmp_path / "scene.mrb").write_bytes(b"nonsense" * 100)
    (tmp_path / "notes.txt").write_text("no volume")
    for name, message in [
        ("RS.dcm", "RS.dcm is no DICOM image but: RT Structure Set"),
        ("scene.mrb", "scene.mrb is no whole scene"),
        ("notes.txt", "notes.txt could not be read"),
    ]:
        with pytest.raises(InputError, match=message):
            opened(tmp_path / name)


def test_what_can_be_read_is_opened_beside_what_cannot_and_both_are_told(opened, sample, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"nonsense" * 100)
    (tmp_path / "empty.nii.gz").write_bytes(b"")
    result = opened(tmp_path / "broken.png", tmp_path / "empty.nii.gz", sample)
    assert list(arrays(result)) == ["hippocampus_149"]
    assert [fault.message.split()[0] for fault in result.faults] == ["broken.png", "empty.nii.gz"]


def test_a_file_that_is_opened_twice_gets_a_name_that_tells_it_apart(opened, sample):
    opened(sample)
    assert list(arrays(opened(sample))) == ["hippocampus_149_1"]


@pytest.mark.parametrize("grid", GRIDS)
def test_voxels_lie_where_the_file_says(opened, tmp_path, grid):
    to_lps = np.diag([-1, -1, 1, 1]) @ GRIDS[grid]
    spacing = np.linalg.norm(to_lps[:3, :3], axis=0)
    written = sitk.GetImageFromArray(VOXELS.astype(np.int16))
    written.SetSpacing(spacing)
    written.SetOrigin(to_lps[:3, 3])
    written.SetDirection((to_lps[:3, :3] / spacing).ravel())
    sitk.WriteImage(written, str(tmp_path / "volume.nrrd"))
    (volume,) = opened(tmp_path / "volume.nrrd").volumes
    assert np.allclose(ijkToRas(volume), GRIDS[grid], atol=1e-5)
    assert np.array_equal(slicer.util.arrayFromVolume(volume), VOXELS)
