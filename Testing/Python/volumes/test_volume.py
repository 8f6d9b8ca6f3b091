"""Reading volumes, refusing what is none, and moving between axis orders without changing a voxel."""

from __future__ import annotations

import gzip
import itertools
import json
import shutil
import struct

import numpy as np
import pytest
import SimpleITK as sitk
from usema.errors import InputError
from usema.volumes.volume import (
    Geometry,
    Volume,
    check_volume,
    load_volume,
    read_volume,
    reorient,
    resample_onto,
    restore,
)

ORIENTATIONS = [
    "".join(letters) for axes in itertools.permutations(("LR", "PA", "SI")) for letters in itertools.product(*axes)
]


@pytest.fixture(scope="module")
def volumes(data):
    return data / "volumes"


@pytest.fixture(scope="module")
def ct_file(volumes):
    return volumes / "body_ct" / "example_ct_sm.nii.gz"


@pytest.fixture(scope="module")
def ct(ct_file):
    return read_volume(ct_file)


@pytest.fixture(scope="module")
def ct_header_and_voxels(ct_file):
    return gzip.decompress(ct_file.read_bytes())


def rotation(seed: int) -> np.ndarray:
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q * np.sign(np.diag(r))


def oblique(volume: Volume, axes: np.ndarray) -> Volume:
    """The volume's voxels in other places: anisotropic, with the given axes."""
    geometry = Geometry(volume.geometry.size, (0.7, 0.9, 2.5), (11.0, -22.0, 33.0), tuple(axes.flat))
    return Volume(volume.array, geometry)


def patched(raw: bytes, path, offset: int, layout: str, *values):
    """A NIfTI file with other values at an offset of its header."""
    content = bytearray(raw)
    struct.pack_into(layout, content, offset, *values)
    path.write_bytes(content)
    return path


# Reading


@pytest.mark.parametrize(
    ("path", "dtype", "orientation"),
    [
        ("body_ct/example_ct_sm.nii.gz", np.int16, "RAS"),
        ("chest_ct/CTChest4.nrrd", np.int32, "RAS"),
        ("spine_mr/t2.nii.gz", np.int16, "PSR"),
        ("sarcoma_ct_dicom/CT/image", np.int16, "LPS"),
        ("sarcoma_ct_dicom/MR_T1/image", np.int16, "LPS"),
    ],
)
def test_a_volume_is_read_with_its_own_type_and_geometry(volumes, path, dtype, orientation):
    volume = read_volume(volumes / path)
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(volumes / path)) or str(volumes / path)
    image = sitk.ReadImage(names)
    assert volume.array.dtype == dtype
    assert volume.array.flags.c_contiguous
    assert np.array_equal(volume.array, sitk.GetArrayFromImage(image))
    assert volume.geometry == Geometry.of_image(image)
    assert volume.geometry.orientation == orientation


def test_hippocampus_crops_can_be_read(data):
    for file in sorted((data / "nnUNet_raw" / "Dataset004_Hippocampus" / "imagesTr").iterdir())[::6]:
        assert read_volume(file).array.ndim == 3


def test_the_formats_give_the_same_volume(ct, tmp_path):
    left_handed = oblique(ct, rotation(0) * (1, 1, -np.linalg.det(rotation(0))))
    assert np.linalg.det(left_handed.geometry.axes) == pytest.approx(-1)
    for name in ("ct.nrrd", "ct.nhdr", "ct.mha", "ct.mhd", "ct.nii", "ct.nii.gz"):
        sitk.WriteImage(left_handed.to_image(), str(tmp_path / name), useCompression=True)
        volume = read_volume(tmp_path / name)
        assert np.array_equal(volume.array, ct.array)
        assert np.abs(volume.geometry.corners - left_handed.geometry.corners).max() < 1e-3


def test_paths_may_have_spaces_and_any_letters(ct_file, ct, tmp_path):
    folder = tmp_path / "Größe 3D, Ωμ 患者"
    folder.mkdir()
    shutil.copyfile(ct_file, folder / "köpf chen.nii.gz")
    assert np.array_equal(read_volume(folder / "köpf chen.nii.gz").array, ct.array)


