"""What is asked before a model is installed, and that nothing else than what was shown is taken for agreed to."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace

import filelock
import pytest
from faulty_server import FaultyServer, running
from install_cases import NAME, VERSION, assert_installed, entry_for, packed
from usema.errors import BundleError
from usema.models.bundle import read_bundle
from usema.models.bundle_writing import change_metadata
from usema.resources import bundled_models
from usema.store import archive, cache, index, install, settings
from usema.store.consent import ConsentNeeded, Question

pytest_plugins = ["download_fixtures", "install_fixtures"]

FREE = index.Licence("CC0-1.0", "https://creativecommons.org/publicdomain/zero/1.0/", True, "")
NOT_FREE = index.Licence("CC-BY-NC-4.0", "https://creativecommons.org/licenses/by-nc/4.0/", False, "A department")
STRICTER = replace(NOT_FREE, name="Own", attribution="Ask us first")


@pytest.fixture(scope="module")
def restricted(tmp_path_factory):
    """A model whose own licence forbids commercial use."""
    return packed(tmp_path_factory.mktemp("restricted") / "model", licence=said(NOT_FREE))


def said(licence: index.Licence) -> dict:
    return {key: value for key, value in asdict(licence).items() if value != "" or key == "attribution"}


@pytest.fixture
def shelf(restricted, own_network):
    with running(FaultyServer(restricted.read_bytes())) as server:
        yield server


def asked(work, *arguments, **options) -> Question:
    with pytest.raises(ConsentNeeded) as caught:
        work(*arguments, **options)
    return caught.value.question


# The licence


def test_a_licence_is_asked_about_before_the_first_byte_and_remembered_once_the_model_is_there(shelf, restricted):
    entry = entry_for(restricted, shelf.url(), licence=NOT_FREE)
    question = asked(install.install, entry)
    assert question == install.question_of_entry(entry)
    assert (question.licence, question.sha256) == (NOT_FREE, entry.file.sha256)
    assert not shelf.requests
    assert settings.read().accepted_licences == ()
    install.install(entry, consent=question)
    assert_installed(restricted)
    cache.remove(cache.installed()[0])
    install.install(entry)
    assert_installed(restricted)


def test_a_licence_that_only_the_file_tells_is_asked_about_before_it_is_installed(shelf, restricted):
    entry = entry_for(restricted, shelf.url(), licence=FREE)
    assert install.question_of_entry(entry) is None
    question = asked(install.install, entry)
    assert (question.licence, question.offered_licence) == (NOT_FREE, "CC0-1.0")
    assert "the index says CC0-1.0" in question.text()
    assert cache.installed() == []
    install.install(entry, consent=question)
    assert_installed(restricted)
    assert len(shelf.requests) == 1, "what is here is not downloaded again"


def test_a_file_with_other_terms_than_the_index_asks_a_second_time_and_then_no_more(shelf, restricted):
    entry = entry_for(restricted, shelf.url(), licence=STRICTER)
    first = asked(install.install, entry)
    assert first.licence == STRICTER
    second = asked(install.install, entry, consent=first)
    assert (second.licence, second.offered_licence) == (NOT_FREE, "Own")
    install.install(entry, consent=second)
    assert_installed(restricted)
    assert settings.read().accepts(second)
    assert not settings.read().accepts(first), "only what was installed was accepted"


def test_a_licence_of_the_index_that_the_file_does_not_have_is_not_remembered(model_server, file):
    entry = entry_for(file, model_server.url(), licence=NOT_FREE)
    install.install(entry, consent=install.question_of_entry(entry))
    assert_installed(file)
    assert settings.read().accepted_licences == ()


def test_what_was_accepted_before_stays_accepted(restricted):
    """The settings of older versions, which knew four texts of a licence."""
    terms = json.dumps(
        {key: asdict(NOT_FREE)[key] for key in ("name", "url", "commercial_use", "attribution")}, sort_keys=True
    )
    key = f"{NAME} {NOT_FREE.name} {hashlib.sha256(terms.encode()).hexdigest()[:16]}"
    settings.write(settings.Settings(accepted_licences=(key,)))
    assert install.question_of_file(restricted) is None


@pytest.mark.parametrize("change", ["another file", "another licence", "another version", "another model"])
def test_consent_is_for_what_was_shown(change, shelf, restricted):
    entry = entry_for(restricted, shelf.url(), licence=NOT_FREE)
    shown = install.question_of_entry(entry)
    shown = {
        "another file": replace(shown, sha256="0" * 64),
        "another licence": replace(shown, licence=STRICTER),
        "another version": replace(shown, version="0.0.1"),
        "another model": replace(shown, name="liver-ct"),
    }[change]
    asked(install.install, entry, consent=shown)
    assert not shelf.requests


def test_an_import_asks_by_the_licence_of_the_file_and_once(restricted, file):
    question = asked(install.install_file, restricted)
    assert question.licence == NOT_FREE
    assert cache.installed() == []
    assert [path for path in cache.parts().iterdir() if path.suffix != ".lock"] == []
    install.install_file(restricted, consent=question)
    assert install.question_of_file(restricted) is None
    install.install_file(restricted)
    cache.remove(cache.installed()[0])
    install.install_file(restricted)
    assert install.question_of_file(file) is not None, "it would replace another model"
    cache.remove(cache.installed()[0])
    assert install.question_of_file(file) is None


def test_a_question_comes_back_whole_from_another_process(restricted, file):
    install.install_file(file)
    question = install.question_of_file(restricted)
    assert question.licence
    assert question.replaces
    assert Question.from_dict(json.loads(json.dumps(asdict(question)))) == question


def test_a_file_that_changes_after_the_question_is_asked_about_again(restricted, tmp_path):
    copy = tmp_path / "model.usema"
    copy.write_bytes(restricted.read_bytes())
    question = install.question_of_file(copy)
    copy.write_bytes(packed(tmp_path / "other", seed=3, licence=said(NOT_FREE)).read_bytes())
    assert asked(install.install_file, copy, consent=question).sha256 != question.sha256
    assert cache.installed() == []


def test_an_acceptance_that_cannot_be_kept_does_not_undo_an_installation(restricted, monkeypatch):
    monkeypatch.setattr(settings, "_LOCK_SECONDS", 0.1)
    question = install.question_of_file(restricted)
    with filelock.FileLock(f"{settings.file()}.lock"):
        install.install_file(restricted, consent=question)
    assert_installed(restricted)
    assert not settings.read().accepts(question)


# Replacing


def test_the_same_version_with_other_weights_replaces_what_is_there_when_that_was_agreed_to(file, tmp_path):
    install.install_file(file)
    other = packed(tmp_path / "other", seed=1)
    hashes = [read_bundle(one).metadata.weights["sha256"] for one in (file, other)]
    with pytest.raises(ConsentNeeded) as asked:
        install.install_file(other)
    question = asked.value.question
    assert [question.replaces.here, question.replaces.coming] == hashes
    assert all(sha256 in asked.value.message for sha256 in hashes)
    assert_installed(file)
    assert install.question_of_file(other) == question
    third = packed(tmp_path / "third", seed=2)
    with pytest.raises(ConsentNeeded):
        install.install_file(third, consent=question)  # that was about another one
    install.install_file(other, consent=question)
    assert_installed(other)
    assert install.question_of_file(other) is None


def test_what_would_be_replaced_is_what_was_shown(file, tmp_path):
    coming, another = packed(tmp_path / "coming", seed=1), packed(tmp_path / "another", seed=2)
    install.install_file(file)
    question = install.question_of_file(coming)
    install.install_file(another, consent=install.question_of_file(another))  # while the question stands on the screen
    again = asked(install.install_file, coming, consent=question)
    assert again.replaces.here == read_bundle(another).metadata.weights["sha256"]
    assert_installed(another)


def test_what_was_changed_here_is_not_replaced_by_a_download_without_a_word(model_server, file):
    published = read_bundle(file).metadata_sha256
    described = entry_for(file, model_server.url())
    entry = replace(described, file=replace(described.file, metadata_sha256=published))
    here = install.install(entry)
    assert install.question_of_entry(entry) is None
    changed = change_metadata(here, inference={"mirror_axes": [], "temperature": 1.5})
    question = asked(install.install, entry)
    assert (question.replaces.here, question.replaces.coming) == (changed.metadata_sha256, published)
    assert install.install(described).metadata == changed.metadata, "an older index does not say, and it is here"
    install.install(entry, consent=question)
    assert_installed(file)


def test_another_model_under_the_name_and_version_of_the_bundled_one_is_asked_about(tmp_path):
    bundled = read_bundle(bundled_models()["hippocampus-mr"])
    other = packed(tmp_path / "other", version=bundled.metadata.version)
    question = asked(install.install_file, other)
    assert question.replaces.here == bundled.metadata.weights["sha256"]
    assert cache.installed() == []
    assert install.question_of_file(archive.pack(bundled.path, tmp_path / "same.usema")) is None


def test_a_damaged_model_is_replaced_without_a_question(file, tmp_path):
    path = install.install_file(file).path
    (path / "weights.safetensors").write_bytes(b"half")
    other = packed(tmp_path / "other", seed=1)
    install.install_file(other)
    assert_installed(other)


# What the index says of model.json


@pytest.mark.fault
def test_a_file_with_another_model_json_than_the_index_says_is_refused(model_server, file):
    entry = entry_for(file, model_server.url())
    wrong = replace(entry, file=replace(entry.file, metadata_sha256="0" * 64))
    with pytest.raises(BundleError, match=r"another model\.json than the index says: its SHA-256 is"):
        install.install(wrong)
    assert cache.installed() == []


@pytest.mark.fault
def test_an_older_model_under_a_newer_number_takes_no_place(model_server, file, tmp_path):
    """A mirror or index that wants old weights back says that they are new."""
    install.install_file(packed(tmp_path / "new", version="2.0.0", seed=2))
    with pytest.raises(BundleError, match=rf"The file for {NAME} 3\.0\.0 holds {NAME} {VERSION}"):
        install.install(entry_for(file, model_server.url(), version="3.0.0"))
    assert cache.installed_versions(NAME) == ["2.0.0"]


# Folders


def test_a_folder_is_imported_like_its_file_and_stays(file, tmp_path):
    folder = tmp_path / "model"
    archive.unpack(file, folder)
    (folder / "README.md").write_text("Mine.")
    (folder / "diary.txt").write_text("Not for others.")
    secret = tmp_path / "secret"
    secret.write_text("Not in here.")
    (folder / "LICENSE").symlink_to(secret)
    before = sorted(path.name for path in folder.iterdir())
    bundle = install.install_file(folder)
    assert_installed(file)
    assert sorted(path.name for path in bundle.path.iterdir()) == ["README.md", "model.json", "weights.safetensors"]
    assert sorted(path.name for path in folder.iterdir()) == before


@pytest.mark.fault
def test_a_folder_with_altered_weights_is_not_imported(file, tmp_path):
    folder = tmp_path / "model"
    archive.unpack(file, folder)
    data = bytearray((folder / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "weights.safetensors").write_bytes(data)
    with pytest.raises(BundleError, match="was altered: its SHA-256 is"):
        install.install_file(folder)
    assert cache.installed() == []
