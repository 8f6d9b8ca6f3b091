"""The address of the repository stands in one place as far as a publisher is concerned: a script writes all others."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from testing_scripts import load
from usema.store import index
from usema.store.page import render

NEW = "https://github.com/A-Department/Slicer.USEMA"


@pytest.fixture(scope="module")
def script(root):
    return load(root, "set_repository_address")


@pytest.fixture
def copy(script, root, tmp_path):
    for name in script.FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(root / name, tmp_path / name)
    return tmp_path


def test_the_script_knows_every_file_that_names_the_address(script, root):
    owner = script.address_of(root).removeprefix("https://github.com/")
    command = ["git", "grep", "--fixed-strings", "--name-only", "--text", owner]
    found = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.split()
    assert sorted(found) == sorted(script.FILES)


@pytest.mark.parametrize("given", [NEW, f"{NEW}/", f"{NEW}.git"])
def test_a_new_address_stands_in_all_of_them(script, copy, given):
    old = script.address_of(copy).removeprefix("https://github.com/")
    assert script.set_address(copy, given) == list(script.FILES)
    assert script.address_of(copy) == NEW
    for name in script.FILES:
        assert old not in (copy / name).read_text("utf-8"), name
    assert json.loads((copy / "USEMA.json").read_text())["scm_url"] == f"{NEW}.git"
    assert f"scmurl {NEW}.git\n" in (copy / "USEMA.s4ext").read_text()
    place = str(copy / "Resources/models.json")
    listed = index.parse(index.read_bytes(place), place)
    for entry in listed.entries:
        file = f"{entry.name}-{entry.version}"
        assert entry.file.urls[0] == f"{NEW}/releases/download/{file}/{file}.usema"
        raw = NEW.replace("github.com", "raw.githubusercontent.com")
        assert all(url.startswith((f"{NEW}/", f"{raw}/")) for url in entry.file.urls)
    assert (copy / "Resources/models.html").read_text("utf-8") == render(listed)
    assert script.set_address(copy, NEW) == []


@pytest.mark.parametrize(
    "given",
    ["", "A-Department/USEMA", "http://github.com/a/b", "https://github.com/a", f"{NEW}/tree/main", f"{NEW}\n#"],
)
def test_what_is_no_address_of_a_repository_changes_nothing(script, copy, given):
    before = {name: (copy / name).read_bytes() for name in script.FILES}
    with pytest.raises(ValueError, match="is not of the form"):
        script.set_address(copy, given)
    assert {name: (copy / name).read_bytes() for name in script.FILES} == before
