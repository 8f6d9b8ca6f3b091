"""What a dataset.json says: labels in whatever order, regions, what is ignored; and whether all cases are there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from usema.errors import InputError
from usema.training.raw_dataset import cases_of, labels_of, read_json, visible_files


def labels(given, order=None):
    return labels_of({"labels": given, **({"regions_class_order": order} if order else {})}, Path("dataset.json"))


def test_labels_are_taken_by_their_values_in_whatever_order_they_are_listed():
    found = labels({"Posterior": 2, "background": 0, "Body": 3, "Anterior": 1})
    assert found.names == ("Anterior", "Posterior", "Body")
    assert (found.region_order, found.ignored) == ((), None)
    assert found.keys == {1: "1", 2: "2", 3: "3"}


def test_what_is_ignored_is_no_label():
    found = labels({"background": 0, "ignore": 3, "Anterior": 1, "Posterior": 2})
    assert (found.names, found.ignored) == (("Anterior", "Posterior"), 3)


def test_a_region_writes_its_value_and_is_called_without_what_is_written_over_it():
    """BraTS: the whole tumour, in it the core, in it what enhances."""
    given = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": [3]}
    found = labels(given, [1, 2, 3])
    assert found.names == ("whole without core and enhancing", "core without enhancing", "enhancing")
    assert found.region_order == (1, 2, 3)
    assert found.keys == {1: "(1, 2, 3)", 2: "(2, 3)", 3: "(3,)"}
    # KiTS writes its second region last.
    kits = labels({"background": 0, "kidney": [1, 2, 3], "tumour": 2, "ignore": 4, "mass": [2, 3]}, [1, 3, 2])
    assert kits.region_order == (1, 3, 2)
    assert kits.names == ("kidney without tumour and mass", "mass", "tumour without mass")
    assert kits.keys[3] == "2"
    assert kits.ignored == 4


@pytest.mark.parametrize(
    ("given", "order", "message"),
    [
        ({"background": 0, "a": 1, "b": 3}, None, r"the labels have the values .*'b': 3"),
        ({"background": 0, "a": 1, "b": 1}, None, "two labels have one value"),
        ({"background": 0, "a": 1, "ignore": 3}, None, "the labels have the values .*'ignore': 3"),
        ({"background": 0, "a": 1, "ignore": 1}, None, "the labels have the values .*'ignore': 1"),
        ({"background": 1, "a": 0}, None, "no label 'background' has the value 0"),
        ({"a": 1}, None, "no label 'background'"),
        ({"background": 0}, None, "the labels have the values"),
        ({"0": "background", "1": "a"}, None, "the labels are .*'background'"),  # nnU-Net 1
        ({"background": 0, "a": 1.5}, None, "the labels are .*1.5"),
        ({"background": 0, "a": []}, None, "the labels are"),
        (["background", "a"], None, "the labels are"),
        (None, None, "the labels are None"),
        ({"background": 0, "a": [1, 2], "b": [2]}, None, "regions_class_order is None"),
        ({"background": 0, "a": [1, 2], "b": [2]}, [1], r"regions_class_order is \[1\]"),
        ({"background": 0, "a": [1, 2], "b": [2]}, [1, 3], r"regions_class_order is \[1, 3\]"),
        ({"background": 0, "a": [1, 2], "b": [2]}, [1, 1], r"regions_class_order is \[1, 1\]"),
    ],
)
def test_labels_that_nobody_can_learn_are_named(given, order, message):
    with pytest.raises(InputError, match=message):
        labels(given, order)


@pytest.mark.parametrize(
    ("text", "message"), [("[1, 2]", "holds list"), ("{", "not valid JSON"), ('"a"', "holds str"), ("[" * 9999, "JSON")]
)
def test_a_file_that_is_no_object_of_json_is_named(tmp_path, text, message):
    (tmp_path / "card.json").write_text(text)
    with pytest.raises(InputError, match=rf"card.json .*{message}"):
        read_json(tmp_path / "card.json")


@pytest.fixture
def dataset(tmp_path) -> Path:
    """Two cases with two channels; what the files hold does not matter here."""
    folder = tmp_path / "Dataset001_Two"
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for case in "ab":
        (folder / "labelsTr" / f"{case}.nii.gz").write_bytes(b"12")
        for channel in range(2):
            (folder / "imagesTr" / f"{case}_000{channel}.nii.gz").write_bytes(b"123" * (1 + channel))
    describe(folder)
    return folder


def describe(folder: Path, **changes) -> None:
    description = {"channel_names": {"0": "T1", "1": "T2"}, "file_ending": ".nii.gz", "numTraining": 2}
    description |= {"labels": {"background": 0, "a": 1}, **changes}
    kept = {key: value for key, value in description.items() if value is not None}
    (folder / "dataset.json").write_text(json.dumps(kept))


def test_the_cases_are_those_with_labels_and_all_their_channels(dataset):
    for part in ("imagesTr", "labelsTr"):
        for name in (".DS_Store", "._a.nii.gz", "Thumbs.db"):
            (dataset / part / name).write_bytes(b"x")
    assert cases_of(dataset) == {"a": [2, 3, 6], "b": [2, 3, 6]}
    assert [path.name for path in visible_files(dataset / "labelsTr", ".nii.gz")] == ["a.nii.gz", "b.nii.gz"]


def test_what_is_not_whole_is_named(dataset):
    for spoil, message in (
        (lambda: describe(dataset, numTraining=3), "says that there are 3 training cases, and there are 2"),
        (lambda: describe(dataset, channel_names=None), "has no 'channel_names'"),
        (lambda: describe(dataset, labels={"background": 0, "a": 2}), "the labels have the values"),
        (lambda: (describe(dataset), (dataset / "labelsTr/c.nii.gz").touch()), "has no c_0000.nii.gz"),
        (lambda: (dataset / "labelsTr/b.nii.gz").unlink(), "has no labels of b"),
        (lambda: (dataset / "labelsTr/c.nii.gz").rename(dataset / "labelsTr/b.nii.gz"), None),
        (
            lambda: [path.unlink() for path in (dataset / "imagesTr").glob("a_*")],
            "has no a_0000.nii.gz, and labelsTr has a",
        ),
        (lambda: (dataset / "dataset.json").unlink(), "has no dataset.json"),
    ):
        spoil()
        if message is None:
            cases_of(dataset)
            continue
        with pytest.raises(InputError, match=message):
            cases_of(dataset)
