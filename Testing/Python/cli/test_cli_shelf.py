"""Public models on the command line: found by structure, with size and time, and carried to where no network is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from bundles import write_tiny_bundle
from click.testing import CliRunner
from usema.cli import main
from usema.store.install import install_file

pytest_plugins = ["panel_fixtures"]


def run(*words: str):
    return CliRunner().invoke(main, ["models", *words])


def test_a_structure_finds_models_with_their_size_and_time_here():
    result = run("list", "--search", "left adrenal", "--modality", "MR")
    assert result.exit_code == 0
    assert "totalsegmentator-total-mr-3mm" in result.output
    assert "126 MB" in result.output
    assert "Left adrenal gland" in result.output
    assert "total-3mm" not in result.output.replace("total-mr-3mm", "")


def listed(*words: str) -> list[str]:
    """The names of the models that the command line lists, in its order."""
    rows = re.findall(r"^│ (\S+) ", run("list", *words).stdout, re.MULTILINE)
    return [name for name in rows if name != "name"]


@pytest.mark.parametrize(
    "search",
    [
        ("leber", "", ""),
        ("liver", "CT", "abdomen"),
        ("", "MR", "head"),
        ("Hippokampus", "mr", ""),
        ("brain", "", "Head"),
    ],
)
def test_the_command_line_finds_what_the_panel_finds_in_the_same_order(search, app, tmp_path):
    from USEMASegmentationLib.ModelStore import ModelStore

    install_file(write_tiny_bundle(tmp_path / "own", name="auto3dseg-aorta", title="Own").path)  # of hippocampi, in MR
    words = zip(("--search", "--modality", "--region"), search, strict=True)
    found = listed(*(word for option, text in words if text for word in (option, text)))
    assert found == [one.model.name for one in ModelStore().search(*search)]
    assert len(found) > 1
    assert ("auto3dseg-aorta" in found) == (search[0] == "Hippokampus")
    assert ("hippocampus-mr" in found) == (search[:2] in (("", "MR"), ("Hippokampus", "mr")))


def test_a_structure_of_a_region_is_found_in_models_of_the_whole_body_too():
    assert "totalsegmentator-total-3mm" in listed("--search", "liver", "--region", "abdomen")
    assert "auto3dseg-abdominal-organs" in listed("--search", "liver", "--region", "abdomen")
    assert "totalsegmentator-total-3mm" not in listed("--region", "abdomen")


def test_what_is_here_comes_first_and_says_so():
    lines = run("list", "--search", "hippocampus").stdout.splitlines()
    (first, *_) = [line for line in lines if line.startswith("│ ") and "│ name" not in line]
    assert first.startswith("│ hippocampus-mr")
    assert "bundled" in first


def test_a_time_is_told_where_it_was_measured():
    (line,) = [line for line in run("list", "--search", "brain mask").output.splitlines() if "│ brain-mask " in line]
    assert " about " in line


@pytest.mark.parametrize(
    "words", [("--search", "banana"), ("--search", "liver", "--modality", "US"), ("--modality", "PT")]
)
def test_a_search_that_finds_nothing_says_how_to_search(words):
    result = run("list", *words)
    assert result.exit_code == 1
    assert "--region abdomen, chest, head" in result.output


def test_the_list_of_files_names_those_of_needed_models_too():
    result = run("fetch-list", "totalsegmentator-teeth")
    assert result.exit_code == 0
    addresses = [line.split("\t")[0].rpartition("/")[2] for line in result.output.splitlines()]
    assert [name[:10] for name in addresses] == ["Dataset298", "Dataset115", "Dataset113"]


def test_a_name_that_is_not_on_the_shelf_is_refused():
    result = run("fetch-list", "brain-mask", "hippocampus-mr")
    assert result.exit_code == 1
    assert "'hippocampus-mr' is no public model" in result.output


def test_the_card_of_a_public_model_says_whose_it_is_before_it_is_downloaded():
    result = run("card", "totalsegmentator-teeth")
    assert result.exit_code == 0
    assert "**Made by:** TotalSegmentator, University Hospital Basel" in result.output
    assert "**Stated in:** README of github.com/wasserth/TotalSegmentator" in result.output
    assert "**Please cite:** Wasserthal et al. 2023" in result.output
    assert "Region found by" in result.output
    shown = run("show", "auto3dseg-prostate").output
    assert "made by" in shown
    assert "stated in" in shown
    assert "size not stated" in shown


def test_the_bundled_model_has_its_card_too_and_a_wrong_name_none():
    assert "hippocampus" in run("card", "hippocampus-mr").output
    assert run("card", "banana").exit_code == 1


def test_what_was_carried_here_is_not_to_be_downloaded():
    assert "24 kB" in run("list", "--search", "brain tissue in seconds").output
    place = Path(run("fetch-list", "brain-tissue-light").stdout.split("\t")[1].strip())
    place.parent.mkdir(parents=True)
    place.write_bytes(b"from a stick")
    assert "its files are here" in run("list", "--search", "brain tissue in seconds").output


def test_memory_is_told_beside_the_time_with_what_is_free():
    result = run("list", "--search", "brain mask")
    (line,) = [line for line in result.output.splitlines() if "│ brain-mask " in line]
    assert "at least 1.7 GB" in line or "at least 1.8 GB" in line
    assert "GB of memory are free" in result.stderr
