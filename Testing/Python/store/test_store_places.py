"""Where nothing of the user's can be kept, what keeps nothing runs; what is deleted is gone as a whole, or there."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import our_models
import platformdirs  # noqa: F401 (before another user, who may not read it, needs it)
import pytest
from bundles import write_tiny_bundle
from other_user import as_other_user
from usema.errors import UsemaError
from usema.models.bundle import read_bundle
from usema.resources import bundled_models
from usema.store import cache, indexes, install, library, settings, verification

OWN = {"USEMA_MODELS": None, "USEMA_SETTINGS": None, "XDG_DATA_HOME": None, "XDG_CONFIG_HOME": None}


@pytest.fixture
def readable(root):
    """The repository, for a user who does not own it."""
    if not as_other_user(lambda: os.access(root / "Resources" / "models.json", os.R_OK)):
        pytest.skip("other users may not read the repository")


def refusal(work) -> str:
    try:
        work()
    except UsemaError as error:
        return str(error)
    return "it went on"


def what_needs_no_cache() -> dict:
    known = library.library()
    bundled = library.find_model("hippocampus-mr")
    return {
        "states": [(model.name, model.state) for model in known.models],
        "problems": known.problems,
        "found": str(bundled),
        "verified": verification.verify(read_bundle(bundled)),
        "left": cache.left_parts(),
        "indexes": [source.title for source in indexes.ours()],
        "import": refusal(lambda: install.install_file(bundled)),
        "download": refusal(lambda: install.install(known.get("sarcoma-mr").entry)),
        "add": refusal(lambda: settings.add_index("https://a.org")),
    }


def assert_all_but_keeping_went_well(said: dict) -> None:
    assert said["states"] == [list(state) for state in our_models.STATES]
    assert said["found"] == str(bundled_models()["hippocampus-mr"])
    assert said["verified"] == "verified (weights and model.json)"
    assert (said["left"], said["indexes"]) == ([], ["USEMA models"])


def test_in_the_locked_home_of_another_user_all_runs_that_needs_no_cache(readable, tmp_path):
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    said = as_other_user(what_needs_no_cache, HOME=str(home), **OWN)
    assert_all_but_keeping_went_well(said)
    assert f"{home}/.local/share/USEMA/Models, cannot be read: Permission denied." in said["problems"][0]
    assert f"{home}/.config/USEMA/models.json cannot be read: Permission denied." in said["problems"][1]
    for what in ("import", "download", "add"):
        assert "Permission denied" in said[what]
        assert "USEMA_" in said[what]


@pytest.fixture
def open_folder(monkeypatch):
    """Where everybody may write; the folders of tests are this user's alone."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        monkeypatch.chdir(folder)
        yield Path(folder)


def test_a_present_folder_that_may_not_be_looked_at_hides_no_model(readable, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_all_but_keeping_went_well(as_other_user(what_needs_no_cache, HOME=None, **OWN))


def test_a_user_without_a_name_and_a_home_runs_all_that_needs_none(readable, open_folder):
    said = as_other_user(what_needs_no_cache, HOME=None, **OWN)
    assert_all_but_keeping_went_well(said)
    (problem,) = said["problems"]
    assert problem == (
        "Downloaded models need a home folder, and this user has none. Set HOME, or name a folder in USEMA_MODELS."
    )
    assert (said["import"], said["download"]) == (problem, problem)
    assert said["add"].endswith("Set HOME, or name a file in USEMA_SETTINGS.")
    assert list(open_folder.iterdir()) == [], "no folder called ~"


def test_a_place_named_by_a_home_that_is_not_there_is_said(readable):
    environment = {**OWN, "HOME": None, "USEMA_MODELS": "~/models"}
    said = as_other_user(lambda: refusal(cache.folder), **environment)
    assert "need a home folder, and this user has none" in said


# Deleting


REMOVE = """
import os, sys
from usema.store import cache
deleted = []
def die_at_the_second_file(event, arguments):
    if event == "os.remove":
        deleted.append(arguments)
        if len(deleted) == 2: os._exit(9)
sys.addaudithook(die_at_the_second_file)
cache.remove(cache.installed()[0])
"""


def test_a_model_is_gone_as_a_whole_whenever_deleting_it_ends(tmp_path, root):
    install.install_file(write_tiny_bundle(tmp_path / "tiny", name="tiny").path)
    environment = {**os.environ, "PYTHONPATH": str(root / "USEMASegmentation")}
    ended = subprocess.run([sys.executable, "-c", REMOVE], env=environment, check=False).returncode
    assert ended == 9, "it was to be killed after the first file"
    assert not cache.place("tiny", "1.2.0").exists()
    assert cache.installed() == []
    ((left, _),) = cache.left_parts()
    cache.remove_parts([left])
    assert cache.left_parts() == []
    assert Path(install.install_file(tmp_path / "tiny").path).is_dir()
