"""Images in files: every format gives the same pixels, and what is no image is refused with a reason."""

from __future__ import annotations

import logging
import os
import shutil
import struct
import zlib

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from image_files import (
    dicom_image,
    item,
    save_dicom,
    write_all_formats,
    write_grey_alpha_png,
    write_jpeg_dicom,
    write_tiff,
)
from image_models import blobs
from PIL import Image
from usema.errors import InputError
from usema.volumes import picture_formats
from usema.volumes.colours import luminance
from usema.volumes.picture_dicom import pixel_size
from usema.volumes.picture_files import read_picture

IMAGE, _ = blobs(100)
COLOUR = np.stack([IMAGE, IMAGE // 2, 255 - IMAGE], axis=-1)


@pytest.fixture(scope="module")
def formats(tmp_path_factory):
    return write_all_formats(tmp_path_factory.mktemp("formats"), IMAGE)


def test_every_format_gives_the_same_pixels(formats):
    """Up to what 16 bits are scaled by."""
    for name, path in formats.items():
        picture = read_picture(path)
        assert picture.geometry.size == (128, 96, 1), name
        array = luminance(picture.array) if picture.in_colour else picture.array
        scale = 257 if name.endswith(("16.png", "_16.tif", "_16.dcm")) and name[:3] not in ("rgb",) else 1
        scale = 16 if name == "monochrome1_12.dcm" else scale
        # MONOCHROME1 is turned over within its bits: 4095 - v * 16 becomes v * 16.
        assert np.array_equal(array[0].astype(float), IMAGE.astype(float) * scale), name


def test_dots_per_inch_are_no_size_of_pixels(formats):
    for name in ("grey.png", "grey.tif", "rgb.tif"):
        picture = read_picture(formats[name])
        assert not picture.pixel_size_known
        assert picture.geometry.spacing == (1, 1, 1)
    assert read_picture(formats["grey.png"], 0.25).geometry.spacing == (0.25, 0.25, 1)
    assert read_picture(formats["grey.png"], 0.25).pixel_size_known


def test_colours_stay_colours(tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "a.png")
    assert np.array_equal(read_picture(tmp_path / "a.png").array[0], COLOUR)
    jpeg = read_picture(write_jpeg_dicom(tmp_path / "a.dcm", COLOUR)).array
    assert jpeg.shape == (1, 96, 128, 3)
    assert np.abs(jpeg[0].astype(int) - COLOUR).mean() < 3


def test_red_green_and_blue_are_as_bright_as_people_see_them():
    """ITU-R BT.601: 0.299, 0.587 and 0.114."""
    assert luminance(255 * np.eye(3, dtype=np.uint8)).tolist() == [76, 150, 29]
    assert luminance(np.eye(3)) == pytest.approx([0.299, 0.587, 0.114], abs=1e-5)


def test_a_jpeg_is_read_upright_and_that_is_said(tmp_path, caplog):
    """Pixels as a camera on its side stores them."""
    for code, stored in ((6, np.rot90(IMAGE)), (3, IMAGE[::-1, ::-1]), (8, np.rot90(IMAGE, -1)), (2, IMAGE[:, ::-1])):
        exif = Image.Exif()
        exif[0x112] = code
        Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.jpg", quality=100, exif=exif)
        caplog.clear()
        found = read_picture(tmp_path / "a.jpg").array[0]
        assert np.abs(found.astype(int) - IMAGE).max() < 12
        assert f"EXIF orientation {code}" in caplog.text
        assert "128 x 96" in caplog.text


def test_pages_and_frames_are_a_stack(tmp_path):
    pages = [IMAGE, 255 - IMAGE, IMAGE // 2]
    first, *others = map(Image.fromarray, pages)
    first.save(tmp_path / "a.tif", save_all=True, append_images=others)
    assert np.array_equal(read_picture(tmp_path / "a.tif").array, pages)
    save_dicom(tmp_path / "cine.dcm", dicom_image(np.stack(pages), frames=3))
    assert np.array_equal(read_picture(tmp_path / "cine.dcm").array, pages)
    colours = np.stack([COLOUR, COLOUR[::-1]])
    save_dicom(tmp_path / "colour.dcm", dicom_image(colours, "RGB", frames=2))
    assert np.array_equal(read_picture(tmp_path / "colour.dcm").array, colours)


def test_transparency_is_left_out_with_a_word_where_there_is_any(tmp_path, caplog):
    alpha = np.where(IMAGE > 90, 255, 0).astype(np.uint8)
    Image.fromarray(np.dstack([COLOUR, alpha])).save(tmp_path / "a.png")
    assert np.array_equal(read_picture(tmp_path / "a.png").array[0], COLOUR)
    assert "its transparency was left out" in caplog.text


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_a_slice_in_a_file_for_volumes_is_read_whatever_its_name(ending, tmp_path):
    """In capitals, or no text at all: ITK goes by names."""
    sitk.WriteImage(sitk.GetImageFromArray(IMAGE), str(tmp_path / f"good{ending}"))
    for name in (os.fsdecode(b"bad\xff" + ending.encode()), f"LOUD{ending.upper()}"):
        shutil.copy(tmp_path / f"good{ending}", tmp_path / name)
        assert np.array_equal(read_picture(tmp_path / name).array[0], IMAGE)


def test_tiffs_that_no_library_here_reads_rightly_are_refused(tmp_path):
    deep = IMAGE.astype(np.uint32) * 2**16
    kinds = {"white 32": (deep, 0), "white 8 and alpha": (np.dstack([IMAGE, IMAGE]), 0)}
    for name, (pixels, photometric) in kinds.items():
        with pytest.raises(InputError, match=r"of a kind that is not read here: .* with white stored as zero"):
            read_picture(write_tiff(tmp_path / f"{name}.tif", pixels, photometric=photometric))


def test_deep_transparency_is_left_out_with_a_word(tmp_path, caplog):
    pixels = np.dstack([IMAGE.astype(np.uint16) * 200, np.full(IMAGE.shape, 300, np.uint16)])
    for path in (
        write_tiff(tmp_path / "a.tif", pixels),
        write_tiff(tmp_path / "b.tif", pixels, ">"),
        write_grey_alpha_png(tmp_path / "a.png", pixels),
    ):
        caplog.clear()
        assert np.array_equal(read_picture(path).array[0], pixels[..., 0])
        assert "transparency was left out" in caplog.text


def test_bits_that_lie_elsewhere_are_refused(tmp_path):
    """GDCM cuts off the highest of them."""
    pixels = IMAGE.astype(np.uint16) * 256
    path = save_dicom(tmp_path / "a.dcm", dicom_image(pixels, BitsStored=12, HighBit=15))
    with pytest.raises(InputError, match="12 bits up to bit 15"):
        read_picture(path)


REGION = {"PhysicalUnitsXDirection": 3, "PhysicalUnitsYDirection": 3, "RegionSpatialFormat": 1}
SIZE = {"RegionLocationMinX0": 0, "RegionLocationMinY0": 0}
LARGE = item(
    **REGION, **SIZE, RegionLocationMaxX1=100, RegionLocationMaxY1=90, PhysicalDeltaX=0.02, PhysicalDeltaY=0.03
)
SMALL = item(**REGION, **SIZE, RegionLocationMaxX1=20, RegionLocationMaxY1=9, PhysicalDeltaX=0.5, PhysicalDeltaY=0.5)
DOPPLER = item(**{**REGION, "RegionSpatialFormat": 3, "PhysicalUnitsXDirection": 4}, PhysicalDeltaX=1, PhysicalDeltaY=1)
MEASURED = item(PixelMeasuresSequence=[item(PixelSpacing=[0.2, 0.3])])


@pytest.mark.parametrize(
    ("fields", "spacing", "said"),
    [
        ({}, None, ""),
        ({"PixelSpacing": [0.2, 0.3]}, (0.3, 0.2), ""),
        ({"PixelSpacing": [0.2, 0.3], "ImagerPixelSpacing": [0.25, 0.4]}, (0.3, 0.2), ""),
        ({"PixelSpacing": [0.2, 0.3], "ImagerPixelSpacing": [0.2, 0.3]}, (0.3, 0.2), "at the detector"),
        ({"ImagerPixelSpacing": [0.2, 0.3]}, (0.3, 0.2), "at the detector"),
        (
            {"ImagerPixelSpacing": [0.2, 0.3], "EstimatedRadiographicMagnificationFactor": 1.25},
            (0.24, 0.16),
            "magnification 1.25",
        ),
        ({"SharedFunctionalGroupsSequence": [MEASURED]}, (0.3, 0.2), ""),
        ({"PerFrameFunctionalGroupsSequence": [MEASURED]}, (0.3, 0.2), ""),
        ({"NominalScannedPixelSpacing": [0.1, 0.1]}, (0.1, 0.1), "scanned film"),
        ({"SequenceOfUltrasoundRegions": [SMALL, LARGE]}, (0.2, 0.3), "2 regions have pixels of different sizes"),
        ({"SequenceOfUltrasoundRegions": [DOPPLER, LARGE]}, (0.2, 0.3), ""),
        ({"SequenceOfUltrasoundRegions": [DOPPLER]}, None, ""),
        ({"PixelSpacing": [0, 0]}, None, ""),
    ],
)
def test_the_size_of_a_pixel_comes_from_whichever_tag_has_it(tmp_path, fields, spacing, said):
    import pydicom

    path = save_dicom(tmp_path / "a.dcm", dicom_image(IMAGE, **fields))
    found, words = pixel_size(pydicom.dcmread(path))
    assert found == (None if spacing is None else pytest.approx(spacing))
    assert said in words
    assert bool(said) == bool(words)
    picture = read_picture(path)
    assert picture.pixel_size_known == (spacing is not None)
    assert picture.geometry.spacing == pytest.approx((*(spacing or (1, 1)), 1))


def test_the_size_of_a_pixel_that_the_user_gives_is_not_doubted(tmp_path, caplog):
    path = save_dicom(tmp_path / "a.dcm", dicom_image(IMAGE, Modality="DX", ImagerPixelSpacing=[0.2, 0.3]))
    assert read_picture(path, 0.5).geometry.spacing == (0.5, 0.5, 1)
    assert caplog.text == ""
    read_picture(path)
    assert "at the detector" in caplog.text


def test_spacings_of_volume_formats_are_believed_unless_they_are_one(tmp_path):
    image = sitk.GetImageFromArray(IMAGE)
    image.SetSpacing((0.5, 0.25))
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"))
    picture = read_picture(tmp_path / "a.nrrd")
    assert picture.geometry.spacing[:2] == (0.5, 0.25)
    assert picture.pixel_size_known
    image.SetSpacing((1, 1))
    sitk.WriteImage(image, str(tmp_path / "b.nrrd"))
    assert not read_picture(tmp_path / "b.nrrd").pixel_size_known


def png(width: int, height: int, data: bytes = b"") -> bytes:
    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def bad_files(folder):
    """name -> what the refusal says."""
    Image.fromarray(COLOUR).save(folder / "good.png")
    Image.fromarray(COLOUR).save(folder / "good.jpg")
    Image.fromarray(COLOUR).save(folder / "good.tif", compression="tiff_lzw")
    for name in ("good.png", "good.jpg", "good.tif"):
        whole = (folder / name).read_bytes()
        (folder / f"cut{name[4:]}").write_bytes(whole[: len(whole) // 2])
        (folder / f"stub{name[4:]}").write_bytes(whole[:12])
        (folder / f"empty{name[4:]}").write_bytes(b"")
    flipped = bytearray((folder / "good.png").read_bytes())
    flipped[len(flipped) // 2] ^= 255
    (folder / "flipped.png").write_bytes(flipped)
    Image.fromarray(COLOUR).save(folder / "zip.tif", compression="tiff_adobe_deflate")
    flipped = bytearray((folder / "zip.tif").read_bytes())
    flipped[500:510] = bytes(10)  # of which libtiff prints a line
    (folder / "flipped.tif").write_bytes(flipped)
    Image.fromarray(COLOUR).convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(COLOUR).convert("CMYK").save(folder / "cmyk.tif")
    pages = [Image.fromarray(IMAGE), Image.fromarray(IMAGE[:50])]
    pages[0].save(folder / "pages.tif", save_all=True, append_images=pages[1:])
    pages[0].save(folder / "animated.png", save_all=True, append_images=[Image.fromarray(255 - IMAGE)])
    pages[0].save(folder / "film.gif")
    (folder / "named.png").write_bytes((folder / "film.gif").read_bytes())
    (folder / "text.jpg").write_text("no image")
    (folder / "huge.png").write_bytes(png(60000, 60000))
    Image.fromarray(IMAGE[:, :1]).save(folder / "strip.png")
    Image.fromarray(IMAGE[:3]).save(folder / "strip.tif")
    Image.fromarray(np.full((64, 64), 9, np.uint8)).save(folder / "flat.png")
    sitk.WriteImage(sitk.GetImageFromArray(np.stack([IMAGE] * 5)), str(folder / "volume.nii.gz"))
    many = sitk.GetImageFromArray(np.zeros((1, 20, 20, 6), np.uint8), isVector=True)
    sitk.WriteImage(many, str(folder / "six.nrrd"))
    (folder / "a.seg.nrrd").write_bytes(b"NRRD")
    whole = save_dicom(folder / "whole.dcm", dicom_image(IMAGE)).read_bytes()
    (folder / "cut.dcm").write_bytes(whole[: len(whole) // 2])
    cine = pydicom.dcmread(write_jpeg_dicom(folder / "cine.dcm", COLOUR))
    cine.NumberOfFrames = 100_000
    cine.save_as(folder / "cine.dcm")
    return {
        **{name: "damaged or incomplete|damaged|cannot be read" for name in ("cut.png", "cut.jpg", "cut.tif")},
        **{name: "damaged|cannot be read" for name in ("stub.png", "stub.jpg", "stub.tif")},
        **{name: "damaged|cannot be read" for name in ("flipped.png", "flipped.tif")},
        **{name: "is empty: it has no bytes" for name in ("empty.png", "empty.jpg", "empty.tif")},
        "cmyk.jpg": "the colours CMYK",
        "cmyk.tif": "the colours CMYK",
        "pages.tif": "pages of different kinds: 128 x 96 and 128 x 50 pixels on pages 1 and 2",
        "animated.png": "an animation of 2 pictures",
        "film.gif": "no kind of image that USEMA reads",
        "named.png": "is a GIF, which is not read",
        "text.jpg": "is no PNG, JPEG, TIFF or BMP, whatever its name says",
        "huge.png": "larger than any image: 3600000000 pixels",
        "strip.png": "a strip of 1 x 96 pixels",
        "strip.tif": "a strip of 128 x 3 pixels",
        "flat.png": "the value 9 in every",
        "volume.nii.gz": "a volume of 128 x 96 x 5 voxels, and the model is for two-dimensional images",
        "six.nrrd": "6 values in each pixel",
        "a.seg.nrrd": "a segmentation, not an image",
        "cut.dcm": "is broken: it ends after",
        "cine.dcm": "is broken: it holds 1 of 100000 compressed frames",
        "missing.png": "does not exist",
    }


def test_what_is_no_image_is_refused_with_a_reason_and_what_to_do(tmp_path, capfd):
    for name, message in bad_files(tmp_path).items():
        with pytest.raises(InputError, match=message) as refused:
            read_picture(tmp_path / name)
        assert str(tmp_path / name) in str(refused.value), name
        assert refused.value.hint or name == "flat.png", name
        assert "Error" not in str(refused.value), name
    assert capfd.readouterr().err == ""  # no library's own line


def test_what_odd_tags_let_a_library_say_is_logged_with_the_file(tmp_path, capfd, caplog):
    file = tmp_path / "odd.tif"
    Image.fromarray(IMAGE).save(file, compression="tiff_lzw", tiffinfo={33432: "a"})
    data = bytearray(file.read_bytes())
    place = data.index(struct.pack("<HHI", 33432, 2, 2))  # the copyright, now of a type that no tag has
    data[place + 2 : place + 4] = b"\x63\0"
    file.write_bytes(data)
    assert np.array_equal(read_picture(file).array[0], IMAGE)
    assert capfd.readouterr().err == ""
    assert caplog.text == "" or str(file) in caplog.text


def test_many_pages_of_a_small_file_are_refused_before_they_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(picture_formats, "_MOST_PIXELS", 3 * IMAGE.size)
    page = Image.fromarray(np.zeros_like(IMAGE))
    for pages in (3, 4):
        page.save(tmp_path / f"{pages}.tif", compression="tiff_lzw", save_all=True, append_images=[page] * (pages - 1))
    with pytest.raises(InputError, match="the value 0 in every"):
        read_picture(tmp_path / "3.tif")
    with pytest.raises(InputError, match="larger than any image: 49152 pixels on 4 pages"):
        read_picture(tmp_path / "4.tif")


def test_a_volume_of_frames_that_lie_in_the_patient_is_no_stack(tmp_path):
    places = [item(PlanePositionSequence=[item(ImagePositionPatient=[0, 0, float(z)])]) for z in range(3)]
    dataset = dicom_image(np.stack([IMAGE] * 3), frames=3, PerFrameFunctionalGroupsSequence=places)
    with pytest.raises(InputError, match="a volume of 3 slices"):
        read_picture(save_dicom(tmp_path / "a.dcm", dataset))


def test_nothing_is_said_of_ordinary_images(formats, caplog):
    with caplog.at_level(logging.WARNING):
        for path in formats.values():
            read_picture(path)
    assert caplog.text == ""
