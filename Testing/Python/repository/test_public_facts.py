"""The facts of the shelf of public models are those that its publishers state."""

from __future__ import annotations

import json
from copy import deepcopy

import pytest
from testing_scripts import load
from usema.converters.public import public_models
from usema.json_schema import problems


@pytest.fixture(scope="module")
def facts(root):
    return load(root, "public_models")


@pytest.fixture(scope="module")
def document(facts):
    return json.loads(facts.INDEX.read_text("utf-8"))


def found(facts, document, data) -> list[tuple]:
    return [
        (entry and entry["name"], key, value)
        for publisher, stated, by_address in facts.stated_by(data.parent)
        for entry, key, value in facts.differences(document, publisher, stated, by_address)
    ]


def test_no_fact_differs_from_what_the_publishers_state(facts, document, data):
    assert found(facts, document, data) == []
    assert {publisher for publisher, stated, _ in facts.stated_by(data.parent) if len(stated) in (40, 7)} == {
        "totalsegmentator", "brainchop",
    }  # fmt: skip


def test_the_file_keeps_to_its_schema_and_its_form(facts, document):
    schema = json.loads(facts.INDEX.with_suffix(".schema.json").read_text("utf-8"))
    assert list(problems(document, schema)) == []
    assert facts.as_text(document) == facts.INDEX.read_text("utf-8")
    broken = deepcopy(document)
    broken["models"][3]["modality"] = "X"
    del broken["models"][5]["files"][0]["sha256"]
    assert len(list(problems(broken, schema))) == 2


def test_codes_and_colours_are_those_that_the_publisher_states(facts, data):
    codes = json.loads((facts.CONVERTERS / "label_codes.json").read_text("utf-8"))
    snomed = json.loads((data.parent / "spec/totalsegmentator-snomed.json").read_text("utf-8"))
    assert list(facts.code_differences(codes, snomed)) == []
    codes["labels"]["liver"][1] = [0, 0, 0]
    del codes["labels"]["spleen"]
    assert [line.split(":")[0] for line in facts.code_differences(codes, snomed)] == [
        "label_codes.json, liver",
        "label_codes.json, spleen",
    ]


def test_a_fact_that_changes_is_named_and_taken_over(facts, document, data, monkeypatch, tmp_path, capsys):
    changed = deepcopy(document)
    entries = {entry["name"]: entry for entry in changed["models"]}
    entries["totalsegmentator-teeth"]["recipe"]["crop_first"]["margin_mm"] = 20
    entries["totalsegmentator-body-6mm"]["files"][0]["bytes"] += 1
    entries["brain-mask"]["files"][0]["sha256"] = 64 * "0"
    entries["totalsegmentator-breasts"]["recipe"]["postprocess"] = ["body"]
    entries["totalsegmentator-trunk-cavities"]["name"] = "totalsegmentator-coronary-arteries"
    assert {(name, key) for name, key, _ in found(facts, changed, data)} == {
        ("totalsegmentator-teeth", "recipe.crop_first"),
        ("totalsegmentator-body-6mm", "files"),
        ("brain-mask", "files"),
        ("totalsegmentator-breasts", "recipe.postprocess"),
        ("totalsegmentator-coronary-arteries", "name"),
        (None, "totalsegmentator-trunk-cavities"),
    }
    entries["totalsegmentator-trunk-cavities"]["name"] = "totalsegmentator-trunk-cavities"
    monkeypatch.setattr(facts, "INDEX", tmp_path / "public_models.json")
    facts.INDEX.write_text(facts.as_text(changed), "utf-8")
    monkeypatch.setattr("sys.argv", ["public_models.py", "--shared", str(data.parent), "--write"])
    assert facts.main() == 0
    assert "totalsegmentator-teeth: recipe.crop_first is" in capsys.readouterr().out
    assert json.loads(facts.INDEX.read_text("utf-8")) == document


def test_the_labels_of_auto3dseg_are_read_from_its_list(facts):
    version = {"url": "https://github.com/x/releases/download/Models/y-v2.zip"}
    says = {
        "license": "CC BY 4.0",
        "imagingModality": "MR",
        "versions": [version, {"url": "older"}],
        "segmentationTimeSecCPU": 50.7,
        "segmentNames": ["Edema in Edema", "Cyst in Left Kidney"],
    }
    (stated,) = facts.auto3dseg({"models": [says]}).values()
    assert stated["labels"] == ["Edema", "Cyst in Left Kidney"]
    assert (stated["licence.open"], stated["publisher_seconds"]) == ("yes", 51)
    (unclear,) = facts.auto3dseg({"models": [{**says, "license": "Free to use"}]}).values()
    assert (unclear["licence.name"], unclear["licence.open"]) == ("Free to use", "not stated")


def test_no_two_labels_of_a_model_are_read_alike():
    for model in public_models():
        assert len(set(model.labels)) == len(model.labels), model.name
