"""Segmentations and structure sets that were made to harm: never read as an image, never waited for, never a traceback.

Beside a series they are left out with a word, or the folder is refused by their name; they change no voxel.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_files import image, item, write_series
from pydicom.uid import CTImageStorage, RTStructureSetStorage, SegmentationStorage
from usema.errors import InputError
from usema.quality.label_maps import read_label_map
from usema.volumes.volume import read_volume

VOXELS = np.random.default_rng(0).integers(0, 500, (6, 8, 8)).astype(np.uint16)
ABSURD = {"NumberOfFrames": 2**31 - 1, "Rows": 65535, "Columns": 65535}
OF_IMAGES = ("PixelData", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated")


def segmentation(path: Path, kind: str = SegmentationStorage, **fields: object) -> None:
    segments = [item(SegmentNumber=1, SegmentLabel="\x1b[31m<script>")]
    told = {"Modality": "SEG", "NumberOfFrames": 1, "SegmentSequence": segments, **fields}
    image(kind, path.name, VOXELS[:1], **told).save_as(path, enforce_file_format=True)


def structures(path: Path, more: bytes = b"", **fields: object) -> None:
    dataset = image(RTStructureSetStorage, path.name, VOXELS[:1], Modality="RTSTRUCT", **fields)
    for name in (*OF_IMAGES, "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(dataset, name)
    dataset.save_as(path, enforce_file_format=True)
    path.write_bytes(path.read_bytes() + more)


def many_frames(path: Path) -> None:
    frames = [item(PlanePositionSequence=[item(ImagePositionPatient=[0, 0, z])]) for z in range(500)]
    segmentation(path, NumberOfFrames=500, PerFrameFunctionalGroupsSequence=frames)
    path.write_bytes(path.read_bytes()[:-20_000])  # and cut off


def nested(depth: int) -> bytes:
    """A sequence of contours in a sequence of contours in ..., of lengths that are not told."""
    start = b"\x06\x30\x39\x00SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    return start * depth + (b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0") * depth


CONTOURS = [item(ContourSequence=[item(NumberOfContourPoints=2**31 - 1, ContourData=[1e308] * 3)])]
LEFT_OUT = {
    "a segmentation": segmentation,
    "a segmentation of absurd size": lambda path: segmentation(path, **ABSURD),
    "a segmentation that says it is a CT": lambda path: segmentation(path, Modality="CT"),
    "a segmentation of many frames, cut off": many_frames,
    "structures with names that are commands": lambda path: structures(
        path, StructureSetROISequence=[item(ROINumber=1, ROIName="a\x1b[31m<script>\x07")]
    ),
    "structures of absurd contours": lambda path: structures(path, ROIContourSequence=CONTOURS),
    "structures in structures": lambda path: structures(path, nested(50)),
    "a length behind the end": lambda path: structures(path, b"\x06\x30\x50\x00DS\xff\xff1\\2"),
    "an element of 4 GB": lambda path: structures(path, b"\x06\x30\xff\x01OB\0\0\xf0\xff\xff\xff12"),
}
BROKEN = {
    "a CT of absurd size that says it is a segmentation": lambda path: segmentation(path, CTImageStorage, **ABSURD),
    "structures three thousand deep": lambda path: structures(path, nested(3000)),
    "structures a hundred thousand deep": lambda path: structures(path, nested(100_000)),
}


@pytest.mark.parametrize("what", [*LEFT_OUT, *BROKEN])
@pytest.mark.parametrize("read", [read_volume, read_label_map])
def test_given_by_itself_it_is_refused_by_name(what, read, tmp_path):
    path = tmp_path / "made.dcm"
    (LEFT_OUT | BROKEN)[what](path)
    message = (
        "broken: made.dcm" if what in BROKEN else r"made.dcm is not a DICOM image but: (Segmentation|RT Structure)"
    )
    with pytest.raises(InputError, match=message):
        read(path)


@pytest.mark.parametrize("what", LEFT_OUT)
def test_beside_a_series_it_is_left_out_and_changes_nothing(what, tmp_path, caplog):
    write_series(tmp_path, VOXELS)
    LEFT_OUT[what](tmp_path / "made.dcm")
    np.testing.assert_array_equal(read_volume(tmp_path).array, VOXELS)
    assert "left out: made.dcm" in caplog.text


@pytest.mark.parametrize("what", BROKEN)
def test_beside_a_series_what_may_be_a_slice_is_not_left_out_in_silence(what, tmp_path):
    write_series(tmp_path, VOXELS)
    BROKEN[what](tmp_path / "made.dcm")
    with pytest.raises(InputError, match=r"1 of 7 DICOM files are broken: made.dcm .*move these files out"):
        read_volume(tmp_path)
