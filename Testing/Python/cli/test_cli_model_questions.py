"""`usema models`: what is asked before something is installed, and how much is said of a model."""

from __future__ import annotations

import json

import our_models
import pytest
from bundles import BUNDLED_VERSION, write_tiny_bundle
from cli_cases import NON_COMMERCIAL, said, usema
from usema.models.bundle import read_bundle
from usema.models.bundle_writing import change_metadata
from usema.resources import bundled_models
from usema.store import archive, cache, publish


@pytest.fixture
def restricted(tmp_path):
    """A model whose licence forbids commercial use, in a folder."""
    return write_tiny_bundle(tmp_path / "brain-mr", name="brain-mr", licence=NON_COMMERCIAL).path


def installed() -> list[str]:
    return [f"{model.name} {model.version}" for model in cache.installed()]


# Licences


@pytest.mark.parametrize("form", ["a file", "a folder"])
def test_an_import_asks_about_a_licence_exactly_once(form, restricted, tmp_path):
    source = archive.pack(restricted, tmp_path / "brain-mr.usema") if form == "a file" else restricted
    refused = usema("models", "import", source, input="n\n")
    assert refused.exit_code == 1
    assert "licence CC-BY-NC-4.0, not for commercial use" in said(refused)
    assert installed() == []
    assert usema("models", "import", source, input="y\n").exit_code == 0
    for _ in range(2):
        again = usema("models", "import", source, input="")
        assert (again.exit_code, "accept" in again.output) == (0, False)
        usema("models", "remove", "brain-mr", "--yes")


def test_a_script_imports_with_an_option(restricted):
    assert usema("models", "import", restricted, input="").exit_code == 1, "nobody is there to say yes"
    assert usema("models", "import", restricted, "--accept-licence", input="").exit_code == 0
    assert installed() == ["brain-mr 1.2.0"]


def test_the_help_says_which_licences_an_option_accepts():
    assert "commercial use, and those that are not stated clearly" in said(usema("models", "download", "--help"))


def test_a_model_that_is_named_twice_is_asked_about_and_downloaded_once(restricted, tmp_path):
    publish.publish(read_bundle(restricted), tmp_path / "share")
    usema("models", "index", "add", tmp_path / "share")
    result = usema("models", "download", "brain-mr", "brain-mr", input="y\n")
    assert result.exit_code == 0, result.output
    assert result.output.count("not for commercial use") == 1
    assert installed() == ["brain-mr 1.2.0"]


@pytest.mark.parametrize(("answer", "there"), [("y\n", ["brain-mr 1.2.0"]), ("n\n", [])])
def test_a_file_with_other_terms_than_the_index_is_asked_about_after_the_download(answer, there, restricted, tmp_path):
    share = tmp_path / "share"
    publish.publish(read_bundle(restricted), share)
    index = json.loads((share / "models.json").read_text())
    index["models"][0]["licence"] |= {"name": "CC0-1.0", "commercial_use": True}
    (share / "models.json").write_text(json.dumps(index))
    usema("models", "index", "add", share)
    result = usema("models", "download", "brain-mr", input=answer)
    assert result.exit_code == (0 if there else 1)
    assert "licence CC-BY-NC-4.0 (the index says CC0-1.0), not for commercial use" in said(result)
    assert installed() == there


# Replacing


def test_other_weights_of_the_same_version_are_asked_about_with_both_hashes(tmp_path):
    one = write_tiny_bundle(tmp_path / "one", name="tiny").path
    other = change_metadata(write_tiny_bundle(tmp_path / "other", name="tiny"), limits="Others.").path
    usema("models", "import", one)
    hashes = [read_bundle(path).metadata_sha256 for path in (one, other)]
    asked = usema("models", "import", other, input="n\n")
    assert asked.exit_code == 1
    assert all(sha256 in asked.output for sha256 in hashes)
    assert "Replace what is here?" in asked.output
    assert read_bundle(cache.place("tiny", "1.2.0")).metadata_sha256 == hashes[0]
    assert usema("models", "import", other, "--replace", input="").exit_code == 0
    assert read_bundle(cache.place("tiny", "1.2.0")).metadata_sha256 == hashes[1]


def test_a_changed_model_is_downloaded_again_when_that_is_wanted(tmp_path):
    bundle = write_tiny_bundle(tmp_path / "one", name="tiny")
    publish.publish(bundle, tmp_path / "share")
    usema("models", "index", "add", tmp_path / "share")
    usema("models", "download", "tiny")
    changed = change_metadata(read_bundle(cache.place("tiny", "1.2.0")), limits="Others.")
    verified = usema("models", "verify", "tiny")
    assert verified.exit_code == 1
    assert "model.json was changed" in verified.output
    assert changed.metadata_sha256 in verified.output
    assert usema("models", "download", "tiny", input="n\n").exit_code == 1
    assert usema("models", "download", "tiny", "--replace").exit_code == 0
    assert "tiny 1.2.0: verified (weights and model.json)" in usema("models", "verify", "tiny").output


# A screenful


@pytest.mark.parametrize("name", our_models.OFFERED)
def test_a_model_is_shown_on_a_screen_and_the_rest_where_it_is_asked_for(name):
    shown = usema("models", "show", name).stdout
    assert len(shown.splitlines()) <= 40
    assert max(map(len, shown.splitlines())) <= 120
    whole = json.loads(usema("models", "show", name, "--json").stdout)
    for key in ("title", "name", "version", "citation"):
        assert whole[key].split()[0] in shown
    assert whole["licence"]["url"] in shown
    assert "--json" in shown


def test_a_model_in_use_tells_both_hashes():
    bundle = read_bundle(bundled_models()["hippocampus-mr"])
    shown = usema("models", "show", "hippocampus-mr").stdout
    assert f"hippocampus-mr {BUNDLED_VERSION}" in shown
    assert bundle.metadata.weights["sha256"] in shown
    assert bundle.metadata_sha256 in shown


def test_publishing_says_a_screenful_and_the_entry_where_it_is_asked_for(tmp_path):
    metrics = {f"metric {number}": {"a": number, "b": [number] * 50} for number in range(100)}
    bundle = write_tiny_bundle(tmp_path / "tiny", name="tiny", metrics=metrics).path
    said_of_it = usema("models", "publish", bundle, "-o", tmp_path / "share").stdout
    assert len(said_of_it.splitlines()) <= 40
    assert "tiny 1.2.0" in said_of_it
    entry = json.loads(usema("models", "publish", bundle, "-o", tmp_path / "share", "--json").stdout)
    assert entry["metrics"] == metrics
    assert entry["file"]["metadata_sha256"] == read_bundle(bundle).metadata_sha256
    assert entry["file"]["sha256"] in said_of_it


# Indexes


def test_an_address_that_is_not_protected_is_said_to_be_so(tmp_path, monkeypatch):
    from faulty_server import FaultyServer, running

    content = b'{"schema_version": 1, "title": "A department", "models": []}'
    with running(FaultyServer(content)) as server:
        added = usema("models", "index", "add", server.url("models.json?key=hidden"))
        assert added.exit_code == 0
        assert "not protected" in said(added)
        listed = usema("models", "index", "list")
        removed = usema("models", "index", "remove", server.url("models.json"))
    assert removed.exit_code == 0
    assert "hidden" not in added.output + listed.output + removed.output
    (tmp_path / "models.json").write_bytes(content)
    assert "protected" not in usema("models", "index", "add", tmp_path).output
