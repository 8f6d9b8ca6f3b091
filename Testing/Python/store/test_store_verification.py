"""A model whose weights are right and whose model.json is not: labels, plan or temperature of another one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from bundles import write_tiny_bundle
from usema.errors import UsemaError
from usema.models.bundle import read_bundle
from usema.resources import bundled_models
from usema.store import archive, indexes, install, publish, settings
from usema.store.library import find_entry
from usema.store.verification import verify


@pytest.fixture
def installed(tmp_path):
    return install.install_file(write_tiny_bundle(tmp_path / "tiny", name="tiny").path)


def change(bundle, old: str, new: str):
    path = bundle.path / "model.json"
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")
    return read_bundle(bundle.path)


def test_a_model_json_that_was_changed_is_found_though_it_is_valid(installed):
    assert verify(installed) == "verified (weights and model.json)"
    changed = change(installed, "Anterior hippocampus", "Posterior part")
    changed.verify()
    with pytest.raises(UsemaError, match=r"model\.json was changed: its SHA-256 is .* it was installed") as caught:
        verify(changed)
    assert installed.metadata_sha256 in caught.value.message
    assert changed.metadata_sha256 in caught.value.message


def test_a_model_that_says_it_is_another_is_found(installed):
    with pytest.raises(UsemaError, match=r"model\.json was changed: it is that of tiny 1\.2\.1"):
        verify(change(installed, '"1.2.0"', '"1.2.1"'))


def test_the_bundled_model_is_compared_with_our_index(tmp_path, monkeypatch):
    resources = tmp_path / "Resources"
    shutil.copytree(bundled_models()["hippocampus-mr"], resources / "Models" / "hippocampus-mr")
    shutil.copy(Path(indexes.ours()[0].place), resources)
    monkeypatch.setenv("USEMA_RESOURCES", str(resources))
    bundle = read_bundle(bundled_models()["hippocampus-mr"])
    assert verify(bundle) == "verified (weights and model.json)"
    with pytest.raises(UsemaError, match="in the index USEMA models it was"):
        verify(change(bundle, '"temperature": ', '"temperature": 1'))


def test_a_model_of_nobody_s_index_is_said_to_be_so(tmp_path):
    bundle = write_tiny_bundle(tmp_path / "tiny", name="tiny")
    assert verify(bundle) == "verified (its weights; no index here has the hash of its model.json)"
    file = archive.pack(bundle.path, tmp_path / "tiny.usema")
    assert "its weights" in verify(read_bundle(file))


def test_an_index_from_before_the_hash_stays_valid_and_is_not_compared_with(tmp_path):
    bundle = write_tiny_bundle(tmp_path / "tiny", name="tiny")
    publish.publish(bundle, tmp_path / "share")
    path = tmp_path / "share" / "models.json"
    lines = path.read_text("utf-8").replace('"schema_version": 2', '"schema_version": 1').splitlines()
    kept = [line for line in lines if "metadata_sha256" not in line]
    path.write_text("\n".join(kept).replace('",\n      },', '"\n      },'), "utf-8")
    indexes.fetch(settings.add_index(str(tmp_path / "share")))
    entry = find_entry("tiny")
    assert entry.file.metadata_sha256 == ""
    assert verify(install.install(entry)) == "verified (weights and model.json)", "by what was installed"
    assert "its weights" in verify(bundle)