# Refusing


def refused(path, *words: str) -> InputError:
    with pytest.raises(InputError) as caught:
        read_volume(path)
    for word in (path.name, *words):
        assert word in str(caught.value)
    assert "sitk::" not in str(caught.value)
    assert "0x" not in str(caught.value)
    return caught.value


def test_what_is_not_there_or_of_another_kind_is_refused(volumes, tmp_path):
    refused(tmp_path / "nothing.nii.gz", "does not exist")
    refused(volumes / "body_ct" / "LICENSE", ".nii.gz", "DICOM")
    refused(volumes / "chest_ct" / "Segmentation.seg.nrrd", "segmentation")
    for name in ("text.nii.gz", "text.nrrd", "text.mha"):
        (tmp_path / name).write_text("hello")
        refused(tmp_path / name, "no NIfTI, NRRD or MetaImage", "not what its name says")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    refused(tmp_path / "picture.png", "two-dimensional image", "give a volume")


@pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz", "ct.nrrd", "ct.mha"])
@pytest.mark.parametrize("compressed", [True, False])
def test_a_truncated_file_is_refused(ct, tmp_path, name, compressed):
    path = tmp_path / name
    sitk.WriteImage(ct.to_image(), str(path), useCompression=compressed)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    refused(path, "export it again")


@pytest.mark.parametrize("name", ["ct.nii.gz", "ct.nrrd", "ct.mha", "ct.mhd"])
def test_a_changed_byte_in_compressed_voxels_is_noticed(ct, tmp_path, name):
    sitk.WriteImage(ct.to_image(), str(tmp_path / name), useCompression=True)
    voxels = tmp_path / name.replace(".mhd", ".zraw")
    content = bytearray(voxels.read_bytes())
    content[len(content) // 2] ^= 0x55
    voxels.write_bytes(content)
    refused(tmp_path / name, "damaged")


@pytest.mark.parametrize("value", [0.0, -2.0, float("nan"), float("inf")])
def test_a_nifti_spacing_that_itk_hides_is_refused(ct_header_and_voxels, tmp_path, value):
    refused(patched(ct_header_and_voxels, tmp_path / "ct.nii", 76 + 4 * 2, "<f", value), f"{value:g}", "spacing")


def test_a_big_endian_nifti_file_is_understood(ct, tmp_path):
    nibabel = pytest.importorskip("nibabel")
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ ct.geometry.affine
    path = tmp_path / "ct.nii"
    nibabel.Nifti1Image(ct.array.T, affine, nibabel.Nifti1Header(endianness=">")).to_filename(path)
    assert struct.unpack(">i", path.read_bytes()[:4]) == (348,)
    volume = read_volume(path)
    assert np.array_equal(volume.array, ct.array)
    assert volume.geometry.same_grid(ct.geometry)
    path.write_bytes(path.read_bytes()[:-1])
    refused(path, "ends after")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("ElementSpacing = 3 3 3", "ElementSpacing = 3 0 3", ["(3.0, 0.0, 3.0) mm"]),
        ("ElementSpacing = 3 3 3", "ElementSpacing = 3 -2 3", ["(3.0, -2.0, 3.0) mm"]),
        ("TransformMatrix = -1 0 0 0 -1 0", "TransformMatrix = -1 0 0 -1 0 0", ["singular"]),
        ("TransformMatrix = -1 0 0 0 -1 0", "TransformMatrix = -1 0 0 .5 -1 0", ["sheared", "0.5"]),
    ],
)
def test_a_header_that_describes_no_grid_is_refused(ct, tmp_path, old, new, words):
    path = tmp_path / "ct.mha"
    rigid = Geometry(ct.geometry.size, (3, 3, 3), (1, 2, 3), (-1, 0, 0, 0, -1, 0, 0, 0, 1))
    sitk.WriteImage(Volume(ct.array, rigid).to_image(), str(path))
    content = path.read_bytes()
    assert old.encode() in content
    path.write_bytes(content.replace(old.encode(), new.encode()))
    refused(path, *words)


