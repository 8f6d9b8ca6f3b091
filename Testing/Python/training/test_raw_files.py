"""What the files of a data set hold is checked before nnU-Net plans: damage, labels, channels."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from trainings import make_dataset
from usema.errors import InputError
from usema.training import run as training
from usema.training.raw_files import check_files
from usema.training.run import train_dataset

CASES = ("003", "004", "007")
IN_2D = {"configuration": "2d", "trainer": "nnUNetTrainerUSEMASmall", "device": "cpu"}


@pytest.fixture
def dataset(data, tmp_path) -> Path:
    return make_dataset(data, tmp_path / "raw", CASES)


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def add_value(path: Path, value: float, kind: int = sitk.sitkFloat32) -> None:
    image = sitk.Cast(sitk.ReadImage(str(path)), kind)
    image[3, 3, 3] = value
    sitk.WriteImage(image, str(path))


def describe(dataset: Path, **changes) -> None:
    path = dataset / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("part", ["imagesTr/hippocampus_004_0000.nii.gz", "labelsTr/hippocampus_007.nii.gz"])
def test_a_training_on_a_file_that_was_cut_off_is_refused_before_anything_is_planned(
    dataset, tmp_path, monkeypatch, part
):
    monkeypatch.setattr(training, "_run", lambda *_: pytest.fail("nnU-Net was started"))
    cut(dataset / part)
    with pytest.raises(InputError, match=rf"{part}.* is (damaged or )?incomplete.*Copy or export it again"):
        train_dataset(dataset, tmp_path / "runs", **IN_2D)
    assert not (tmp_path / "runs").exists()


def test_files_that_were_preprocessed_are_not_read_again(dataset, tmp_path, monkeypatch):
    cut(dataset / "imagesTr/hippocampus_004_0000.nii.gz")
    monkeypatch.setattr(training.Preprocessed, "is_complete", lambda *_: True)
    monkeypatch.setattr(training, "_run", lambda *_: None)
    (tmp_path / "runs/preprocessed" / dataset.name).mkdir(parents=True)
    train_dataset(dataset, tmp_path / "runs", **IN_2D)


@pytest.mark.parametrize(("value", "shown"), [(7, "7"), (-1, "-1"), (1.5, "1.5")])
def test_a_label_that_dataset_json_does_not_name_is_told_with_its_file(dataset, value, shown):
    path = dataset / "labelsTr/hippocampus_004.nii.gz"
    add_value(path, value)
    words = f"{path} has the value {shown}, and {dataset / 'dataset.json'} names the labels 0, 1, 2."
    with pytest.raises(InputError, match=re.escape(words)):
        check_files(dataset)


def test_labels_as_nnunet_takes_them_are_no_fault(dataset):
    """As floating-point numbers, as regions, ignored, or in a few cases only."""
    check_files(dataset)
    add_value(dataset / "labelsTr/hippocampus_003.nii.gz", 2.0)
    add_value(dataset / "labelsTr/hippocampus_004.nii.gz", 3, sitk.sitkUInt8)
    describe(dataset, labels={"background": 0, "a": 1, "b": 2, "ignore": 3})
    check_files(dataset)
    describe(dataset, labels={"background": 0, "whole": [1, 2, 3], "part": [3]}, regions_class_order=[1, 2])
    check_files(dataset)


def test_volumes_of_one_slice_and_such_of_another_format_are_no_fault(dataset):
    for part in ("imagesTr", "labelsTr"):
        for path in (dataset / part).iterdir():
            image = sitk.ReadImage(str(path))
            sitk.WriteImage(image[:, :, 5:6], str(path).replace(".nii.gz", ".nrrd"))
            path.unlink()
    describe(dataset, file_ending=".nrrd")
    check_files(dataset)
    cut(dataset / "labelsTr/hippocampus_003.nrrd")
    with pytest.raises(InputError, match=r"hippocampus_003.nrrd"):
        check_files(dataset)


def test_a_channel_without_a_file_and_a_file_without_a_channel_are_told(dataset):
    describe(dataset, channel_names={"0": "T1", "1": "T2"})
    with pytest.raises(InputError, match=r"holds 1 channel.* names 2\. Add hippocampus_003_0001.nii.gz"):
        check_files(dataset)
    for case in CASES:
        first = dataset / f"imagesTr/hippocampus_{case}_0000.nii.gz"
        first.with_name(first.name.replace("_0000", "_0001")).write_bytes(first.read_bytes())
    check_files(dataset)
    describe(dataset, channel_names={"0": "T1"})
    with pytest.raises(InputError, match=r"has hippocampus_003_0001.nii.gz, and .* names 1 channel"):
        check_files(dataset)
    describe(dataset, channel_names={"0": "T1", "1": "T2", "2": "FLAIR"})
    with pytest.raises(InputError, match=r"has no hippocampus_003_0002.nii.gz, and .* names 3 channel"):
        check_files(dataset)


def test_one_file_with_all_channels_is_no_fault(dataset):
    for path in (dataset / "imagesTr").iterdir():
        image = sitk.ReadImage(str(path))
        sitk.WriteImage(sitk.JoinSeries([image, image]), str(path))
    describe(dataset, channel_names={"0": "T1", "1": "T2"})
    check_files(dataset)


def test_pictures_are_checked_as_nnunet_reads_them(tmp_path):
    dataset = tmp_path / "Dataset018_Pictures"
    for part in ("imagesTr", "labelsTr"):
        (dataset / part).mkdir(parents=True)
    colours = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    image, labels = dataset / "imagesTr/a_0000.png", dataset / "labelsTr/a.png"
    Image.fromarray(colours).save(image)
    Image.fromarray(colours[..., 0] > 128).save(labels)  # of one bit
    channels = {"0": "red", "1": "green", "2": "blue"}
    described = {"channel_names": channels, "labels": {"background": 0, "a": 1}, "file_ending": ".png"}
    (dataset / "dataset.json").write_text(json.dumps(described | {"numTraining": 1}))
    check_files(dataset)
    Image.fromarray(np.where(colours[..., 0] > 128, 255, 0).astype(np.uint8)).save(labels)
    with pytest.raises(InputError, match=r"a.png has the value 255, and .* names the labels 0, 1\."):
        check_files(dataset)
    cut(image)
    with pytest.raises(InputError, match=r"a_0000.png cannot be read by nnU-Net"):
        check_files(dataset)
