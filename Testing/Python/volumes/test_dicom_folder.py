"""What a folder holds beside its series, and files of the series that are broken, doubled or compressed."""

from __future__ import annotations

import logging
import shutil

import gdcm
import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import image, item, uid, write_frames, write_series, write_slice
from pydicom import dcmread
from pydicom.uid import ImplicitVRLittleEndian, RLELossless, SecondaryCaptureImageStorage, SegmentationStorage
from usema.errors import InputError
from usema.resources import sample_volume
from usema.volumes.dicom_pixels import read_frames
from usema.volumes.geometry import Geometry
from usema.volumes.volume import read_volume


@pytest.fixture(scope="module")
def voxels():
    """(z, y, x), twelve slices of the sample."""
    return np.ascontiguousarray(sitk.GetArrayFromImage(sitk.ReadImage(str(sample_volume())))[8:20])


@pytest.fixture
def series(voxels, tmp_path):
    return write_series(tmp_path / "series", voxels)


def message(path) -> str:
    with pytest.raises(InputError) as caught:
        read_volume(path)
    return str(caught.value)


def test_the_series_is_read_whatever_else_lies_in_its_folder(series, voxels, caplog):
    folder = series[0].parent
    sitk.WriteImage(sitk.GetImageFromArray((voxels > 50).astype(np.uint8)), str(folder / "mask.nii.gz"))
    (folder / "DICOMDIR").write_bytes(series[0].read_bytes())
    (folder / "._IM0001.dcm").write_bytes(b"\0\5\x16\7")
    (folder / "README").write_text("by the archive")
    (folder / "LOCK").touch()
    one = item(SegmentNumber=1, SegmentLabel="x")
    segments = image(SegmentationStorage, "seg", voxels, SeriesInstanceUID=uid("seg"), SegmentSequence=[one])
    segments.save_as(folder / "seg.dcm", enforce_file_format=True)
    scout = {"SeriesInstanceUID": uid("scout"), "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
    write_slice(folder / "scout.dcm", voxels[0], (0, 0, 0), ImageOrientationPatient=[1, 0, 0, 0, 0, -1], **scout)
    for number, turned in enumerate(([1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, -1], [0, 1, 0, 0, 0, -1])):
        planes = {
            "SeriesInstanceUID": uid("planes"),
            "ImageOrientationPatient": turned,
            "SeriesDescription": "3 planes",
        }
        write_slice(folder / f"plane{number}.dcm", voxels[0], (0, 0, 0), **planes)
    shot = image(SecondaryCaptureImageStorage, "shot", np.zeros((3, 4, 4)), SeriesInstanceUID=uid("shot"))
    shot.SamplesPerPixel, shot.PhotometricInterpretation, shot.PlanarConfiguration = 3, "RGB", 1
    shot.save_as(folder / "shot.dcm", enforce_file_format=True)
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(read_volume(folder).array, voxels)
        assert np.array_equal(read_volume(series[3]).array, voxels)
    for word in ("seg.dcm (Segmentation)", "scout.dcm", "3 planes (CT, 3 images", "shot.dcm"):
        assert word in caplog.text
    assert "Segmentation" in message(folder / "seg.dcm")


def test_two_series_that_are_both_volumes_are_named_and_none_is_chosen(series, voxels):
    write_series(series[0].parent, voxels[:4], name="b{}.dcm", SeriesInstanceUID=uid("b"), SeriesDescription="late")
    assert "2 DICOM series: series (CT, 12 images" in message(series[0].parent)
    assert "late (CT, 4 images" in message(series[0].parent)
    assert read_volume(series[0].parent / "b2.dcm").geometry.size[2] == 4


@pytest.mark.parametrize("where", [(0, 11), (5, 6)])
@pytest.mark.parametrize("left", [0, 1, 100, 140, 400, -1, -1500])
def test_a_broken_file_of_the_series_is_named_wherever_it_lies_and_however_it_ends(series, left, where):
    for index in where:
        series[index].write_bytes(series[index].read_bytes()[:left])
    for path in (series[0].parent, series[3]):
        assert "2 of 12 DICOM files are broken" in message(path)
        assert all(series[index].name in message(path) for index in where)


@pytest.mark.parametrize("name", ["IM{:04d}", "1.2.840.{}", "3F{:02d}AC", "MR.{}.IMA"])
def test_an_empty_file_counts_as_broken_by_its_name_where_images_have_no_suffix(voxels, tmp_path, name):
    files = write_series(tmp_path / "plain", voxels, name=name)
    assert np.array_equal(read_volume(tmp_path / "plain").array, voxels)
    files[-1].write_bytes(b"")
    assert f"{files[-1].name} (it is empty)" in message(tmp_path / "plain")
    files[-1].write_bytes(b"gone" * 300)
    assert f"{files[-1].name} (it is no DICOM file)" in message(tmp_path / "plain")


def test_compressed_voxels_that_break_off_are_named(series):
    for path in series:
        dataset = dcmread(path)
        dataset.compress(RLELossless)
        dataset.save_as(path)
    series[4].write_bytes(series[4].read_bytes()[:-300])
    assert "IM0004.dcm (it ends after" in message(series[4].parent)


def test_copies_are_left_out_with_a_word_and_other_images_of_one_place_are_refused(series, voxels, caplog):
    folder = series[0].parent
    for index in (3, 7):
        shutil.copy(series[index], folder / f"IM{index:04d} (1).dcm")
    write_slice(folder / "again.dcm", voxels[9], (5, 6, 7 + 9 * 2), SeriesDescription="renamed", InstanceNumber=77)
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(read_volume(folder).array, voxels)
    assert "3 images are copies" in caplog.text
    assert "IM0003 (1).dcm" in caplog.text
    for path in folder.iterdir():
        dataset = dcmread(path)
        dataset.EchoTime = 20 if path.name == "again.dcm" else 10
        dataset.PixelData = dataset.PixelData[::-1] if path.name == "again.dcm" else dataset.PixelData
        dataset.save_as(path)
    assert "same place" in message(folder)
    assert "EchoTime" in message(folder)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("0.78125", "0.7812501", True),
        ("0.703125", "0.7031", True),
        ("0.703125", "0.703", True),
        ("0.4882812", "0.48828125", True),
        ("0.78125", "0.79", False),
        ("0.976562", "0.976999", False),
    ],
)
def test_pixel_spacings_are_the_same_where_rounding_explains_their_difference(voxels, tmp_path, first, second, same):
    for z, plane in enumerate(voxels):
        spacing = [second if z % 2 else first] * 2
        write_slice(tmp_path / f"{z:02d}.dcm", plane, (0, 0, z), PixelSpacing=spacing)
    if same:
        assert read_volume(tmp_path).geometry.spacing[0] == pytest.approx(float(first), abs=5e-4)
    else:
        assert f"different spacing: ({first}, {first}) and ({second}, {second})" in message(tmp_path)


