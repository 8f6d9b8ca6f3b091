"""Results come back as they were written, on the input's grid, and a failed write leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
from usema.errors import OutputError
from usema.volumes.geometry import Geometry
from usema.volumes.label_pictures import write_objects
from usema.volumes.volume import load_volume, read_volume
from usema.volumes.writing import (
    check_writable,
    complete_file,
    write_label_map,
    write_probabilities,
    write_segmentation,
)

IMAGES = (".nii.gz", ".nrrd", ".mha")
PROVENANCE = {"model": "hippocampus 1.2", "time": "2026-01-02T03:04:05+00:00", "device": "cpu|one"}


def code(value: str, meaning: str) -> dict[str, str]:
    return {"scheme": "SCT", "value": value, "meaning": meaning}


STRUCTURE = code("123037004", "Anatomical Structure")
LABELS = [
    SimpleNamespace(
        value=1,
        name="Left kidney",
        color=(185, 102, 83),
        terminology={
            "category": STRUCTURE,
            "type": code("64033007", "Kidney"),
            "type_modifier": code("7771000", "Left"),
        },
    ),
    SimpleNamespace(
        value=2,
        name="Spleen",
        color=(157, 108, 162),
        terminology={
            "category": STRUCTURE,
            "type": code("78961009", "Spleen"),
            "type_modifier": None,
            "region": code("113345001", "Abdomen"),
            "region_modifier": code("7771000", "Left"),
        },
    ),
    SimpleNamespace(value=5, name="Knöchel", color=(0, 255, 1), terminology=None),
]


def oblique_left_handed(size: tuple[int, int, int]) -> Geometry:
    q, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    return Geometry(size, (0.7, 0.9, 2.5), (11.25, -22.1, 333.3), tuple((q * -np.sign(np.linalg.det(q))).flat))


@pytest.fixture(params=["body_ct/example_ct_sm.nii.gz", "spine_mr/t2.nii.gz", "sarcoma_ct_dicom/CT/image", "oblique"])
def geometry(request, data) -> Geometry:
    if request.param == "oblique":
        return oblique_left_handed((40, 30, 20))
    return read_volume(data / "volumes" / request.param).geometry


@pytest.fixture
def small() -> Geometry:
    return oblique_left_handed((14, 12, 10))


def some_labels(geometry: Geometry, values=(0, 1, 5)) -> np.ndarray:
    """Two boxes in a background, and a voxel in the last corner."""
    labels = np.full(geometry.shape, values[0], np.int64)
    labels[2:6, 3:9, 1:12] = values[1]
    labels[6:9, 2:5, 4:10] = values[2]
    labels[-1, -1, -1] = values[2]
    return labels


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_any(path: Path, geometry: Geometry, overwrite: bool = False) -> None:
    if path.name.endswith(".seg.nrrd"):
        write_segmentation(path, some_labels(geometry), geometry, LABELS, PROVENANCE, overwrite)
    else:
        write_label_map(path, some_labels(geometry), geometry, overwrite)


# Label maps


@pytest.mark.parametrize("suffix", IMAGES)
def test_a_label_map_lies_exactly_on_the_grid_of_the_input(geometry, tmp_path, suffix):
    labels = some_labels(geometry)
    write_label_map(tmp_path / f"labels{suffix}", labels, geometry)
    image = sitk.ReadImage(str(tmp_path / f"labels{suffix}"))
    written = Geometry.of_image(image)
    assert entries(tmp_path) == [f"labels{suffix}"]
    assert image.GetPixelID() == sitk.sitkUInt8
    assert np.array_equal(sitk.GetArrayFromImage(image), labels)
    assert written.size == geometry.size
    if suffix == ".nii.gz":  # keeps the matrix in float32
        scale = np.abs(geometry.corners).max()
        assert np.allclose(written.corners, geometry.corners, rtol=0, atol=1e-5 * scale)
        assert written.spacing == pytest.approx(geometry.spacing, rel=1e-5)
    else:
        assert np.allclose(written.affine, geometry.affine, rtol=1e-12, atol=1e-12)


def test_labels_above_255_take_two_bytes(small, tmp_path):
    for suffix in IMAGES:
        path = tmp_path / f"labels{suffix}"
        write_label_map(path, some_labels(small, (0, 255, 256)), small)
        assert sitk.ReadImage(str(path)).GetPixelID() == sitk.sitkUInt16
        assert np.unique(load_volume(path).array).tolist() == [0, 255, 256]


def test_labels_that_are_none_and_arrays_off_the_grid_are_refused(small, tmp_path):
    for labels in (some_labels(small) - 1, some_labels(small) + 65535, some_labels(small).astype(float)):
        with pytest.raises(ValueError, match="integers from 0 to 65535"):
            write_label_map(tmp_path / "labels.nrrd", labels, small)
    for labels in (some_labels(small)[1:], some_labels(small)[None, 1:]):
        with pytest.raises(ValueError, match="not on a grid"):
            write_label_map(tmp_path / "labels.nrrd", labels, small)
    with pytest.raises(ValueError, match="not on a grid"):
        write_probabilities(tmp_path / "p.nrrd", np.zeros(small.shape, np.float16), small)
    assert entries(tmp_path) == []


def test_paths_may_have_spaces_and_any_letters(small, tmp_path):
    folder = tmp_path / "Größe 3D, Ωμ 患者"
    folder.mkdir()
    for suffix in (*IMAGES, ".seg.nrrd", ".NII.GZ"):
        write_any(folder / f"köpf chen{suffix}", small)
        assert np.array_equal(load_volume(folder / f"köpf chen{suffix}").array, some_labels(small))


# Segmentations


def test_a_folder_whose_name_is_no_text_gets_results_too(small, tmp_path):
    """ITK would end the process."""
    folder = tmp_path / os.fsdecode(b"bad\xff")
    folder.mkdir()
    for name in ("labels.nii.gz", "labels.nrrd", "labels.mha", "labels.tif"):
        write_objects(folder / name, some_labels(small).astype(np.uint8), small, overwrite=False)
    assert np.array_equal(load_volume(folder / "labels.nrrd").array, some_labels(small))
    assert len(list(folder.iterdir())) == 4


def test_slicerio_reads_names_colours_codes_and_provenance(geometry, tmp_path):
    slicerio = pytest.importorskip("slicerio")
    labels = some_labels(geometry)
    path = tmp_path / "organs.seg.nrrd"
    write_segmentation(path, labels, geometry, LABELS, PROVENANCE)
    assert entries(tmp_path) == ["organs.seg.nrrd"]
    read = slicerio.read_segmentation(str(path))
    assert np.array_equal(read["voxels"].T, labels)
    assert np.allclose(read["ijkToLPS"], geometry.affine, rtol=1e-12, atol=1e-12)
    kidney, spleen, ankle = read["segments"]
    assert [segment["labelValue"] for segment in read["segments"]] == [1, 2, 5]
    assert (kidney["name"], spleen["name"]) == ("Left kidney", "Spleen")
    assert np.allclose(kidney["color"], np.array([185, 102, 83]) / 255, atol=1e-6)
    assert kidney["terminology"]["type"] == ["SCT", "64033007", "Kidney"]
    assert kidney["terminology"]["typeModifier"] == ["SCT", "7771000", "Left"]
    assert spleen["terminology"]["category"] == ["SCT", "123037004", "Anatomical Structure"]
    assert "typeModifier" not in spleen["terminology"]
    assert spleen["terminology"]["anatomicRegion"] == ["SCT", "113345001", "Abdomen"]
    assert spleen["terminology"]["anatomicRegionModifier"] == ["SCT", "7771000", "Left"]
    assert "anatomicRegion" not in kidney["terminology"]
    assert "terminology" not in ankle
    for segment in read["segments"]:
        assert segment["tags"]["USEMA.model"] == "hippocampus 1.2"
        assert segment["tags"]["USEMA.time"] == PROVENANCE["time"]
        assert segment["tags"]["USEMA.device"] == "cpu/one"


def test_signs_that_separate_codes_are_replaced_so_that_slicer_still_reads_them(small, tmp_path):
    slicer = pytest.importorskip("slicer")
    vtk = pytest.importorskip("vtk")
    code = {"scheme": "99X", "value": "1~2", "meaning": "Left ~ right ^ both | all"}
    label = SimpleNamespace(value=1, name="A", color=(1, 2, 3), terminology={"category": code, "type": code})
    path = tmp_path / "a.seg.nrrd"
    write_segmentation(path, (some_labels(small) > 0).astype(np.uint8), small, [label], PROVENANCE)
    scene = slicer.vtkMRMLScene()
    storage, node = (scene.AddNewNodeByClass(f"vtkMRMLSegmentation{kind}") for kind in ("StorageNode", "Node"))
    storage.SetFileName(str(path))
    assert storage.ReadData(node) == 1
    tag, entry = vtk.reference(""), slicer.vtkSlicerTerminologyEntry()
    assert node.GetSegmentation().GetNthSegment(0).GetTag("TerminologyEntry", tag)
    assert slicer.vtkSlicerTerminologiesModuleLogic.DeserializeTerminologyEntry(str(tag), entry)
    assert entry.GetTypeObject().GetCodeMeaning() == "Left - right both / all"
    assert entry.GetTypeObject().GetCodeValue() == "1-2"


def test_letters_beyond_ascii_are_in_the_file_as_utf8(small, tmp_path):
    write_segmentation(tmp_path / "a.seg.nrrd", some_labels(small), small, LABELS, PROVENANCE)
    assert "Segment2_Name:=Knöchel\n".encode() in (tmp_path / "a.seg.nrrd").read_bytes()


@pytest.mark.parametrize("found", [True, False])
def test_slicer_reads_the_segmentation_and_saves_it_on_the_same_grid(geometry, tmp_path, found):
    """3D Slicer's own reader, from the slicer-core wheel: the segments, also the empty ones, and the whole grid."""
    slicer = pytest.importorskip("slicer")
    vtk = pytest.importorskip("vtk")
    labels = some_labels(geometry) * found
    write_segmentation(tmp_path / "organs.seg.nrrd", labels, geometry, LABELS, PROVENANCE)
    scene = slicer.vtkMRMLScene()
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    storage = scene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetFileName(str(tmp_path / "organs.seg.nrrd"))
    assert storage.ReadData(node) == 1

    segmentation = node.GetSegmentation()
    assert segmentation.GetNumberOfSegments() == len(LABELS)
    for index, label in enumerate(LABELS):
        segment = segmentation.GetNthSegment(index)
        assert segment.GetName() == label.name
        assert segment.GetLabelValue() == label.value
        assert np.allclose(np.array(segment.GetColor()) * 255, label.color, atol=1e-3)
        tag = vtk.reference("")
        assert segment.GetTag("USEMA.time", tag)
        assert str(tag) == PROVENANCE["time"]
        if label.terminology:
            assert segment.GetTag("TerminologyEntry", tag)
            entry = slicer.vtkSlicerTerminologyEntry()
            assert slicer.vtkSlicerTerminologiesModuleLogic.DeserializeTerminologyEntry(str(tag), entry)
            assert entry.GetTypeObject().GetCodeMeaning() == label.terminology["type"]["meaning"]

    # Saved again by Slicer, the file still has every voxel at its place.
    storage.SetFileName(str(tmp_path / "again.seg.nrrd"))
    assert storage.WriteData(node) == 1
    again = load_volume(tmp_path / "again.seg.nrrd")
    assert again.geometry.same_grid(geometry)
    assert np.array_equal(again.array, labels)


