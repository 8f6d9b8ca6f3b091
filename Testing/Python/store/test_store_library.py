"""All models that this computer knows, and which one a name means. Nothing here uses a network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import filelock
import our_models
import pytest
import trustme
from bundles import write_tiny_bundle
from usema.errors import BundleError, InputError, OutputError, StoreError
from usema.models.bundle import read_bundle
from usema.store import cache, indexes, library, publish, settings
from usema.store.install import install_file
from usema.store.library import AVAILABLE, BUNDLED, INSTALLED, UPDATE, find_model


def state(name: str) -> str:
    return library.library().get(name).state


# States


def test_a_fresh_computer_knows_the_bundled_model_and_what_our_index_offers():
    known = library.library()
    assert [(model.name, model.state) for model in known.models] == our_models.STATES
    bundled = known.get("hippocampus-mr")
    assert (bundled.name, bundled.state, bundled.source) == ("hippocampus-mr", BUNDLED, "USEMA")
    assert bundled.entry.version == bundled.version
    assert all(known.get(name).path is None for name in our_models.WAITING)
    assert known.problems == ()


def test_a_model_goes_from_available_to_installed_to_update(offer, install, bundles, tmp_path):
    place = offer("Radiology", ("liver-ct", "1.0.0"))
    model = library.library().get("liver-ct")
    assert (model.state, model.path, model.version, model.source) == (AVAILABLE, None, "1.0.0", "Radiology")
    assert [label.name for label in model.labels] == ["Anterior hippocampus", "Posterior hippocampus"]
    assert model.size == Path(model.entry.file.urls[0]).stat().st_size
    path = install("liver-ct", "1.0.0")
    model = library.library().get("liver-ct")
    assert (model.state, model.path, model.size) == (INSTALLED, path, cache.size_of(path))
    publish.publish(read_bundle(bundles("liver-ct", "1.1.0")), tmp_path / "Radiology")
    assert state("liver-ct") == INSTALLED, "indexes are fetched when the user asks"
    indexes.fetch(place)
    model = library.library().get("liver-ct")
    assert (model.state, model.version, model.entry.version) == (UPDATE, "1.0.0", "1.1.0")
    assert find_model("liver-ct") == path
    install("liver-ct", "1.1.0")
    assert (state("liver-ct"), find_model("liver-ct").name) == (INSTALLED, "1.1.0")


def test_what_no_index_knows_is_still_listed(bundles):
    install_file(bundles("mine"))
    model = library.library().get("mine")
    assert (model.state, model.source, model.entry) == (INSTALLED, "file", None)


def test_a_newer_version_of_the_bundled_model_is_used_and_an_older_one_is_not(install):
    bundled = find_model("hippocampus-mr")
    install("hippocampus-mr", "0.0.9")
    assert find_model("hippocampus-mr") == bundled
    newer = install("hippocampus-mr", "9.0.0")
    assert find_model("hippocampus-mr") == newer
    assert state("hippocampus-mr") == INSTALLED


def test_versions_are_not_compared_as_text(install):
    for version in ("0.9.0", "0.10.0-rc.1", "0.10.0"):
        install("liver-ct", version)
    assert cache.installed_versions("liver-ct") == ["0.10.0", "0.10.0-rc.1", "0.9.0"]


def test_a_damaged_model_is_listed_with_the_reason_and_can_be_removed(install):
    path = install("liver-ct")
    (path / "weights.safetensors").write_bytes(b"half")
    model = library.library().get("liver-ct")
    assert model.bundle is None
    assert "truncated: 4 bytes of" in model.problem
    cache.remove(cache.installed()[0])
    assert library.library().get("liver-ct") is None


def test_a_model_for_a_newer_engine_is_listed_with_the_reason(offer):
    offer("Radiology", ("liver-ct", "1.0.0"), minimum_engine="99.0.0")
    model = library.library().get("liver-ct")
    assert model.state == AVAILABLE
    assert "needs USEMA 99.0.0" in model.why_not
    with pytest.raises(BundleError, match="needs USEMA"):
        find_model("liver-ct")


# Names


def test_a_name_means_the_model_of_the_first_index_and_the_others_are_shown(offer):
    offer("Radiology", ("liver-ct", "1.0.0"), ("hippocampus-mr", "9.0.0"))
    offer("Surgery", ("liver-ct", "2.0.0"))
    liver = library.library().get("liver-ct")
    assert (liver.source, liver.version) == ("Radiology", "1.0.0"), "not the higher version of somebody else's"
    assert [(entry.source, entry.version) for entry in liver.others] == [("Surgery", "2.0.0")]
    ours = library.library().get("hippocampus-mr")
    assert (ours.state, ours.entry.source, ours.entry.version) == (UPDATE, "Radiology", "9.0.0")
    assert [entry.source for entry in ours.others] == ["USEMA models"]


def test_a_path_does_as_well_as_a_name(bundles, install, tmp_path, monkeypatch):
    path = bundles("liver-ct")
    assert find_model(path) == path
    install("liver-ct")
    monkeypatch.chdir(path.parent)
    assert find_model(f"./{path.name}") == Path(path.name)
    folder = cache.folder() / "liver-ct"
    assert find_model(folder) == folder, "a path is not taken for a name"


def test_a_name_that_is_also_a_folder_with_another_model_is_not_guessed_at(bundles, install, tmp_path, monkeypatch):
    here = install("liver-ct", "1.0.0")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(bundles("liver-ct", "1.0.0"), tmp_path / "liver-ct")
    assert find_model("liver-ct") == here, "the same model: no question which"
    shutil.rmtree(tmp_path / "liver-ct")
    shutil.copytree(bundles("liver-ct", "1.1.0"), tmp_path / "liver-ct")
    with pytest.raises(BundleError, match=r"a model that is here, and a folder with another one") as error:
        find_model("liver-ct")
    assert os.path.join(".", "liver-ct") in error.value.hint
    assert str(here) in error.value.hint
    assert read_bundle(find_model("./liver-ct")).metadata.version == "1.1.0"
    assert find_model(here) == here


def test_a_model_that_is_not_here_is_said_with_what_to_do(offer):
    with pytest.raises(BundleError, match=r"no model 'liver-ct'. Known models: hippocampus-mr\."):
        find_model("liver-ct")
    offer("Radiology", ("liver-ct", "1.0.0"))
    with pytest.raises(BundleError, match=r"'liver-ct' is not on this computer yet. `usema models download liver-ct`"):
        find_model("liver-ct")
    with pytest.raises(BundleError, match=r"No index offers a model 'lungs'\. On offer: .*hippocampus-mr, liver-ct"):
        library.find_entry("lungs")


# Indexes


def test_listing_needs_neither_the_index_nor_its_folder(offer, tmp_path):
    offer("Radiology", ("liver-ct", "1.0.0"))
    shutil.rmtree(tmp_path / "Radiology")
    assert state("liver-ct") == AVAILABLE
    assert library.library().problems == ()
    (problem,) = indexes.refresh()
    assert str(tmp_path / "Radiology/models.json") in problem
    assert state("liver-ct") == AVAILABLE


@pytest.mark.parametrize("content", ["{", '{"schema_version": 1}', '{"schema_version": 2}', " " * (5 * 2**20)])
def test_a_broken_index_leaves_the_last_good_copy_in_use(offer, tmp_path, content):
    offer("Radiology", ("liver-ct", "1.0.0"))
    offer("Surgery", ("spleen-ct", "1.0.0"))
    (tmp_path / "Radiology/models.json").write_text(content)
    (problem,) = indexes.refresh()
    assert str(tmp_path / "Radiology/models.json") in problem
    assert state("liver-ct") == AVAILABLE
    assert state("spleen-ct") == AVAILABLE


def test_the_age_of_a_copy_is_told(offer):
    place = offer("Radiology", ("liver-ct", "1.0.0"))
    source = indexes.sources()[0]
    assert (source.title, source.age) == ("Radiology", "fresh")
    (copy,) = (cache.folder() / ".indexes").iterdir()
    os.utime(copy, (source.fetched - 3 * 86400 - 60,) * 2)
    assert indexes.sources()[0].age == "3 days old"
    indexes.forget(place)
    assert indexes.sources()[0].age == "never fetched"
    assert "was never fetched" in library.library().problems[0]
    assert indexes.sources()[1].age == "came with USEMA"


def test_a_damaged_copy_is_said_and_hides_no_other_index(offer):
    offer("Radiology", ("liver-ct", "1.0.0"))
    (copy,) = (cache.folder() / ".indexes").iterdir()
    copy.write_text("{")
    known = library.library()
    assert "not valid JSON" in known.problems[0]
    assert known.get("hippocampus-mr").state == BUNDLED


# Settings


def test_settings_are_kept(empty_store, tmp_path):
    assert settings.read() == settings.Settings()
    first = settings.add_index("https://a.org/models")
    second = settings.add_index(str(tmp_path))
    with pytest.raises(InputError, match="is there already"):
        settings.add_index("https://a.org/models/models.json")
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    settings.trust(tmp_path / "ca.pem")
    assert settings.read() == settings.Settings((first, second), str(tmp_path / "ca.pem"))
    settings.remove_index("https://a.org/models/")
    settings.trust("")
    assert settings.read() == settings.Settings((second,))
    with pytest.raises(InputError, match=r"There is no index https://a.org/models/models\.json"):
        settings.remove_index("https://a.org/models")
    with pytest.raises(InputError, match=r"There is no file .*nowhere\.pem"):
        settings.trust(tmp_path / "nowhere.pem")
    (tmp_path / "junk.pem").write_text("not a certificate")
    with pytest.raises(StoreError, match=r"junk\.pem holds no certificates"):
        settings.trust(tmp_path / "junk.pem")
    assert settings.read().ca_bundle == ""
    assert sorted(path.name for path in empty_store.iterdir()) == ["settings.json", "settings.json.lock"]


def test_indexes_added_at_the_same_time_are_all_kept(empty_store):
    places = [str(empty_store / f"{number}/models.json") for number in range(12)]
    threads = [threading.Thread(target=settings.add_index, args=(place,)) for place in places]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(settings.read().indexes) == sorted(places)


@pytest.mark.parametrize("content", ["{", "[]", '{"indexes": "a"}', '{"ca_bundle": 1}'])
def test_broken_settings_are_said_and_hide_no_model(empty_store, content):
    (empty_store / "settings.json").write_text(content)
    with pytest.raises(InputError, match=r"settings\.json"):
        settings.read()
    known = library.library()
    assert "settings.json" in known.problems[0]
    assert known.get("hippocampus-mr").state == BUNDLED


def test_a_licence_is_accepted_once_for_all_versions_until_it_changes(bundles, tmp_path):
    def offered(version: str, **licence):
        terms = {"name": "Own", "url": "https://a.org", "commercial_use": False, "attribution": "", **licence}
        bundle = write_tiny_bundle(tmp_path / f"{version}{len(licence)}", version=version, licence=terms)
        document = publish.publish(bundle, tmp_path / f"share{version}{len(licence)}")
        content = {"schema_version": 1, "title": "T", "models": [document]}
        return indexes.parse(json.dumps(content).encode(), "/a/models.json").entries[0]

    first = offered("1.0.0")
    assert not settings.read().accepts(first)
    settings.accept(first)
    assert settings.read().accepts(first)
    assert settings.read().accepts(offered("1.1.0"))
    assert not settings.read().accepts(offered("1.2.0", attribution="Somebody"))
    assert settings.read().accepts(offered("1.3.0", commercial_use=True))


def test_settings_that_cannot_be_written_are_said(empty_store):
    (empty_store / "settings.json").mkdir()
    with pytest.raises((InputError, OutputError), match=r"settings\.json"):
        settings.add_index("https://a.org")


# The cache


def test_left_parts_are_listed_and_locks_are_not():
    cache.parts().mkdir(parents=True)
    (cache.parts() / "a.usema.part").write_bytes(b"12345")
    (cache.parts() / "a.lock").touch()
    ((part, size),) = cache.left_parts()
    assert (part.name, size) == ("a.usema.part", 5)
    cache.remove_parts([part])
    assert cache.left_parts() == []
    assert cache.installed() == []


def test_what_a_download_under_way_has_is_not_deleted():
    cache.parts().mkdir(parents=True)
    part = cache.parts() / "a.usema.part"
    part.write_bytes(b"12345")
    with filelock.FileLock(cache.parts() / "liver-ct-1.0.0.lock"):
        with pytest.raises(OutputError, match=r"liver-ct-1\.0\.0 is being installed"):
            cache.remove_parts([part])
        assert part.exists()
    cache.remove_parts([part])
    assert not part.exists()


def test_a_model_that_cannot_be_moved_is_not_half_removed(install, monkeypatch):
    path = install("liver-ct")
    before = sorted(file.name for file in path.iterdir())
    cache.parts().parent.mkdir(exist_ok=True)
    cache.parts().touch()  # so nothing can be moved into it
    with pytest.raises(OutputError, match="cannot be deleted"):
        cache.remove(cache.installed()[0])
    assert sorted(file.name for file in path.iterdir()) == before


def test_a_deletion_that_stops_half_way_leaves_no_half_model(install, monkeypatch):
    path = install("liver-ct")

    def stopping(folder):  # as where a program on Windows has one of the files open
        next(Path(folder).iterdir()).unlink()
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cache.shutil, "rmtree", stopping)
    with pytest.raises(OutputError, match="cannot be deleted"):
        cache.remove(cache.installed()[0])
    assert not path.exists()
    assert cache.installed() == []


def test_where_nothing_is_installed_the_panel_knows_our_models(root):
    """No platformdirs, no requests: no error, and no models but ours."""
    program = (
        "import importlib.util, sys; sys.path.insert(0, sys.argv[1])\n"
        "assert not any(importlib.util.find_spec(name) for name in ('platformdirs', 'requests', 'filelock'))\n"
        "from usema.store import cache, library, settings\n"
        "from usema.errors import MissingDependencyError\n"
        "known = library.library()\n"
        "print([(model.name, model.state) for model in known.models], known.problems, cache.left_parts())\n"
        "for call in (cache.folder, settings.file):\n"
        "    try: call()\n"
        "    except MissingDependencyError as error: print(error.hint)\n"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("USEMA_")}
    command = [sys.executable, "-S", "-E", "-c", program, root / "USEMASegmentation"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    first, *hints = run.stdout.splitlines()
    assert first == f"{our_models.STATES} () []", run.stderr
    assert [hint.split()[-1] for hint in hints] == ["USEMA_MODELS.", "USEMA_SETTINGS."]


def test_without_the_environment_the_cache_is_the_users_own_folder(monkeypatch, root):
    for name in (cache.ENVIRONMENT_VARIABLE, settings.ENVIRONMENT_VARIABLE):
        monkeypatch.delenv(name)
    assert cache.folder().name == "Models"
    assert cache.folder().parent.name == settings.file().parent.name == "USEMA"
    for path in (cache.folder(), settings.file()):
        assert path.is_absolute()
        assert not path.is_relative_to(root)
