"""Headers of MetaImage, NRRD and NIfTI whose numbers ITK trusts or passes over: refused by the field, or said."""

from __future__ import annotations

import gzip
import logging
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import SimpleITK as sitk
from usema.errors import InputError
from usema.resources import sample_volume
from usema.volumes.image_files import read_grid, read_slices
from usema.volumes.volume import read_volume


@pytest.fixture(scope="module")
def sample():
    return read_volume(sample_volume())


def metaimage(path, sample, body=None, without=(), **changed):
    fields = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "CompressedData": "False",
        "TransformMatrix": "1 0 0 0 1 0 0 0 1",
        "Offset": "1 2 3",
        "ElementSpacing": "1 1 1",
        "DimSize": " ".join(map(str, sample.geometry.size)),
        "ElementType": "MET_UCHAR",
    } | changed
    lines = [f"{key} = {value}\n" for key, value in fields.items() if key not in without]
    body = sample.array.tobytes() if body is None else body
    path.write_bytes("".join([*lines, "ElementDataFile = LOCAL\n"]).encode() + body)
    return path


def nrrd(path, sample, **fields):
    sizes = " ".join(map(str, sample.geometry.size))
    lines = ["NRRD0004", "type: uchar", "dimension: 3", f"sizes: {sizes}"]
    lines += [f"{key.replace('_', ' ')}: {value}" for key, value in ({"encoding": "raw"} | fields).items()]
    path.write_bytes("\n".join([*lines, "", ""]).encode() + sample.array.tobytes())
    return path


def message(path) -> str:
    with pytest.raises(InputError) as caught:
        read_volume(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("NDims", "99"),
        ("NDims", "x"),
        ("DimSize", "33 49"),
        ("DimSize", "33 -49 32"),
        ("DimSize", "a b c"),
        ("ElementNumberOfChannels", "-1"),
        ("ElementSpacing", "1 nan 1"),
        ("ElementSpacing", "0,9 0,9 1,2"),
        ("ElementSpacing", "1 1"),
        ("Offset", "1e999 0 0"),
        ("TransformMatrix", "1 0 0 1"),
    ],
)
def test_a_wrong_number_in_metaimage_is_named_and_ends_no_process(sample, tmp_path, field, value):
    path = metaimage(tmp_path / "a.mha", sample, **{field: value})
    # In a process of its own: ITK aborts where it has no room for the dimensions.
    code = f"from usema.volumes.volume import read_volume; read_volume({str(path)!r})"
    if field == "NDims":
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=280)
        assert done.returncode == 1
        assert f"{field} = {value}" in done.stderr
    assert f"{field} = {value}" in message(path)


def test_a_compressed_metaimage_that_tells_a_wrong_length_is_never_read_as_noise(sample, tmp_path):
    body = zlib.compress(sample.array.tobytes())
    whole = metaimage(tmp_path / "a.mha", sample, body, CompressedData="True", CompressedDataSize=len(body))
    assert np.array_equal(read_volume(whole).array, sample.array)
    for told in ({"CompressedDataSize": 100}, {}):
        path = metaimage(tmp_path / "b.mha", sample, body, CompressedData="True", **told)
        assert f"CompressedDataSize = {len(body)} into the header" in message(path)


def test_what_metaimage_leaves_open_about_lengths_and_values_is_said(sample, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        volume = read_volume(metaimage(tmp_path / "a.mha", sample, without=["ElementSpacing"]))
        assert volume.geometry.spacing == (1, 1, 1)
        assert "does not say its spacing" in caplog.text
        read_volume(metaimage(tmp_path / "b.mha", sample, ElementToIntensityFunctionSlope=2))
        assert "a scale of 2 and an offset of 0" in caplog.text
        caplog.clear()
        read_volume(metaimage(tmp_path / "c.mha", sample, without=["ElementSpacing"], ElementSize="2 2 2"))
        assert caplog.text == ""


def test_an_axis_of_nrrd_without_a_length_is_not_taken_for_a_millimetre(sample, tmp_path, caplog):
    assert "spacings are 1 nan 2" in message(nrrd(tmp_path / "a.nrrd", sample, spacings="1 nan 2"))
    directions = {"space": "left-posterior-superior", "space_directions": "none (0,1,0) (0,0,1)"}
    assert "of 2 axes only" in message(nrrd(tmp_path / "b.nrrd", sample, **directions))
    assert "bzip2" in message(nrrd(tmp_path / "c.nrrd", sample, encoding="bzip2"))
    read_volume(nrrd(tmp_path / "d.nrrd", sample))
    assert "does not say its spacing" in caplog.text


def test_nifti_with_a_damaged_word_is_no_analyze_and_too_large_a_scale_prints_nothing(tmp_path, recwarn):
    content = bytearray(gzip.decompress(sample_volume().read_bytes()))
    struct.pack_into("<f", content, 112, 3e38)
    (tmp_path / "scale.nii").write_bytes(content)
    assert "infinite" in message(tmp_path / "scale.nii")
    assert not recwarn.list
    content[344:348] = b"x+1\0"
    (tmp_path / "word.nii").write_bytes(content)
    assert "'n+1'" in message(tmp_path / "word.nii")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_a_grid_is_known_from_the_header_alone_whatever_is_missing_behind_it(sample, tmp_path, suffix):
    path = tmp_path / f"volume{suffix}"
    image = sitk.DICOMOrient(sample.to_image(), "PIR")
    image.SetSpacing((0.7, 1.5, 2.25))
    image.SetOrigin((-3, 40, 5))
    sitk.WriteImage(image, str(path), useCompression=True)
    whole = read_volume(path)
    assert read_grid(path) == whole.geometry
    np.testing.assert_array_equal(np.stack(list(read_slices(path))), whole.array)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError):
        read_volume(path)
    if suffix == ".nii":  # whose length the header tells
        with pytest.raises(InputError, match="is incomplete"):
            read_grid(path)
    else:
        assert read_grid(path) == whole.geometry


def test_of_a_nifti_file_no_more_is_read_than_the_slices_that_are_asked_for(sample, tmp_path):
    path = tmp_path / "volume.nii.gz"
    sitk.WriteImage(sample.to_image(), str(path))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    slices = read_slices(path)
    np.testing.assert_array_equal(next(slices), sample.array[0])
    with pytest.raises(InputError, match="damaged or incomplete"):
        list(slices)