def test_a_folder_above_the_one_with_images_stands_for_it(series, voxels):
    above = series[0].parent.parent
    (above / "DICOMDIR").write_bytes(b"")
    assert np.array_equal(read_volume(above).array, voxels)
    assert np.array_equal(read_volume(above / "DICOMDIR").array, voxels)


def test_files_without_a_preamble_are_dicom_too(series, voxels):
    for path in series:
        path.write_bytes(path.read_bytes()[132:])
    assert np.array_equal(read_volume(series[0].parent).array, voxels)


# Compressed


@pytest.mark.parametrize("codec", ["RLELossless", "JPEGLosslessProcess14_1", "JPEG2000Lossless", "JPEGLSLossless"])
def test_lossless_compression_changes_nothing(series, voxels, codec, capfd):
    for path in series:
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(str(path))
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, codec)))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFileName(str(path))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        assert dcmread(path).file_meta.TransferSyntaxUID.is_compressed
    assert np.array_equal(read_volume(series[0].parent).array, voxels)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("signed", "bits"), [(0, 12), (1, 12), (1, 16)])
@pytest.mark.parametrize("codec", [None, RLELossless])
def test_whichever_value_is_to_be_shown_white_measures_the_same(voxels, tmp_path, signed, bits, codec, capfd):
    values = voxels.astype(int) - 100 * signed
    stored = (values & (2**bits - 1)).astype(np.uint16)
    kind = {"BitsStored": bits, "HighBit": bits - 1, "PixelRepresentation": signed, "RescaleIntercept": -1024}
    scale = {"RescaleSlope": 2, "PhotometricInterpretation": "MONOCHROME1"}
    for path in write_series(tmp_path / "white", stored, **kind, **scale):
        if codec:
            dataset = dcmread(path)
            dataset.compress(codec)
            dataset.save_as(path)
    np.testing.assert_array_equal(read_volume(tmp_path / "white").array, 2 * values - 1024)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("padding", "signed", "named"), [(-32768, 1, -32768), (65535, 0, 65535), (-2000, 1, 63536)])