# Probabilities


@pytest.mark.parametrize("suffix", IMAGES)
def test_probabilities_come_back_as_one_component_per_class(geometry, tmp_path, suffix):
    probabilities = np.random.default_rng(0).dirichlet([1, 1, 1], geometry.shape).astype(np.float16)
    probabilities = np.ascontiguousarray(np.moveaxis(probabilities, -1, 0))
    write_probabilities(tmp_path / f"p{suffix}", probabilities, geometry)
    image = sitk.ReadImage(str(tmp_path / f"p{suffix}"))
    assert entries(tmp_path) == [f"p{suffix}"]
    assert image.GetNumberOfComponentsPerPixel() == 3
    assert Geometry.of_image(image).same_grid(geometry)
    for k in range(3):
        component = sitk.GetArrayFromImage(sitk.VectorIndexSelectionCast(image, k))
        assert np.array_equal(component, probabilities[k].astype(np.float32))


# What can go wrong


@pytest.mark.parametrize("suffix", [*IMAGES, ".seg.nrrd"])
def test_an_existing_file_is_replaced_only_when_asked(small, tmp_path, suffix):
    path = tmp_path / f"labels{suffix}"
    path.write_text("precious")
    for attempt in (lambda: check_writable(path), lambda: write_any(path, small)):
        with pytest.raises(OutputError, match="exists already"):
            attempt()
        assert path.read_text() == "precious"
    check_writable(path, overwrite=True)
    assert path.read_text() == "precious"
    write_any(path, small, overwrite=True)
    assert np.array_equal(load_volume(path).array, some_labels(small))
    assert entries(tmp_path) == [path.name]


