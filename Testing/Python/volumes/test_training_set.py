"""A training set of one's own: what is added stays as it is, and nnU-Net's layout holds."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace

import numpy as np
import pytest
from usema import volumes as room
from usema.errors import InputError, MissingDependencyError, OutputError
from usema.inference.region import cut
from usema.inference.training_crops import examples, own_labels
from usema.models.bundle import read_bundle
from usema.resources import bundled_models, sample_volume
from usema.training.raw_dataset import cases_of
from usema.volumes.geometry import Geometry
from usema.volumes.training_set import add_case, check_training_set
from usema.volumes.volume import Volume, load_volume, read_volume, reorient

CHANNELS, LABELS = ["MRI"], {1: "Anterior hippocampus", 2: "Posterior hippocampus"}


@pytest.fixture(scope="module")
def case():
    path = sample_volume()
    return [read_volume(path)], load_volume(path.parent / "reference" / path.name).array


def test_cases_are_numbered_and_are_what_was_added(case, tmp_path):
    volumes, drawn = case
    folder = tmp_path / os.fsdecode(b"any\xff") / "Dataset500_Mine"  # no text, at which ITK would end the process
    folder.parent.mkdir()
    another = [replace(volumes[0], array=volumes[0].array[::-1].copy())]
    names = [add_case(folder, each, drawn, CHANNELS, LABELS) for each in (another, volumes)]
    assert names == ["case_001", "case_002"]
    assert list(cases_of(folder)) == names  # what `usema train` asks of a data set
    image = read_volume(folder / "imagesTr" / "case_002_0000.nii.gz")
    np.testing.assert_array_equal(image.array, volumes[0].array)
    assert image.geometry.same_grid(volumes[0].geometry)
    np.testing.assert_array_equal(load_volume(folder / "labelsTr" / "case_002.nii.gz").array, drawn)
    assert json.loads((folder / "dataset.json").read_text())["labels"]["Posterior hippocampus"] == 2


def test_without_nibabel_nothing_is_written_and_it_is_said(case, tmp_path, monkeypatch):
    for name in ("nibabel", "nibabel.analyze"):
        monkeypatch.setitem(sys.modules, name, None)  # as in 3D Slicer's own Python
    for name in ("nifti", "nifti_grid"):
        monkeypatch.delitem(sys.modules, f"usema.volumes.{name}", raising=False)
        monkeypatch.delattr(room, name, raising=False)
    with pytest.raises(MissingDependencyError, match="nibabel, which is not installed"):
        add_case(tmp_path / "Dataset500_Mine", *case, CHANNELS, LABELS)
    assert not (tmp_path / "Dataset500_Mine").exists()


@pytest.mark.parametrize("error", [RuntimeError("a defect"), KeyboardInterrupt()], ids=["defect", "interrupt"])
def test_a_folder_where_adding_failed_takes_the_case_the_next_time(error, case, tmp_path, monkeypatch):
    def fail(*_):
        raise error

    folder = tmp_path / "Dataset500_Mine"
    folder.mkdir()
    with monkeypatch.context() as broken:
        broken.setattr("usema.volumes.writing.write_label_map", fail)
        with pytest.raises(type(error)):
            add_case(folder, *case, CHANNELS, LABELS)
    assert list(folder.iterdir()) == []
    assert add_case(folder, *case, CHANNELS, LABELS) == "case_001"


def test_nothing_that_is_there_is_written_over(case, tmp_path):
    volumes, drawn = case
    folder = tmp_path / "Dataset500_Mine"
    add_case(folder, volumes, drawn, CHANNELS, LABELS)
    document = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**document, "licence": "mine"}))
    (folder / "labelsTr" / "case_001.nii.gz").unlink()  # its image is still there
    before = (folder / "imagesTr" / "case_001_0000.nii.gz").read_bytes()
    another = [replace(volumes[0], array=volumes[0].array[::-1].copy())]
    assert add_case(folder, another, drawn, CHANNELS, LABELS) == "case_002"
    assert (folder / "imagesTr" / "case_001_0000.nii.gz").read_bytes() == before
    assert json.loads((folder / "dataset.json").read_text())["licence"] == "mine"


def test_a_volume_that_is_there_already_is_refused_also_as_a_crop_that_was_cut_otherwise(case, tmp_path):
    (volume,), drawn = case
    folder = tmp_path / "Dataset500_Mine"
    add_case(folder, [volume], drawn, CHANNELS, LABELS)
    box = np.s_[2:-1, 3:, 1:-2]
    for one, labels in (
        (volume, drawn),
        (cut(volume, tuple(slice(*part.indices(n)[:2]) for part, n in zip(box, drawn.shape, strict=True))), drawn[box]),
    ):
        with pytest.raises(InputError, match="is in the training set Dataset500_Mine already, as case_001") as error:
            add_case(folder, [one], labels, CHANNELS, LABELS)
        assert "imagesTr/case_001_*" in error.value.hint
    assert list(cases_of(folder)) == ["case_001"]
    beside = replace(volume, geometry=replace(volume.geometry, origin=(500, 0, 0)))  # of another patient, by chance
    assert add_case(folder, [beside], drawn, CHANNELS, LABELS) == "case_002"


def test_cases_that_are_there_are_read_no_further_than_to_the_first_slice_that_differs(case, tmp_path):
    (volume,), drawn = case
    folder = tmp_path / "Dataset500_Mine"
    add_case(folder, [volume], drawn, CHANNELS, LABELS)
    there = folder / "imagesTr" / "case_001_0000.nii.gz"
    there.write_bytes(there.read_bytes()[: there.stat().st_size // 2])  # who reads on is told that it is damaged
    another = replace(volume, array=volume.array.copy())
    another.array[3, 20, 20] += 1
    assert add_case(folder, [another], drawn, CHANNELS, LABELS) == "case_002"
    with pytest.raises(InputError, match="damaged or incomplete"):
        add_case(folder, [volume], drawn, CHANNELS, LABELS)


@pytest.mark.parametrize("axes", ["LPS", "PIR"])
def test_a_case_is_stored_along_the_axes_that_the_model_was_trained_in(case, axes):
    metadata = read_bundle(bundled_models()["hippocampus-mr"]).metadata
    (volume,), drawn = case
    turned = reorient(volume, axes)
    labels = reorient(Volume(drawn, volume.geometry), axes).array
    ((back,), learned) = examples(metadata, [turned], labels)[0]
    assert back.geometry.orientation == metadata.orientation
    assert back.geometry.same_grid(volume.geometry)
    np.testing.assert_array_equal(back.array, volume.array)
    np.testing.assert_array_equal(learned, drawn)


def test_another_training_set_and_other_folders_are_refused(case, tmp_path):
    volumes, drawn = case
    folder = tmp_path / "Dataset500_Mine"
    add_case(folder, volumes, drawn, CHANNELS, LABELS)
    for channels, labels, words in ((["T1"], LABELS, "channel_names"), (CHANNELS, {1: "Liver"}, "labels")):
        with pytest.raises(InputError, match=f"has {words} "):
            check_training_set(folder, channels, labels)
    with pytest.raises(InputError, match="'Mine' is not the name of a training set"):
        check_training_set(tmp_path / "Mine", CHANNELS, LABELS)
    other = tmp_path / "Dataset501_Photos"
    other.mkdir()
    (other / "photo.png").write_bytes(b"")
    with pytest.raises(InputError, match="no training set, and it is not empty"):
        add_case(other, volumes, drawn, CHANNELS, LABELS)
    assert [path.name for path in other.iterdir()] == ["photo.png"]


def test_labels_that_the_set_does_not_know_and_none_at_all_are_refused(case, tmp_path):
    volumes, drawn = case
    for labels in (drawn * 0, np.where(drawn == 2, 7, drawn)):
        with pytest.raises(InputError, match="the training set knows"):
            add_case(tmp_path / "Dataset500_Mine", volumes, labels, CHANNELS, LABELS)


def test_a_case_that_cannot_be_written_leaves_the_set_as_it_was(case, tmp_path):
    volumes, drawn = case
    folder = tmp_path / "Dataset500_Mine"
    add_case(folder, volumes, drawn, CHANNELS, LABELS)
    (folder / "dataset.json").unlink()
    (folder / "dataset.json").mkdir()  # so that the last step fails
    files = sorted(path for path in folder.rglob("*.nii.gz"))
    with pytest.raises((InputError, OutputError)):
        add_case(folder, volumes, drawn, CHANNELS, LABELS)
    assert sorted(path for path in folder.rglob("*.nii.gz")) == files


def test_of_a_whole_head_each_hippocampus_is_a_crop_with_the_networks_own_labels(case):
    """Two crops in an empty field of view of 160 mm, with labels of both sides."""
    metadata = read_bundle(bundled_models()["hippocampus-mr"]).metadata
    (crop,), drawn = case
    array, labels = np.zeros((100, 120, 160), np.float32), np.zeros((100, 120, 160), np.uint8)
    for x, values in ((100, (0, 3, 4)), (20, (0, 5, 6))):
        place = tuple(slice(s, s + n) for s, n in zip((30, 40, x), drawn.shape, strict=True))
        array[place], labels[place] = crop.array, np.array(values, np.uint8)[drawn]
    head = Volume(array, replace(crop.geometry, size=array.shape[::-1]))
    assert own_labels(metadata) == LABELS
    found = examples(metadata, [head], labels)
    assert len(found) == 2
    for (volume,), learned in found:
        assert set(np.unique(learned)) == {0, 1, 2}
        assert (learned > 0).sum() == (drawn > 0).sum()
        assert max(volume.geometry.size) < 65
    assert isinstance(found[0][0][0].geometry, Geometry)
    assert len(examples(metadata, [crop], drawn)) == 1
