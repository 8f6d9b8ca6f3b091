"""The search for a model by what it segments: which rows there are, in which order, and what they say. No widgets."""

from __future__ import annotations

from dataclasses import replace
from html import escape

import our_models
import pytest
from bundles import label, write_tiny_bundle
from usema.store import expected, finding, shelf
from usema.store.install import install_file
from usema.store.library import library

pytest_plugins = ["panel_fixtures"]

BODY = "totalsegmentator-total-3mm"


@pytest.fixture
def words(app):
    """The texts of the panel, which the application translates."""
    from USEMASegmentationLib.Panel import ShelfTexts

    return ShelfTexts


def names(*search: str) -> list[str]:
    return [found.model.name for found in finding.search(library(), *search)]


def one(name: str, *search: str) -> finding.Found:
    return next(found for found in finding.search(library(), *search) if found.model.name == name)


# Which are found


def test_what_is_here_comes_first_then_what_lists_offer_then_the_shelf():
    found = names("hippocampus")
    assert found[:2] == ["hippocampus-mr", "brain-subcortical"]
    count = len(our_models.OFFERED)
    assert names()[:count] == ["hippocampus-mr", *our_models.WAITING]
    assert len(names()) == count + len(shelf.entries())


@pytest.mark.parametrize("text", ["left adrenal", "linke Nebenniere"])
def test_a_structure_is_found_in_english_and_german_and_named(text):
    found = finding.search(library(), text)
    assert found[0].model.name == "totalsegmentator-total-3mm"
    assert found[0].structures == ("Left adrenal gland",)


def test_an_installed_public_model_comes_first_and_nothing_is_listed_twice(tmp_path):
    assert names("white matter")[0] != "brain-tissue-light"
    labels = [label(1, "White matter", [240, 240, 240], None), label(2, "Grey matter", [128, 128, 128], None)]
    for each in labels:
        each["terminology"].pop("type_modifier")
    source = write_tiny_bundle(tmp_path / "light", name="brain-tissue-light", title="Light", labels=labels)
    install_file(source.path)
    found = finding.search(library(), "white matter")
    assert found[0].model.name == "brain-tissue-light"
    assert found[0].is_here
    assert found[0].public is shelf.find("brain-tissue-light")
    assert names("white matter").count("brain-tissue-light") == 1
    assert "brain-tissue-light" not in names("white matter", "CT")


def test_modality_and_region_narrow_it_and_the_whole_body_holds_each_region():
    assert {one.model.modality for one in finding.search(library(), "liver", "MR")} == {"MR"}
    assert "totalsegmentator-total-3mm" in names("liver", "CT", "abdomen")
    assert "totalsegmentator-total-3mm" not in names("", "CT", "abdomen")
    assert names("brain mask", "CT") == []
    assert names("head", "US") == ["fetal-head-us"]
    assert names("liver", "US") == []


def test_a_model_that_is_here_is_found_by_structures_that_only_its_file_named(tmp_path):
    name = "auto3dseg-muscles-3mm"
    assert name not in names("hippocampus")
    install_file(write_tiny_bundle(tmp_path / "muscles", name=name, title="Muscles", modality="CT").path)
    assert name in names("hippocampus")
    assert name in names("hippocampus", "CT", "head")  # it is of the whole body
    assert name not in names("hippocampus", "MR")
    assert name not in names("liver")
    assert name in names("", "CT")
    assert one(name, "posterior hippocampus").structures == ("Posterior hippocampus",)


# What is said of them


def test_a_row_says_what_it_finds_where_how_much_how_long_and_by_whom(words, monkeypatch):
    monkeypatch.setattr(expected, "rate", lambda: expected.REFERENCE_FLOPS)
    monkeypatch.setattr(expected, "threads", lambda: 140 / 185)
    assert words.row(one("totalsegmentator-total-3mm", "left adrenal")).splitlines() == [
        "Whole body, 117 structures, 3 mm",
        "    Left adrenal gland (of 117 structures)",
        "    CT, whole body · 135 MB · about 3 min here · Apache-2.0",
        "    TotalSegmentator · not yet run on the publisher's weights",
    ]
    assert words.row(one("hippocampus-mr")).splitlines() == [
        "Hippocampus, head and body (MR T1) – bundled",
        "    6 structures: Anterior hippocampus, Posterior hippocampus, Left anterior hippocampus, "
        "Left posterior hippocampus, …",
        "    MR · CC-BY-SA-4.0",
        "    USEMA",
    ]