def test_what_has_more_or_fewer_than_three_dimensions_is_refused(ct, tmp_path):
    image = ct.to_image()
    for suffix in (".nii.gz", ".nrrd", ".mha"):
        for name, other, words in (
            ("time", sitk.JoinSeries([image] * 3), ["4D", "3 volumes", "save one"]),
            ("flat", image[:, :, 0], ["2D image", "122, 101"]),
            ("slice", image[:, 5:6, :], ["2D image", "122, 1, 30"]),
            ("rgb", sitk.Compose([sitk.Cast(image, sitk.sitkUInt8)] * 3), ["3 values in each voxel"]),
            ("complex", sitk.RealAndImaginaryToComplex(*[sitk.Cast(image, sitk.sitkFloat32)] * 2), ["2 values"]),
        ):
            sitk.WriteImage(other, str(tmp_path / (name + suffix)))
            refused(tmp_path / (name + suffix), *words)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_not_finite_are_counted_and_located(ct, tmp_path, value):
    array = ct.array.astype(np.float32)
    array[4, 5, 6] = array[20, 3, 1] = value
    sitk.WriteImage(Volume(array, ct.geometry).to_image(), str(tmp_path / "ct.nrrd"))
    refused(tmp_path / "ct.nrrd", "2 NaN or infinite voxels", f"{value} at x 6, y 5, z 4")


def test_one_value_everywhere_is_refused_as_input_but_not_as_a_label_map(ct, tmp_path):
    path = tmp_path / "empty.nii.gz"
    sitk.WriteImage(Volume(np.full_like(ct.array, -1024), ct.geometry).to_image(), str(path))
    refused(path, "-1024", "nothing to segment")
    assert (load_volume(path).array == -1024).all()


def test_arrays_that_never_were_files_are_checked_too(ct):
    for array, word in (
        (np.empty((0, 101, 122)), "empty"),
        (ct.array[0], "(101, 122)"),
        (ct.array[None], "(1, 30, 101, 122)"),
        (ct.array[:-1], "(29, 101, 122)"),
        (ct.array.astype(complex), "complex128"),
        (ct.array.astype(str), "<U"),
    ):
        with pytest.raises(InputError) as caught:
            check_volume(Volume(array, ct.geometry), "Channel 2")
        assert word in str(caught.value)
        assert "Channel 2" in str(caught.value)
    check_volume(ct)


def test_a_geometry_survives_json_and_refuses_what_is_none(ct):
    text = json.dumps(ct.geometry.to_dict())
    assert Geometry.from_dict(json.loads(text)) == ct.geometry
    good = ct.geometry.to_dict()
    for change in (
        {"size": [3, 4]},
        {"size": [3, 0, 4]},
        {"spacing": [1, 1, "wide"]},
        {"spacing": [1, 1, 0]},
        {"origin": [0, 0, float("nan")]},
        {"direction": [1, 0, 0, 0, 1, 0, 0, 0, 0]},
        {"direction": None},
    ):
        with pytest.raises(InputError):
            Geometry.from_dict(good | change)
    with pytest.raises(InputError, match="origin"):
        Geometry.from_dict({key: value for key, value in good.items() if key != "origin"})


# Axis orders


@pytest.mark.parametrize("source", ["axis-aligned", "oblique", "left-handed oblique"])
def test_reorienting_agrees_with_itk_for_all_48_orientations_and_comes_back_exactly(ct, source):
    axes = {"axis-aligned": np.eye(3), "oblique": rotation(4), "left-handed oblique": rotation(4) * (1, -1, 1)}[source]
    geometry = Geometry((5, 7, 6), (0.7, 0.9, 2.5), (11.0, -22.0, 33.0), tuple(axes.flat))
    volume = Volume(np.ascontiguousarray(ct.array[3:9, 40:47, 50:55]), geometry)
    channels = np.stack([volume.array, volume.array + 1000])
    assert len(set(ORIENTATIONS)) == 48
    for orientation in ORIENTATIONS:
        moved = reorient(volume, orientation)
        expected = sitk.DICOMOrient(volume.to_image(), orientation)
        assert moved.geometry.orientation == orientation
        assert moved.array.flags.c_contiguous
        assert np.array_equal(moved.array, sitk.GetArrayFromImage(expected))
        assert moved.geometry.size == expected.GetSize()
        assert np.allclose(moved.geometry.affine, Geometry.of_image(expected).affine, rtol=0, atol=1e-9)
        assert np.array_equal(restore(moved.array, moved.geometry, volume.geometry), volume.array)
        moved_channels = np.stack([moved.array, moved.array + 1000])
        assert np.array_equal(restore(moved_channels, moved.geometry, volume.geometry), channels)


