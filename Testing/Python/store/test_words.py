"""What people type, in English and German, as the structures that they mean."""

from __future__ import annotations

import pytest
from usema.converters.public import public_models
from usema.store.words import rank, structures

MODELS = {model.name: model for model in public_models()}


def named(text: str, model: str = "totalsegmentator-total-3mm") -> list[str]:
    return structures(text, MODELS[model].labels)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("left adrenal", ["Left adrenal gland"]),
        ("linke Niere", ["Left kidney", "Left kidney cyst"]),
        ("mandible", []),
        ("", []),
        ("LWK3", ["Vertebrae L3"]),
        ("LWK 3", ["Vertebrae L3"]),
        ("vertebra L3", ["Vertebrae L3"]),
        ("Th 12", ["Vertebrae T12"]),
        ("T1", ["Vertebrae T1"]),
        ("left rib 1", ["Left rib 1"]),
        ("first rib left", ["Left rib 1"]),
        ("linke Rippe 12", ["Left rib 12"]),
        ("Zwölffingerdarm", ["Duodenum"]),
        ("zwoelffingerdarm", ["Duodenum"]),
        ("linkes Schulterblatt", ["Left scapula"]),
        ("Lungenoberlappen links", ["Left lung upper lobe"]),
        ("left clavicle", ["Left clavicula"]),
        ("untere Hohlvene", ["Inferior vena cava"]),
        ("Dünndarm", ["Small bowel"]),
        ("small intestine", ["Small bowel"]),
        ("deep muscle left", ["Left autochthon"]),
    ],
)
def test_words_name_structures(text, found):
    assert named(text) == found


@pytest.mark.parametrize(
    ("text", "model", "found"),
    [
        ("mandible", "totalsegmentator-teeth", ["Lower jawbone"]),
        ("Unterkiefer", "totalsegmentator-teeth", ["Lower jawbone"]),
        ("liver segment IV", "totalsegmentator-liver-segments", ["Liver segment 4"]),
        ("Lebersegment 4", "totalsegmentator-liver-segments", ["Liver segment 4"]),
        ("pulmonary artery", "totalsegmentator-lung-vessels-legacy", []),
        ("Rippe 5 links", "auto3dseg-ribs", ["Left fifth rib"]),
        ("vertebrae L3", "auto3dseg-vertebrae", ["L3 vertebra"]),
        ("hemorrhage subdural", "auto3dseg-icrh", ["Hemorrhage in subdural space"]),
        ("Hirnblutung", "auto3dseg-anatomy-and-icrh", ["Intracerebral haemorrhage", "Intraventricular haemorrhage",
                                                       "Extra-Axial haemorrhage"]),
        ("left kidney", "auto3dseg-abdominal-organs", ["Left kidney", "Left cyst in kidney"]),
    ],
)  # fmt: skip
def test_each_publishers_way_of_naming_is_understood(text, model, found):
    assert named(text, model) == found


def test_a_tooth_is_found_by_its_number():
    teeth = named("tooth 11", "totalsegmentator-teeth")
    assert teeth == named("Zahn 11", "totalsegmentator-teeth") == ["Right upper central incisor fdi11"]


def test_a_structure_counts_more_than_a_title_and_that_more_than_both_together():
    assert rank("liver", "Abdomen", ["Liver"]) == 0
    assert rank("abdomen", "Abdomen", ["Liver"]) == 1
    assert rank("abdomen liver", "Abdomen", ["Liver"]) == 2
    assert rank("knee", "Abdomen", ["Liver"]) is None
    assert rank("", "Abdomen", []) == 0