def test_what_was_run_on_the_publishers_weights_is_not_warned_of(words):
    assert "not yet run" not in words.row(one("brain-mask"))
    assert "stand-ins" not in words.details(one("brain-mask"))
    for name in ("totalsegmentator-total-3mm", "auto3dseg-lungs"):
        assert "not yet run on the publisher's weights" in words.row(one(name))


def test_memory_is_told_and_what_is_free_where_that_is_less(words, monkeypatch):
    monkeypatch.setattr(words, "free_memory", lambda in_a_new_process: 64e9)
    enough = words.details(one(BODY))
    assert "With a usual volume it needs at least 3.5 GB of memory.<br>" in enough
    assert not words.memoryIsShort(one(BODY))
    monkeypatch.setattr(words, "free_memory", lambda in_a_new_process: 2.5e9)
    assert "at least 3.5 GB of memory, of which only 2.5 are free." in words.details(one(BODY))
    assert words.memoryIsShort(one(BODY))
    small = finding.Measures((40, 128, 128), (3.0, 1.5, 1.5))
    (of_small,) = [each for each in finding.search(library(), volume=small) if each.public is one(BODY).public]
    assert words.memory(of_small) == "Needs at least 2.0 GB of memory."
    assert not words.memoryIsShort(of_small)
    assert words.memory(one("auto3dseg-lungs")) == "With a usual volume it needs at least 1.0 GB of memory."


@pytest.mark.parametrize("name", ["totalsegmentator-teeth", "auto3dseg-prostate", "brain-mask"])
def test_its_card_says_who_made_it_where_the_licence_stands_and_how_to_cite_it(words, name):
    model = shelf.find(name).model
    for text in (words.card(one(name)), "<br>".join(words.origin(one(name)))):
        assert escape(model.publisher) in text
        assert escape(model.citation) in text
        assert escape(model.licence["stated_at"]) in text
    assert words.card(one("hippocampus-mr")) == "" == "".join(words.origin(one("hippocampus-mr")))


def test_nothing_that_a_publisher_writes_is_markup(words):
    hostile = "<b onclick='x'>&"
    found = one("brain-mask")
    model = replace(
        found.public.model,
        publisher=hostile, citation=hostile, note=hostile, licence={**found.public.model.licence, "stated_at": hostile},
    )  # fmt: skip
    found = replace(found, public=replace(found.public, model=model))
    for text, count in ((words.details(found), 2), (words.card(found), 4), ("".join(words.origin(found)), 3)):
        assert hostile not in text
        assert text.count(escape(hostile)) == count


def test_the_size_counts_the_models_that_come_with_it(words):
    lesions, alone = one("totalsegmentator-liver-lesions"), one("totalsegmentator-total-3mm")
    assert lesions.size == shelf.find("totalsegmentator-liver-lesions").model.size + alone.size
    assert "366 MB" in words.row(lesions)
    assert "Comes with what it needs: Whole body, 117 structures, 3 mm." in words.details(lesions)
    refined = one("totalsegmentator-vertebrae-pp-refined")
    assert refined.size == shelf.find(refined.model.name).model.size


def test_a_size_and_a_licence_that_nobody_states_are_not_made_up(words):
    lines = words.row(one("auto3dseg-whole-head-1mm"))
    assert "size not stated" in lines
    assert "licence: none stated" in lines
    assert "9 structures: Masseter muscle, " in lines
    details = words.details(one("auto3dseg-whole-head-1mm"))
    assert "its terms are not stated clearly" in details
    assert "states no checksum" in details


def test_many_structures_are_counted_not_listed(words):
    assert words.finds(one("totalsegmentator-total-3mm", "rib")).endswith("and 20 more (of 117 structures)")
    assert words.finds(one("totalsegmentator-total-3mm")).startswith("117 structures: Spleen, Right kidney, ")


def test_a_search_without_a_result_says_what_to_do(words):
    assert words.count([], "xyz") == "No model finds 'xyz'. Try another word, or any modality and region."
