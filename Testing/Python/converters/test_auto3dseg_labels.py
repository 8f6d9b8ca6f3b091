"""The labels of an Auto3DSeg model have the names that the shelf has of them, if they are the same labels."""

from __future__ import annotations

import csv

import pytest
from usema.converters.auto3dseg_labels import labels_of
from usema.converters.source import open_source
from usema.store import shelf

PARTS = [
    f"{column}.{part}"
    for column in (
        "SegmentedPropertyCategoryCodeSequence",
        "SegmentedPropertyTypeCodeSequence",
        "SegmentedPropertyTypeModifierCodeSequence",
        "AnatomicRegionSequence",
        "AnatomicRegionModifierSequence",
    )
    for part in ("CodingSchemeDesignator", "CodeValue", "CodeMeaning")
]
EMPTY = ["", "", ""]
STRUCTURE, ALTERED = ["SCT", "123037004", "Anatomical Structure"], ["SCT", "49755003", "Morphologically Altered"]
NECROSIS, EDEMA = ["SCT", "6574001", "Necrosis"], ["SCT", "79654002", "Edema"]
TUMOUR = ["SCT", "86049000", "Neoplasm, Primary"]
KIDNEY, LEFT, CYST = ["SCT", "64033007", "Kidney"], ["SCT", "7771000", "Left"], ["SCT", "367643001", "Cyst"]
BRATS = [
    ("necrotic core", [*ALTERED, *NECROSIS, *EMPTY, *NECROSIS, *EMPTY]),
    ("oedema", [*ALTERED, *EDEMA, *EMPTY, *EDEMA, *EMPTY]),
    ("enhancing", [*ALTERED, *TUMOUR, *EMPTY, *TUMOUR, *EMPTY]),
]


@pytest.fixture
def read(tmp_path):
    """The names and the labels that a table gives, with what is promised."""

    def of(rows, promised=()):
        with (tmp_path / "labels.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["LabelValue", "Name", *PARTS])
            writer.writerows([value, name, *codes] for value, (name, codes) in enumerate(rows, 1))
        labels = labels_of(open_source(tmp_path), "labels.csv", len(rows), promised)
        return [label["name"] for label in labels], labels

    return of


def test_labels_are_called_as_before_the_download_in_the_order_of_the_file(read):
    promised = shelf.find("auto3dseg-brats-gli").model.labels
    names, labels = read(BRATS, promised)
    assert sorted(names) == sorted(promised)
    assert names == ["Necrosis", "Edema", "Neoplasm, primary"]
    assert labels[0]["terminology"]["type"]["value"] == "6574001"
    names, _ = read(BRATS[::-1], promised)
    assert names == ["Neoplasm, primary", "Edema", "Necrosis"]


def test_a_label_without_codes_is_known_by_its_name(read):
    names, labels = read(
        [
            ("left kidney", [*STRUCTURE, *KIDNEY, *LEFT]),
            ("cyst_1", [*ALTERED, *CYST, *EMPTY, *KIDNEY, *LEFT]),
            ("Skull", []),
        ],
        ("Left kidney", "Left cyst in kidney", "Skull"),
    )  # fmt: skip
    assert names == ["Left kidney", "Left cyst in kidney", "Skull"]
    assert labels[0]["color"] == [212, 126, 151]


@pytest.mark.parametrize("promised", [(), ("Necrosis", "Edema"), ("Necrosis", "Edema", "Liver")])
def test_other_labels_than_promised_keep_their_own_names(read, promised):
    names, labels = read(BRATS, promised)
    assert names == ["Necrotic core", "Oedema", "Enhancing"]
    assert labels[1]["terminology"]["type"]["meaning"] == "Edema"