def test_the_orientation_of_any_rotation_is_the_one_itk_names():
    for seed in range(300):
        geometry = Geometry((2, 2, 2), (1, 1, 1), (0, 0, 0), tuple(rotation(seed).flat))
        name = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(geometry.direction)
        assert geometry.orientation == name


def test_an_axis_order_that_is_none_is_refused(ct):
    for orientation in ("LPX", "LLS", "LP", "LPSI", "lps", ""):
        with pytest.raises(InputError, match="no orientation"):
            reorient(ct, orientation)


def test_restoring_onto_a_foreign_grid_is_refused(ct):
    moved = reorient(ct, "SLP")
    shifted = Geometry(ct.geometry.size, ct.geometry.spacing, (0, 0, 0), ct.geometry.direction)
    with pytest.raises(ValueError, match="axis order"):
        restore(moved.array, moved.geometry, shifted)
    with pytest.raises(ValueError, match="not on a grid"):
        restore(ct.array, moved.geometry, ct.geometry)


def test_a_grid_reads_in_a_message_as_a_person_writes_it():
    turned = (0.8775825619, 0.4794255386, 0.0, -0.4794255386, 0.8775825619, 0.0, 0.0, 0.0, 1.0)
    grid = Geometry((33, 49, 32), (0.9999999948352141, 1.0, 2.5), (-1.0, -1.25, 0.0), turned)
    assert str(grid) == (
        "33 x 49 x 32 voxels of 1 x 1 x 2.5 mm from (-1, -1.25, 0) along "
        "(0.878, -0.479, 0), (0.479, 0.878, 0), (0, 0, 1) in LPS"
    )


# Channels on different grids


def test_resampling_keeps_every_place_in_space(volumes, ct):
    mr, pet = (read_volume(volumes / "sarcoma_ct_dicom" / name / "image") for name in ("MR_T1", "PET"))
    target = oblique(Volume(mr.array, mr.geometry), rotation(1)).geometry
    target = Geometry((40, 30, 20), target.spacing, tuple(mr.geometry.corners.mean(axis=0)), target.direction)
    k, j, i = np.indices(mr.array.shape)
    # A volume whose values are a linear function of space: linear interpolation must reproduce it anywhere.
    plane = np.array([0.3, -1.2, 0.7])
    places = np.stack([i, j, k], -1) @ mr.geometry.affine[:3, :3].T + mr.geometry.origin
    ramp = Volume(places @ plane, mr.geometry)
    resampled = resample_onto(ramp, target, fill=-5000)
    k, j, i = np.indices(target.shape)
    expected = (np.stack([i, j, k], -1) @ target.affine[:3, :3].T + target.origin) @ plane
    inside = resampled.array != -5000
    assert resampled.array.dtype == np.float32
    assert resampled.geometry == target
    assert 0 < inside.sum() < inside.size
    assert np.abs(resampled.array - expected)[inside].max() < 1e-2 + 1.6 * 0.5  # the outer half voxel is constant
    assert np.median(np.abs(resampled.array - expected)[inside]) < 1e-4
    assert resample_onto(pet, mr.geometry, 0).array.shape == mr.array.shape


def test_a_channel_on_the_same_grid_is_passed_on_as_it_is(ct):
    assert resample_onto(ct, ct.geometry, 0).array is ct.array


def test_fields_of_view_that_do_not_meet_are_reported(volumes, ct):
    with pytest.raises(InputError, match="do not overlap") as caught:
        resample_onto(read_volume(volumes / "sarcoma_ct_dicom" / "CT" / "image"), ct.geometry, -1024)
    assert "S -629 to -475 mm" in str(caught.value)