def test_a_file_that_appears_while_writing_is_not_overwritten(tmp_path):
    path = tmp_path / "labels.nrrd"

    def write() -> None:
        with complete_file(path, IMAGES, overwrite=False) as temporary:
            temporary.write_text("mine")
            path.write_text("theirs")

    with pytest.raises(OutputError, match="exists already"):
        write()
    assert path.read_text() == "theirs"
    assert entries(tmp_path) == ["labels.nrrd"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, MemoryError, RuntimeError])
def test_an_interrupted_write_leaves_nothing(tmp_path, failure):
    def write() -> None:
        with complete_file(tmp_path / "labels.nii.gz", IMAGES, overwrite=False) as temporary:
            temporary.write_bytes(b"half a")
            assert [name[-7:] for name in entries(tmp_path)] == [".nii.gz"]
            raise failure

    with pytest.raises(failure):
        write()
    assert entries(tmp_path) == []


def test_paths_that_cannot_be_written_are_refused_before_the_work(small, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder.nrrd").mkdir()
    for name, words in (
        ("labels.png", ["labels.png", ".nii.gz, .nii, .nrrd, .mha"]),
        ("labels", ['"labels"', ".nii.gz"]),
        ("labels.nii.zip", ["labels.nii.zip"]),
        ("missing/labels.nrrd", ["missing", "does not exist"]),
        ("file/labels.nrrd", ["file", "does not exist"]),
        ("folder.nrrd", ["folder.nrrd is a folder"]),
    ):
        for attempt in (check_writable, lambda path: write_any(path, small)):
            with pytest.raises(OutputError) as caught:
                attempt(tmp_path / name)
            for word in words:
                assert word in str(caught.value)
    for name in ("labels.nrrd", "labels.seg.nrrd"):
        check_writable(tmp_path / name)
    assert entries(tmp_path) == ["file", "folder.nrrd"]


def test_each_kind_of_result_has_its_own_suffixes(small, tmp_path):
    with pytest.raises(OutputError, match=r"Use \.nii\.gz, \.nii, \.nrrd, \.mha"):
        write_label_map(tmp_path / "labels.seg.nrrd", some_labels(small), small)
    with pytest.raises(OutputError, match=r"Use \.seg\.nrrd"):
        write_segmentation(tmp_path / "labels.nrrd", some_labels(small), small, LABELS, {})
    with pytest.raises(OutputError, match=r"Use \.nii\.gz, \.nii, \.nrrd, \.mha"):
        write_probabilities(tmp_path / "p.seg.nrrd", np.zeros((2, *small.shape), np.float16), small)


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs POSIX users")
def test_a_folder_without_write_permission_is_refused(small):
    with tempfile.TemporaryDirectory() as folder:  # tmp_path lies in a folder that other users cannot enter
        Path(folder).chmod(0o555)
        root = os.geteuid() == 0
        try:
            if root:  # who may write everywhere
                os.seteuid(65534)
            for attempt in (check_writable, lambda path: write_any(path, small)):
                with pytest.raises(OutputError, match=r"Nothing can be written to .*Permission denied"):
                    attempt(Path(folder, "labels.nrrd"))
        finally:
            if root:
                os.seteuid(0)


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file sizes are POSIX")
def test_when_the_disk_is_full_no_file_remains_and_the_old_one_is_kept(root, tmp_path):
    """A process that may write files of 20 kB, in which each format must fail: ITK reports NIfTI as written."""
    script = f"""
import json, resource, sys
from pathlib import Path
sys.path.insert(0, {str(root / "USEMASegmentation")!r})
sys.path.insert(0, {str(Path(__file__).parent)!r})
import numpy as np
from test_writing import LABELS, oblique_left_handed
from usema.errors import OutputError
from usema.volumes.writing import write_label_map, write_probabilities, write_segmentation
folder = Path({str(tmp_path)!r})
geometry = oblique_left_handed((80, 80, 40))
labels = np.random.default_rng(0).integers(0, 6, geometry.shape)  # hardly compressible
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
for suffix in (".nii.gz", ".nrrd", ".mha", ".seg.nrrd"):
    path = folder / ("labels" + suffix)
    path.write_text("precious")
    try:
        if suffix == ".seg.nrrd":
            write_segmentation(path, labels, geometry, LABELS, {{}}, overwrite=True)
        else:
            write_label_map(path, labels, geometry, overwrite=True)
    except OutputError as error:
        print(json.dumps([path.name, str(error)]))
try:
    write_probabilities(folder / "p.nii.gz", labels[None].astype(np.float16), geometry)
except OutputError as error:
    print(json.dumps(["p.nii.gz", str(error)]))
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, result.stderr
    failures = dict(json.loads(line) for line in result.stdout.splitlines())
    names = ["labels.mha", "labels.nii.gz", "labels.nrrd", "labels.seg.nrrd"]
    assert sorted(failures) == [*names, "p.nii.gz"]
    for name, message in failures.items():
        assert f"{name} cannot be written" in message
        assert "MB free" in message
        assert ".usema-" not in message
    assert entries(tmp_path) == names
    assert all((tmp_path / name).read_text() == "precious" for name in names)
