"""DICOM results refer to the series they were made of, and whoever reads them gets the very voxels again."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from dicom_files import item, uid, write_frames, write_series, write_slice
from pydicom import dcmread
from usema.errors import InputError, MissingDependencyError, OutputError
from usema.volumes.dicom_results import check_dicom_result
from usema.volumes.dicom_rtstruct import write_rtstruct
from usema.volumes.frames import read_frame
from usema.volumes.volume import read_volume

highdicom = pytest.importorskip("highdicom", reason="the extra `dicom` is not installed")
from usema.volumes.dicom_seg import write_dicom_segmentation  # noqa: E402


def code(value: str, meaning: str) -> dict[str, str]:
    return {"scheme": "SCT", "value": value, "meaning": meaning}


KIDNEY = {
    "category": code("123037004", "Anatomical Structure"),
    "type": code("64033007", "Kidney"),
    "type_modifier": code("7771000", "Left"),
    "region": code("113345001", "Abdomen"),
}
LABELS = [
    SimpleNamespace(value=3, name="Left kidney", color=(185, 102, 83), terminology=KIDNEY),
    SimpleNamespace(value=1, name="Nothing of it", color=(1, 2, 3), terminology=None),
    SimpleNamespace(value=7, name="K\u00f6rper " * 20, color=(0, 255, 1), terminology=None),
]
PROVENANCE = {"model": "kidneys", "modelVersion": "1.2.0", "weightsSha256": "ab" * 32}
SERIES = {"FrameOfReferenceUID": uid("frame"), "SpecificCharacterSet": "ISO_IR 100", "PatientName": "M\u00fcller"}


def some_labels(shape) -> np.ndarray:
    """Two labels, one with a hole, a cavity, voxels on the border and ones that touch at a corner only."""
    z, y, x = (np.arange(length) for length in shape)
    far = np.sqrt(
        (z[:, None, None] - shape[0] / 2) ** 2
        + (y[None, :, None] - shape[1] / 3) ** 2
        + (x[None, None, :] - shape[2] / 2) ** 2
    )
    labels = np.zeros(shape, np.uint8)
    labels[far < min(shape) / 2] = 3
    labels[far < min(shape) / 4] = 0
    labels[0, 0, :4] = labels[-1, -1, -1] = labels[1, 1, 1] = labels[1, 2, 2] = 7
    return labels


def read_back(path, geometry) -> dict[int, np.ndarray]:
    """By pydicom alone: each frame goes where its position says; number of a segment -> bool (z, y, x)."""
    dataset = dcmread(path)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    orientation = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    np.testing.assert_allclose(orientation, geometry.axes[:, :2].T.ravel(), atol=1e-5)
    np.testing.assert_allclose(shared.PixelMeasuresSequence[0].PixelSpacing, geometry.spacing[1::-1], rtol=1e-5)
    found = {int(one.SegmentNumber): np.zeros(geometry.shape, bool) for one in dataset.SegmentSequence}
    pixels = dataset.pixel_array.reshape(-1, *geometry.shape[1:])
    for frame, group in zip(pixels, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        position = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        index = np.linalg.inv(geometry.affine) @ [*position, 1]
        np.testing.assert_allclose(index[:2], 0, atol=0.01)
        z = round(index[2])
        assert abs(index[2] - z) < 0.11
        found[group.SegmentIdentificationSequence[0].ReferencedSegmentNumber][z] |= frame.astype(bool)
    return found


def assert_same(path, volume, labels):
    for number, label in enumerate(LABELS, 1):
        np.testing.assert_array_equal(read_back(path, volume.geometry)[number], labels == label.value)


@pytest.fixture(scope="module")
def mr(data):
    return read_volume(data / "volumes" / "sarcoma_ct_dicom" / "MR_T1" / "image")


@pytest.fixture(scope="module")
def small(mr, tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    write_series(folder, mr.array[:5, 40:60, 40:60], **SERIES)
    return read_volume(folder)


@pytest.fixture(scope="module")
def written(mr, tmp_path_factory):
    labels = some_labels(mr.geometry.shape)
    path = tmp_path_factory.mktemp("written") / "result.dcm"
    write_dicom_segmentation(path, labels, mr.stack, LABELS, PROVENANCE)
    return path, labels


def test_a_segmentation_of_a_real_series_comes_back_voxel_by_voxel(written, mr):
    path, labels = written
    assert_same(path, mr, labels)
    assert [one.name for one in path.parent.iterdir()] == ["result.dcm"]
    volume = highdicom.seg.segread(path).get_volume(combine_segments=True)
    inside = np.linalg.inv(mr.geometry.affine) @ [*volume.position, 1]
    z = round(inside[2])
    assert abs(inside[2] - z) < 0.01
    numbers = np.array([0, 2, 0, 1, 0, 0, 0, 3])[labels]
    np.testing.assert_array_equal(volume.array, numbers if z == 0 else numbers[::-1])
    assert z in (0, len(labels) - 1)  # highdicom looks from the other side


def test_a_segmentation_tells_names_codes_colours_and_its_maker(written):
    dataset = dcmread(written[0])
    first, second, third = dataset.SegmentSequence
    assert (first.SegmentNumber, first.SegmentLabel, first.SegmentAlgorithmType) == (1, "Left kidney", "AUTOMATIC")
    kind = first.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeValue, kind.CodingSchemeDesignator, kind.CodeMeaning) == ("64033007", "SCT", "Kidney")
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue == "7771000"
    assert first.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning == "Anatomical Structure"
    assert first.AnatomicRegionSequence[0].CodeValue == "113345001"
    back = highdicom.color.CIELabColor.from_dicom_value(first.RecommendedDisplayCIELabValue).to_rgb()
    np.testing.assert_allclose(back, (185, 102, 83), atol=2)
    algorithm = first.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("kidneys", "1.2.0")
    assert "weightsSha256: abab" in algorithm.AlgorithmParameters
    assert second.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Tissue"
    assert len(third.SegmentLabel) == 64
    assert third.SegmentLabel.startswith("K\u00f6rper K\u00f6rper")


def test_each_frame_refers_to_the_slice_it_was_made_of(written, mr):
    dataset = dcmread(written[0])
    source = dcmread(mr.stack.slices[0].file, stop_before_pixels=True)
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert dataset[keyword].value == source[keyword].value
    assert dataset.SeriesInstanceUID != source.SeriesInstanceUID
    assert dataset.ReferencedSeriesSequence[0].SeriesInstanceUID == source.SeriesInstanceUID
    places = {dcmread(one.file).SOPInstanceUID: one.position for one in mr.stack.slices}
    for group in dataset.PerFrameFunctionalGroupsSequence:
        referred = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        np.testing.assert_allclose(places[referred], group.PlanePositionSequence[0].ImagePositionPatient, atol=1e-3)


def oblique(folder, voxels, **fields):
    """Slices of an oblique series whose file names run against their positions."""
    folder.mkdir()
    rows, columns = np.array([0.8, 0.6, 0.0]), np.array([-0.48, 0.64, 0.6])
    step = np.cross(rows, columns) * 2
    orientation = [f"{one:g}" for one in (*rows, *columns)]
    for z, pixels in enumerate(voxels):
        write_slice(
            folder / f"IM{len(voxels) - z:03d}.dcm",
            pixels,
            [5, 6, 7] + z * step,
            ImageOrientationPatient=orientation,
            **fields,
        )


def tilted(folder, voxels, **fields):
    write_series(folder, voxels, step=(0.0, 0.5, 2.0), **fields)


def with_a_gap(folder, voxels, **fields):
    write_series(folder, voxels, **fields)[4].unlink()


def frames(folder, voxels, **fields):
    """One file; its frames are not in order, and one is there twice."""
    folder.mkdir()
    order = [*range(len(voxels))[::-1], 3]
    write_frames(folder / "all.dcm", voxels[order], [7 + 2 * z for z in order], **fields)


SOURCES = [oblique, tilted, with_a_gap, frames]


@pytest.mark.parametrize("source", SOURCES, ids=lambda one: one.__name__)
def test_series_of_every_kind_come_back_voxel_by_voxel(source, tmp_path, mr):
    source(tmp_path / "series", mr.array[:10, 40:72, 40:64], **SERIES)
    volume = read_volume(tmp_path / "series", interpolate_slices=True)
    labels = some_labels(volume.geometry.shape)
    check_dicom_result(tmp_path / "r.dcm", volume.stack, tmp_path)
    write_dicom_segmentation(tmp_path / "r.dcm", labels, volume.stack, LABELS, PROVENANCE)
    assert_same(tmp_path / "r.dcm", volume, labels)
    write_rtstruct(tmp_path / "r.rtstruct.dcm", labels, volume.stack, LABELS, PROVENANCE)
    for number, label in enumerate(LABELS, 1):
        found = filled(tmp_path / "r.rtstruct.dcm", number, volume.geometry)
        np.testing.assert_array_equal(found, labels == label.value)
    for name in ("r.dcm", "r.rtstruct.dcm"):
        assert dcmread(tmp_path / name).PatientName == "M\u00fcller"
    if source is frames:
        group = dcmread(tmp_path / "r.dcm").PerFrameFunctionalGroupsSequence[0]
        z = round((group.PlanePositionSequence[0].ImagePositionPatient[2] - 7) / 2)
        referred = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        assert volume.stack.slices[z].frame + 1 == referred


def test_a_phase_of_a_multi_frame_file_refers_to_its_own_frames_alone(tmp_path, mr):
    places = [item(PlanePositionSequence=[item(ImagePositionPatient=[5, 6, 7 + 2 * (i % 5)])]) for i in range(10)]
    for i, place in enumerate(places):
        place.FrameContentSequence = [item(TemporalPositionIndex=1 + i // 5)]
    voxels = mr.array[:10, 40:72, 40:64]
    write_frames(tmp_path / "all.dcm", voxels, range(10), PerFrameFunctionalGroupsSequence=places, **SERIES)
    for phase in (0, 1):
        volume = read_frame(tmp_path / "all.dcm", phase, 2)
        labels = np.full(volume.geometry.shape, 3, np.uint8)
        write_dicom_segmentation(tmp_path / f"r{phase}.dcm", labels, volume.stack, LABELS, PROVENANCE)
        groups = dcmread(tmp_path / f"r{phase}.dcm").PerFrameFunctionalGroupsSequence
        sources = [group.DerivationImageSequence[0].SourceImageSequence for group in groups]
        assert sorted(one.ReferencedFrameNumber for images in sources for one in images) == [
            5 * phase + z for z in range(1, 6)
        ]


def test_a_result_without_anything_is_written_too(small, tmp_path):
    nothing = np.zeros(small.geometry.shape, np.uint8)
    write_dicom_segmentation(tmp_path / "r.dcm", nothing, small.stack, LABELS, PROVENANCE)
    assert_same(tmp_path / "r.dcm", small, nothing)
    write_rtstruct(tmp_path / "r.rtstruct.dcm", nothing, small.stack, LABELS, PROVENANCE)
    assert len(dcmread(tmp_path / "r.rtstruct.dcm").StructureSetROISequence) == 3


def filled(path, number: int, geometry) -> np.ndarray:
    """The voxels whose centres lie inside an odd number of contours of their slice."""
    (roi,) = (one for one in dcmread(path).ROIContourSequence if one.ReferencedROINumber == number)
    found = np.zeros(geometry.shape, bool)
    y, x = np.mgrid[: geometry.shape[1], : geometry.shape[2]]
    centres = np.column_stack([x.ravel(), y.ravel()])
    for contour in roi.get("ContourSequence", ()):
        points = np.array(contour.ContourData, float).reshape(-1, 3)
        assert len(points) == contour.NumberOfContourPoints
        indices = (points - geometry.origin) @ np.linalg.inv(geometry.affine[:3, :3]).T
        z = round(indices[0, 2])
        np.testing.assert_allclose(indices[:, 2], z, atol=1e-3)
        found[z] ^= odd(indices[:, :2], centres).reshape(found[z].shape)
    return found


def odd(polygon: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """By crossings of a ray, nudged off the voxels' own rows."""
    inside = np.zeros(len(centres), bool)
    cy = centres[:, 1] + 1e-3
    for (ax, ay), (bx, by) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        crossed = (ay > cy) != (by > cy)
        if crossed.any():
            inside ^= crossed & (centres[:, 0] < (bx - ax) * (cy - ay) / ((by - ay) or 1) + ax)
    return inside