@pytest.mark.parametrize("implicit", [False, True])
def test_padding_that_would_drown_the_image_is_background(voxels, tmp_path, padding, signed, named, implicit, caplog):
    values = voxels.astype(int)
    values[:, :4] = padding
    for path in write_series(tmp_path / "padded", values.astype(np.uint16), PixelRepresentation=signed):
        dataset = dcmread(path)
        dataset.add_new("PixelPaddingValue", "US" if named > 0 else "SS", named)
        if implicit:
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        dataset.save_as(path)
    with caplog.at_level(logging.WARNING):
        array = read_volume(tmp_path / "padded").array
    assert f"{values[:, :4].size} voxels (8.2%) hold {padding}" in caplog.text
    assert not array[:, :4].any()
    assert np.array_equal(array[:, 4:], voxels[:, 4:])


@pytest.mark.parametrize(("padding", "slope"), [(-2000, 1), (0, 1), (-2000, "x")])
def test_padding_that_does_no_harm_or_was_measured_stays(voxels, tmp_path, padding, slope, caplog):
    values = voxels.astype(int) * 16 - 1024
    values[:, :4] = padding
    fields = {"PixelRepresentation": 1, "RescaleSlope": 1, "RescaleIntercept": 0}
    for path in write_series(tmp_path / "padded", values.astype(np.uint16), **fields):
        dataset = dcmread(path)
        dataset.add_new("PixelPaddingValue", "SS", padding)
        dataset.save_as(path)
        if slope == "x":
            content = path.read_bytes()
            path.write_bytes(content.replace(b"S\x10DS\x04\x001.0 ", b"S\x10DS\x04\x00x   "))
            assert path.read_bytes() != content
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(read_volume(tmp_path / "padded").array, values)
    assert not caplog.text


def test_a_palette_of_colours_is_no_intensity(series):
    for path in series[4:5], series:
        for one in path:
            dataset = dcmread(one)
            dataset.PhotometricInterpretation = "PALETTE COLOR"
            dataset.save_as(one)
        assert f"{path[0]} is a colour image" in message(series[0].parent)


def test_bits_that_lie_elsewhere_are_refused_and_not_read_as_other_values(voxels, tmp_path):
    files = write_series(tmp_path / "bits", voxels << 4, BitsStored=12, HighBit=15)
    assert f"{files[0]} stores its 12 bits up to bit 15" in message(tmp_path / "bits")


def test_voxels_that_do_not_decode_name_their_file_and_no_library_speaks(series, capfd):
    dataset = dcmread(series[5])
    dataset.compress(RLELossless)
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.90"  # says JPEG 2000
    dataset.save_as(series[5])
    assert "IM0005.dcm cannot be decoded" in message(series[0].parent)
    assert capfd.readouterr().err == ""


# Frames of one file


def test_an_enhanced_multi_frame_file_is_read_in_the_order_of_its_places(voxels, tmp_path):
    order = np.random.default_rng(1).permutation(len(voxels))
    write_frames(tmp_path / "all.dcm", voxels[order], 7 + 2.0 * order)
    for path in (tmp_path, tmp_path / "all.dcm"):
        volume = read_volume(path)
        assert np.array_equal(volume.array, voxels)
        assert volume.geometry.spacing == (1, 1, 2)
        assert volume.geometry.origin == (5, 6, 7)


def test_frames_keep_their_own_scale(voxels, tmp_path):
    slopes = [1 + z / 4 for z in range(len(voxels))]
    write_frames(tmp_path / "all.dcm", voxels, 7 + 2.0 * np.arange(len(voxels)), slopes)
    assert np.allclose(read_volume(tmp_path).array, voxels * np.array(slopes)[:, None, None])


def test_frames_of_one_place_that_differ_in_their_scale_alone_are_no_copies(voxels, tmp_path):
    heights = 7 + 2.0 * np.arange(len(voxels))
    twice = np.concatenate([voxels[:1], voxels])
    write_frames(tmp_path / "all.dcm", twice, [7, *heights], [1.0, 3.0, *[1.0] * (len(voxels) - 1)])
    assert "same place" in message(tmp_path)
    write_frames(tmp_path / "all.dcm", twice, [7, *heights], [3.0, 3.0, *[1.0] * (len(voxels) - 1)])
    scales = np.array([3] + [1] * (len(voxels) - 1))[:, None, None]
    np.testing.assert_array_equal(read_volume(tmp_path).array, voxels * scales)


