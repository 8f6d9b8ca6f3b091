"""Files and series of several volumes: found by their headers, and each frame is the very volume that was put in."""

from __future__ import annotations

import gzip

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import item, uid, write_frames, write_slice
from usema.errors import InputError
from usema.resources import sample_volume
from usema.volumes.dicom_phases import phases_of
from usema.volumes.frames import find_frames, read_frame
from usema.volumes.volume import read_volume
from usema.volumes.writing import write_label_frames


@pytest.fixture(scope="module")
def phases() -> np.ndarray:
    """(t, z, y, x): pieces of a real volume, one brighter than the other."""
    piece = read_volume(sample_volume()).array[4:10, 5:25, 5:21].astype(np.int16)
    return np.stack([piece, piece * 2, piece + 100])


def nifti(path, phases, unit="sec", **header):
    turned = np.array([[-0.96, 0, 0.28], [0, 1, 0], [0.28, 0, 0.96]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turned * (0.8, 1.1, 2.0), (3, 4, 5)
    image = nibabel.Nifti1Image(phases.T, affine)
    image.header.set_xyzt_units("mm", unit)
    image.header["pixdim"][4] = 0.04
    nibabel.save(image, path)


def four_dimensions(path, phases):
    image = sitk.GetImageFromArray(phases, isVector=False)
    image.SetSpacing((0.8, 1.1, 2.0, 1.0))
    sitk.WriteImage(image, str(path))


def slicers_sequence(path, phases):
    """As 3D Slicer saves a sequence: the frames are the first axis, and its fields name them."""
    image = sitk.GetImageFromArray(np.moveaxis(phases, 0, -1).copy(), isVector=True)
    image.SetSpacing((0.8, 1.1, 2.0))
    sitk.WriteImage(image, str(path), useCompression=False)
    text = path.read_bytes()
    assert b"kinds: vector domain domain domain" in text
    text = text.replace(b"kinds: vector domain domain domain", b"kinds: list domain domain domain")
    path.write_bytes(text.replace(b"\n\n", b"\naxis 0 index type:=numeric\naxis 0 index values:=0 40 80\n\n", 1))


# Of an image that lies askew: its axes x, y and z, and its first voxel.
DIRECTIONS, ORIGIN = ["(0.768,0,0.224)", "(0,1.1,0)", "(-0.56,0,1.92)"], (3.5, -4, 5)


def nrrd(path, phases, kind, axis, encoding="raw", data=None, ending="\n"):
    """With the frames along any axis; pynrrd writes them last, with a direction of none."""
    array, directions, kinds = np.moveaxis(phases.T, -1, axis), list(DIRECTIONS), ["domain"] * 3
    directions.insert(axis, "none")
    kinds.insert(axis, kind)
    lines = [
        "NRRD0005", "# a comment: of somebody", "type: int16", "dimension: 4", "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, array.shape))}", f"space directions: {' '.join(directions)}",
        f"kinds: {' '.join(kinds)}", "endian: little", f"encoding: {encoding}", f"space origin: {ORIGIN}",
        f"axis {axis} index values:=0 40 80", *([f"data file: {data}"] if data else []), "", "",
    ]  # fmt: skip
    voxels = array.astype("<i2").tobytes(order="F")
    voxels = gzip.compress(voxels) if encoding == "gzip" else voxels
    head = ending.join(lines).encode()
    path.write_bytes(head if data else head + voxels)
    if data:
        path.with_name(data).write_bytes(voxels)


FILES = {
    "a.nii.gz": (nifti, ["0 s", "0.04 s", "0.08 s"]),
    "a.nii": (nifti, ["0 s", "0.04 s", "0.08 s"]),
    "a.nrrd": (four_dimensions, ["1", "2", "3"]),
    "a.mha": (four_dimensions, ["1", "2", "3"]),
    "a.seq.nrrd": (slicers_sequence, ["0", "40", "80"]),
}


@pytest.mark.parametrize("name", FILES)
def test_each_frame_of_a_file_is_a_volume(name, phases, tmp_path):
    write, names = FILES[name]
    path = tmp_path / name
    write(path, phases)
    found = find_frames(path)
    assert list(found.names) == names
    for number in (0, 1, 2, 1, 0, 2):  # in order, and back
        volume = read_frame(path, number, 3)
        np.testing.assert_array_equal(volume.array, phases[number])
        assert volume.geometry.spacing == pytest.approx((0.8, 1.1, 2.0), abs=0.01)
    with pytest.raises(InputError):
        read_volume(path)  # where one volume is needed


@pytest.mark.parametrize("axis", range(4))
@pytest.mark.parametrize("kind", ["list", "time"])
@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_frames_of_nrrd_lie_along_any_axis(encoding, kind, axis, phases, tmp_path):
    nrrd(tmp_path / "a.nrrd", phases, kind, axis, encoding)
    nrrd(tmp_path / "ä.nhdr", phases, kind, axis, encoding, data="voxels of a.raw", ending="\r\n")
    for path in (tmp_path / "a.nrrd", tmp_path / "ä.nhdr"):
        assert find_frames(path).names == ("0", "40", "80")
        for number in (0, 1, 2, 1):
            volume = read_frame(path, number, 3)
            np.testing.assert_array_equal(volume.array, phases[number])
            assert volume.geometry.spacing == pytest.approx((0.8, 1.1, 2.0))
            assert volume.geometry.origin == ORIGIN
            turned = np.array([[0.96, 0, -0.28], [0, 1, 0], [0.28, 0, 0.96]])
            assert volume.geometry.axes == pytest.approx(turned)
        with pytest.raises(InputError):
            read_volume(path)  # where one volume is needed


@pytest.mark.parametrize("axis", [0, 3])
def test_frames_of_nrrd_without_directions_are_not_cut_across_another_axis(axis, phases, tmp_path):
    nrrd(tmp_path / "a.nrrd", phases, "time", axis)
    spacings = ["0.8", "1.1", "2"]
    spacings.insert(axis, "40")
    told, space = tmp_path.joinpath("a.nrrd").read_bytes(), b"space: left-posterior-superior\n"
    start, end = told.index(b"space directions"), told.index(b"kinds")
    told = told[:start] + f"spacings: {' '.join(spacings)}\n".encode() + told[end:]
    told = told.replace(space, b"").replace(f"space origin: {ORIGIN}\n".encode(), b"")
    (tmp_path / "b.nrrd").write_bytes(told)
    assert len(find_frames(tmp_path / "b.nrrd")) == 3
    volume = read_frame(tmp_path / "b.nrrd", 1, 3)
    np.testing.assert_array_equal(volume.array, phases[1])
    assert volume.geometry.spacing == pytest.approx((0.8, 1.1, 2.0))


def test_an_axis_of_which_nrrd_says_too_little_is_named_with_what_to_write(phases, tmp_path):
    path = tmp_path / "a.nrrd"
    nrrd(path, phases, "domain", 3)
    assert find_frames(path) is None
    for kinds in (b"kinds: domain domain domain domain\n", b""):
        path.write_bytes(path.read_bytes().replace(b"kinds: domain domain domain domain\n", kinds))
        with pytest.raises(InputError, match=r"what its axis 4 is.*'kinds: domain domain domain list'"):
            read_volume(path)
    nrrd(path, phases, "time", 0)
    content = path.read_bytes()
    start, end = content.index(b"space directions"), content.index(b"kinds")
    directions = b"space directions: (0,0,0,40) (0.8,0,0,0) (0,1.1,0,0) (0,0,2,0)\n"
    content = (content[:start] + directions + content[end:]).replace(b"-superior", b"-superior-time")
    path.write_bytes(content.replace(f"space origin: {ORIGIN}".encode(), b"space origin: (3,4,5,0)"))
    with pytest.raises(InputError, match=r"time as axis 1 of 4.*axis of time last"):
        read_volume(path)


def test_time_of_nrrd_in_several_files_is_refused_with_what_to_write(phases, tmp_path):
    nrrd(tmp_path / "a.nhdr", phases, "time", 3, data="a.raw")
    content = (tmp_path / "a.nhdr").read_bytes()
    (tmp_path / "b.raw").write_bytes(b"")
    (tmp_path / "a.nhdr").write_bytes(content.replace(b"data file: a.raw\n\n", b"data file: LIST\na.raw\nb.raw\n"))
    with pytest.raises(InputError, match=r"in 2 files.*Write 'list' in place of 'time'"):
        read_volume(tmp_path / "a.nhdr")


def test_the_header_says_the_step_in_its_own_unit(phases, tmp_path):
    nifti(tmp_path / "a.nii", phases, unit="msec")
    assert find_frames(tmp_path / "a.nii").names[1] == "4e-05 s"
    nifti(tmp_path / "b.nii", phases, unit="unknown")
    assert find_frames(tmp_path / "b.nii").names == ("1", "2", "3")


def test_what_is_one_volume_or_none_has_no_frames(tmp_path, phases):
    nibabel.save(nibabel.Nifti1Image(phases[:1].T, np.eye(4)), tmp_path / "one.nii")
    (tmp_path / "broken.nii").write_text("none")
    assert find_frames(sample_volume()) is None
    for name in ("one.nii", "broken.nii", "missing.nii"):
        assert find_frames(tmp_path / name) is None
    colours = sitk.GetImageFromArray(np.moveaxis(phases, 0, -1).copy(), isVector=True)
    sitk.WriteImage(colours, str(tmp_path / "colours.nrrd"))
    assert find_frames(tmp_path / "colours.nrrd") is None


def test_a_damaged_end_is_told_by_the_last_frame(tmp_path):
    phases = np.random.default_rng(0).integers(0, 30000, (3, 64, 90, 90)).astype(np.int16)
    nifti(tmp_path / "a.nii.gz", phases)
    whole = (tmp_path / "a.nii.gz").read_bytes()
    (tmp_path / "a.nii.gz").write_bytes(whole[:-6] + bytes(6))
    np.testing.assert_array_equal(read_frame(tmp_path / "a.nii.gz", 0, 3).array, phases[0])
    with pytest.raises(InputError, match="damaged or incomplete"):
        read_frame(tmp_path / "a.nii.gz", 2, 3)


def series(folder, phases, word="TriggerTime", times=(20, 340, 700), jitter=0.0):
    """One series; files are named against the order of the phases."""
    folder.mkdir()
    for t, voxels in enumerate(phases):
        for z, pixels in enumerate(voxels):
            fields = {word: f"{times[t] + jitter * z:g}", "FrameOfReferenceUID": uid("frame")}
            write_slice(folder / f"{9 - t}-{z:02d}.dcm", pixels, [5, 6, 7 + 2 * z], **fields)


@pytest.mark.parametrize("jitter", [0.0, 1.5])
def test_phases_of_a_dicom_series_are_frames(phases, tmp_path, jitter):
    series(tmp_path / "s", phases, jitter=jitter)
    assert find_frames(tmp_path / "s").names == ("TriggerTime 20", "TriggerTime 340", "TriggerTime 700")
    for number in range(3):
        volume = read_frame(tmp_path / "s", number, 3)
        np.testing.assert_array_equal(volume.array, phases[number])
        assert len(volume.stack.slices) == len(phases[0])
    with pytest.raises(InputError, match=r"several phases.*takes phases one after the other"):
        read_volume(tmp_path / "s")


@pytest.mark.parametrize("slopes", [None, (1, 2, 0.5)])
def test_phases_of_a_multi_frame_file_are_frames(phases, tmp_path, slopes):
    frames = []
    for t in range(3):
        for z in range(len(phases[0])):
            position = [item(ImagePositionPatient=[5, 6, 7 + 2 * z])]
            content = [item(TemporalPositionIndex=t + 1)]
            frames.append(item(PlanePositionSequence=position, FrameContentSequence=content))
            if slopes:
                scale = item(RescaleSlope=slopes[t], RescaleIntercept=-t, RescaleType="US")
                frames[-1].PixelValueTransformationSequence = [scale]
    heights = [7 + 2 * z for z in range(len(phases[0]))] * 3
    write_frames(
        tmp_path / "all.dcm", phases.reshape(-1, *phases.shape[2:]), heights, PerFrameFunctionalGroupsSequence=frames
    )
    assert find_frames(tmp_path).names == tuple(f"TemporalPositionIndex {t}" for t in (1, 2, 3))
    for t in range(3):
        expected = phases[t] * slopes[t] - t if slopes else phases[t]
        np.testing.assert_array_equal(read_frame(tmp_path, t, 3).array, expected)


def test_copies_and_places_that_lack_a_phase_are_no_frames(phases, tmp_path):
    series(tmp_path / "copies", [phases[0], phases[0]], times=(20, 20))
    assert find_frames(tmp_path / "copies") is None
    np.testing.assert_array_equal(read_volume(tmp_path / "copies").array, phases[0])
    series(tmp_path / "lacking", phases)
    (tmp_path / "lacking" / "8-03.dcm").unlink()
    assert find_frames(tmp_path / "lacking") is None
    with pytest.raises(InputError, match="several phases"):
        read_volume(tmp_path / "lacking")
    assert phases_of([]) == {"": []}


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_label_maps_over_time_are_one_file_of_four_dimensions(suffix, tmp_path, phases):
    nifti(tmp_path / "a.nii", phases)
    geometry = read_frame(tmp_path / "a.nii", 0, 3).geometry
    labels = [(phase > np.median(phase)).astype(np.uint8) * (t + 1) for t, phase in enumerate(phases)]
    path = tmp_path / f"labels{suffix}"
    write_label_frames(path, labels, geometry, step=0.04)
    assert len(find_frames(path)) == 3
    for number, one in enumerate(labels):
        volume = read_frame(path, number, 3)
        np.testing.assert_array_equal(volume.array, one)
        assert volume.geometry.same_grid(geometry)
    if suffix == ".nii.gz":
        assert nibabel.load(path).header.get_zooms()[3] == pytest.approx(0.04)