def test_a_structure_set_of_a_real_series_refers_to_its_slices(mr, tmp_path):
    labels = some_labels(mr.geometry.shape)
    path = tmp_path / "r.rtstruct.dcm"
    write_rtstruct(path, labels, mr.stack, LABELS, PROVENANCE)
    dataset = dcmread(path)
    source = dcmread(mr.stack.slices[0].file, stop_before_pixels=True)
    assert (dataset.Modality, dataset.PatientID, dataset.StudyInstanceUID) == (
        "RTSTRUCT",
        source.PatientID,
        source.StudyInstanceUID,
    )
    (reference,) = dataset.ReferencedFrameOfReferenceSequence
    assert reference.FrameOfReferenceUID == source.FrameOfReferenceUID
    series = reference.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == source.SeriesInstanceUID
    assert len(series.ContourImageSequence) == len(mr.stack.slices)
    assert [roi.ROIName for roi in dataset.StructureSetROISequence][:2] == ["Left kidney", "Nothing of it"]
    assert list(dataset.ROIContourSequence[0].ROIDisplayColor) == [185, 102, 83]
    heights = {dcmread(one.file).SOPInstanceUID: float(one.position[2]) for one in mr.stack.slices}
    for contour in dataset.ROIContourSequence[0].ContourSequence:
        assert contour.ContourGeometricType == "CLOSED_PLANAR"
        height = heights[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
        np.testing.assert_allclose(np.array(contour.ContourData, float)[2::3], height, atol=1e-3)


def test_what_could_not_be_written_is_refused_before_the_run(tmp_path, mr, monkeypatch):
    with pytest.raises(InputError, match=r"r\.dcm is DICOM, and brain\.nii is not.*Give the folder of a DICOM series"):
        check_dicom_result(tmp_path / "r.dcm", None, "brain.nii")
    write_series(tmp_path / "series", mr.array[:4, :20, :20])
    stack = read_volume(tmp_path / "series").stack
    with pytest.raises(InputError, match=r"IM0000\.dcm has no FrameOfReferenceUID"):
        check_dicom_result(tmp_path / "r.dcm", stack, tmp_path)
    with pytest.raises(OutputError, match="would replace its input"):
        check_dicom_result(tmp_path / "series" / "IM0002.dcm", stack, tmp_path)
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(MissingDependencyError, match=r"need the package highdicom.*pip install 'usema\[dicom\]'"):
        check_dicom_result(tmp_path / "r.dcm", mr.stack, tmp_path)


def test_an_existing_result_stays_unless_it_may_be_replaced(small, tmp_path):
    labels = some_labels(small.geometry.shape)
    for name, write in (("r.dcm", write_dicom_segmentation), ("r.rtstruct.dcm", write_rtstruct)):
        (tmp_path / name).write_text("mine")
        with pytest.raises(OutputError, match="exists already"):
            write(tmp_path / name, labels, small.stack, LABELS, PROVENANCE)
        assert (tmp_path / name).read_text() == "mine"
        write(tmp_path / name, labels, small.stack, LABELS, PROVENANCE, overwrite=True)
        assert dcmread(tmp_path / name).PatientID == dcmread(small.stack.slices[0].file).PatientID