def test_frames_of_two_phases_or_without_a_place_are_refused(voxels, tmp_path):
    write_frames(tmp_path / "phases.dcm", voxels, 7 + 2.0 * (np.arange(len(voxels)) // 2))
    assert "same place" in message(tmp_path)
    dataset = dcmread(tmp_path / "phases.dcm")
    del dataset.PerFrameFunctionalGroupsSequence
    dataset.save_as(tmp_path / "phases.dcm")
    assert "does not say where its 12 frames lie" in message(tmp_path)
    assert len(read_frames(tmp_path / "phases.dcm")) == 12


# Geometry


@pytest.mark.parametrize("seed", [None, 2, 3])
def test_oblique_slices_with_oblong_pixels_lie_where_itk_has_them(voxels, tmp_path, seed):
    axes = np.eye(3) if seed is None else np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    normal = np.cross(axes[:, 0], axes[:, 1])
    place = {"ImageOrientationPatient": [f"{value:.8f}" for value in axes[:, :2].T.flat], "PixelSpacing": [0.5, 0.8]}
    files = [tmp_path / f"{z:02d}.dcm" for z in range(len(voxels))]
    for z, file in enumerate(files):
        write_slice(file, voxels[z], np.array([5, 6, 7]) + 2.5 * z * normal, **place)
    image = sitk.ReadImage(list(map(str, files)))
    for file, name in zip(files, np.random.default_rng(0).permutation(len(files)), strict=True):
        file.rename(tmp_path / f"x{name}.dcm")
    volume = read_volume(tmp_path)
    assert np.array_equal(volume.array, voxels)
    assert np.allclose(volume.geometry.affine, Geometry.of_image(image).affine, atol=1e-5)


def test_directions_that_span_no_plane_are_refused(voxels, tmp_path):
    write_series(tmp_path / "flat", voxels, ImageOrientationPatient=[1, 0, 0, 1, 0, 0])
    assert "span no plane" in message(tmp_path / "flat")


@pytest.mark.parametrize("columns", [(0, 0.99, 0), (0.2, 0.98, 0)])
def test_directions_that_are_no_grid_name_their_series(voxels, tmp_path, columns):
    write_series(tmp_path / "skew", voxels, ImageOrientationPatient=[1, 0, 0, *columns])
    assert message(tmp_path / "skew").startswith(f"{tmp_path / 'skew'}: The direction")


# Tilted and incomplete stacks


@pytest.mark.parametrize("tilt", [-20.0, 12.0])
def test_a_tilted_gantry_is_made_straight_so_that_every_place_keeps_its_value(tmp_path, tilt, caplog):
    z, y, x = np.indices((14, 40, 24))
    step = np.array([0, 3 * np.tan(np.radians(tilt)), 3.0])
    places = np.stack([x, y, np.zeros_like(z)], -1) + np.array([5.0, 6.0, 7.0]) + z[..., None] * step
    ramp = np.rint(500 + places @ (3.0, 10.0, 2.0))
    write_series(tmp_path / "tilted", ramp, step=step)
    with caplog.at_level(logging.WARNING):
        volume = read_volume(tmp_path / "tilted")
    assert f"tilted gantry ({abs(tilt):.1f} degrees)" in caplog.text
    k, j, i = np.indices(volume.array.shape)
    found = np.stack([i, j, k], -1) * volume.geometry.spacing + np.array(volume.geometry.origin)
    assert np.allclose(volume.geometry.axes, np.eye(3))
    inside = volume.array > 0
    off = np.abs(volume.array - (500 + found @ (3.0, 10.0, 2.0)))[inside]
    assert np.quantile(off, 0.95) < 1.5
    assert inside.sum() > 0.95 * ramp.size  # nothing is cut off


def test_missing_slices_are_interpolated_only_on_request(series, voxels, caplog):
    for index in (4, 8, 9):
        series[index].unlink()
    assert "--interpolate-slices" in message(series[0].parent)
    with caplog.at_level(logging.WARNING):
        array = read_volume(series[0].parent, interpolate_slices=True).array
    assert "3 of 12 slices were interpolated" in caplog.text
    own = [0, 1, 2, 3, 5, 6, 7, 10, 11]
    assert np.array_equal(array[own], voxels[own])
    assert np.abs(array[4] - (voxels[3].astype(float) + voxels[5]) / 2).max() <= 0.5
    assert np.abs(array[8] - (2 * voxels[7].astype(float) + voxels[10]) / 3).max() <= 0.5


def test_most_of_a_series_is_never_made_up(series):
    for path in series[1:-2]:
        path.unlink()
    with pytest.raises(InputError, match="would be interpolated"):
        read_volume(series[0].parent, interpolate_slices=True)


def test_files_of_another_depth_or_an_unknown_coding_are_named_by_it(voxels, tmp_path):
    write_series(tmp_path / "depth", voxels, BitsAllocated=8)
    assert f"holds {2 * voxels[0].size} bytes of voxels, but its header describes" in message(tmp_path / "depth")
    for path in write_series(tmp_path / "coding", voxels):
        path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.113619.5.2\0\0"))
    assert "its transfer syntax is 1.2.840.113619.5.2" in message(tmp_path / "coding")
