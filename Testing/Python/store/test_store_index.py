"""An index says what can be downloaded: what is valid is read, what is broken is refused, what is published is both."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import jsonschema
import pytest
import usema
from bundles import write_tiny_bundle
from html_page import Page
from index_cases import ENTRY, document, parsed
from usema.errors import BundleError, InputError, OutputError
from usema.models.bundle import read_bundle
from usema.resources import bundled_models, resources_folder
from usema.store import archive, index, publish, versions
from usema.store.page import render

# Reading


def test_an_entry_says_what_the_index_says():
    found = parsed(document()).entries[0]
    said = asdict(found)
    assert said["labels"] == ({"name": "Liver", "color": (221, 130, 101)},)
    assert found.licence.commercial_use is False
    assert found.source == "A department"
    for key in ("name", "title", "description", "version", "modality", "anatomy", "citation", "metrics"):
        assert said[key] == ENTRY[key]


@pytest.mark.parametrize(
    ("place", "url", "expected"),
    [
        ("https://a.org/m/models.json", "x.usema", "https://a.org/m/x.usema"),
        ("https://a.org/m/models.json", "v1/x.usema", "https://a.org/m/v1/x.usema"),
        ("https://a.org/m/models.json", "/x.usema", "https://a.org/x.usema"),
        ("https://a.org/m/models.json", "http://b.org/x.usema", "http://b.org/x.usema"),
        ("/mnt/models/models.json", "x.usema", "/mnt/models/x.usema"),
        ("/mnt/models/models.json", "with%20space.usema", "/mnt/models/with space.usema"),
        ("//server/share/models.json", "v1/x.usema", "//server/share/v1/x.usema"),
        ("/mnt/models/models.json", "https://b.org/x.usema", "https://b.org/x.usema"),
    ],
)
def test_addresses_are_relative_to_the_index(place, url, expected):
    file = {**ENTRY["file"], "urls": [url]}
    found = parsed(document(file=file, picture=url), place).entries[0]
    assert found.file.urls == (expected,)
    assert found.picture == expected


BROKEN = {
    "not JSON": (b'{"title": ', "not valid JSON"),
    "not UTF-8": (b"\xff\xfe", "not valid JSON"),
    "not a number": (b'{"title": NaN}', "NaN is not JSON"),
    "too deep": (b"[" * 10**6, "not valid JSON"),
    "a list": ([], "is \\[\\], which is no object"),
    "a newer schema": ({**document(), "schema_version": 4}, "made for a newer USEMA"),
    "no models": ({"schema_version": 1, "title": "a"}, "has no 'models'"),
    "a slip of the pen": (document(licence_url="x"), r"models\[0\].licence_url is not a known key"),
    "a name that is a path": (document(name="../../etc"), r'name is "../../etc", not of the form'),
    "a version that is a path": (document(version="1.0.0-/../x"), "version is"),
    "a bad hash": (document(file={**ENTRY["file"], "sha256": "0" * 63}), "sha256 is"),
    "no address": (document(file={**ENTRY["file"], "urls": []}), "urls is"),
    "a name twice": (
        {**document(), "models": [ENTRY, ENTRY]},
        r"models\[1\].name is 'liver-ct', as models\[0\].name is",
    ),
    "a local file": (document(file={**ENTRY["file"], "urls": ["file:///etc/passwd"]}), "names file:///etc/passwd"),
    "a script": (document(picture="javascript:alert(1)"), "names javascript:alert"),
    "no address at all": (document(picture="http://[a.org/x.png"), r"names http://\[a.org"),
    "too large": (b" " * (index.MAX_INDEX_BYTES + 1), f"more than {index.MAX_INDEX_BYTES} bytes"),
}


@pytest.mark.parametrize("place", ["https://a.org/models.json", "/mnt/models.json"])
@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_index_is_refused_with_the_reason(what, place):
    content, message = BROKEN[what]
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    with pytest.raises(InputError, match=message) as error:
        index.parse(data, place)
    assert place in error.value.message


@pytest.mark.parametrize(
    "content", [document(), *(content for content, _ in BROKEN.values() if isinstance(content, (dict, list)))]
)
def test_the_schema_is_read_as_json_schema_means_it(content):
    valid = jsonschema.Draft202012Validator(index.SCHEMA).is_valid(content)
    assert valid == (not list(index.problems(content, index.SCHEMA)))


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ("https://a.org/models", "https://a.org/models/models.json"),
        ("https://a.org/models/", "https://a.org/models/models.json"),
        ("https://a.org/ours.json", "https://a.org/ours.json"),
        ("HTTPS://a.org/ours.json", "https://a.org/ours.json"),
        ("https://a.org", "https://a.org/models.json"),
        ("https://a.org/models?key=1#top", "https://a.org/models/models.json?key=1"),
        ("/mnt/share", "/mnt/share/models.json"),
        ("/mnt/share/models.json", "/mnt/share/models.json"),
        ("//server/share", "//server/share/models.json"),
        ("file:///mnt/with%20space", "/mnt/with space/models.json"),
        ("file://server/share", "//server/share/models.json"),
    ],
)
def test_a_place_has_one_spelling(given, place):
    assert index.full_place(given) == place
    assert index.full_place(place) == place


def test_a_relative_path_is_one_of_this_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert index.full_place("share") == str(tmp_path / "share" / "models.json")


@pytest.mark.parametrize(
    "place", ["ftp://me:secret@a.org/models.json", "https://me:secret@a.org/models.json", "https://me:secret@[a.org"]
)
def test_a_place_that_will_not_do_is_refused_without_showing_a_password(place):
    with pytest.raises(InputError) as error:
        index.full_place(place)
    assert "secret" not in str(error.value)


def test_versions_are_ordered_as_semver_says():
    ordered = ["", "nonsense", "0.9.0", "0.10.0-alpha", "0.10.0-rc.2", "0.10.0-rc.10", "0.10.0", "1.0.0-1", "1.0.0-a"]
    assert sorted(reversed(ordered), key=versions.key)[2:] == ordered[2:]
    assert versions.newer("1.10.0", "1.9.9")
    assert not versions.newer("1.0.0", "1.0.0")


def test_a_model_for_a_newer_engine_says_so():
    assert parsed(document(minimum_engine=usema.__version__)).entries[0].why_not == ""
    assert "needs USEMA 99.0.0" in parsed(document(minimum_engine="99.0.0")).entries[0].why_not


# Publishing


def test_what_is_published_is_read_and_has_its_size_and_hash(tmp_path):
    bundle = write_tiny_bundle(tmp_path / "b", name="brain-mr")
    publish.publish(bundle, tmp_path / "share", picture=resources_folder().parent / "Resources/Icons/USEMA.png")
    found = index.parse((tmp_path / "share/models.json").read_bytes(), str(tmp_path / "share/models.json")).entries[0]
    file = Path(found.file.urls[0])
    assert (file.parent, file.name) == (tmp_path / "share", "brain-mr-1.2.0.usema")
    assert file.stat().st_size == found.file.size
    assert hashlib.sha256(file.read_bytes()).hexdigest() == found.file.sha256
    assert read_bundle(file).metadata == bundle.metadata
    assert Path(found.picture).read_bytes().startswith(b"\x89PNG")
    assert found.minimum_engine == usema.__version__
    files = {path.name for path in (tmp_path / "share").iterdir()}
    assert files == {"brain-mr-1.2.0.usema", "brain-mr-1.2.0.png", "models.json", "models.html"}


def test_a_page_that_is_no_indexs_is_not_replaced(tmp_path):
    page = tmp_path / "share/models.html"
    page.parent.mkdir()
    page.write_text("the department's own")
    with pytest.raises(OutputError, match=r"models\.html exists already"):
        publish.publish(write_tiny_bundle(tmp_path / "b"), page.parent)
    assert page.read_text() == "the department's own"
    assert [path.name for path in page.parent.iterdir()] == ["models.html"]


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are Unicode there")
def test_a_folder_whose_name_is_no_unicode_gives_its_index_a_title(tmp_path):
    share = tmp_path / os.fsdecode(b"share\xe9")
    publish.publish(write_tiny_bundle(tmp_path / "b"), share)
    assert json.loads((share / "models.json").read_text("utf-8"))["title"].startswith("Models of share")


def test_a_new_version_replaces_the_entry_and_leaves_the_others(tmp_path):
    share = tmp_path / "share"
    for name, version in (("b", "1.0.0"), ("a", "1.0.0"), ("b", "1.1.0")):
        publish.publish(write_tiny_bundle(tmp_path / f"{name}{version}", name=name, version=version), share, title="T")
    found = json.loads((share / "models.json").read_text())
    assert [(model["name"], model["version"]) for model in found["models"]] == [("a", "1.0.0"), ("b", "1.1.0")]
    assert found["title"] == "T"
    assert (share / "b-1.0.0.usema").is_file(), "who has an older copy of the index still finds it"


def test_a_published_version_never_changes(tmp_path):
    share = tmp_path / "share"
    bundle = write_tiny_bundle(tmp_path / "a", name="a")
    publish.publish(bundle, share)
    before = {path.name: path.read_bytes() for path in share.iterdir()}
    publish.publish(bundle, share)
    with pytest.raises(BundleError, match=r"a 1\.2\.0 is published .* with other contents.*higher version"):
        publish.publish(write_tiny_bundle(tmp_path / "b", name="a", limits="Others."), share)
    assert {path.name: path.read_bytes() for path in share.iterdir()} == before


def test_an_older_version_takes_no_newer_one_s_place(tmp_path):
    share = tmp_path / "share"
    publish.publish(write_tiny_bundle(tmp_path / "new", name="a", version="1.10.0"), share)
    before = {path.name: path.read_bytes() for path in share.iterdir()}
    with pytest.raises(BundleError, match=r"a 1\.10\.0 is published .* newer than 1\.9\.0.*higher version"):
        publish.publish(write_tiny_bundle(tmp_path / "old", name="a", version="1.9.0"), share)
    assert {path.name: path.read_bytes() for path in share.iterdir()} == before


def test_a_picture_of_any_name_is_found_again(tmp_path):
    share = tmp_path / "share"
    share.mkdir()
    picture = share / "100%41 #1 Überblick.png"
    picture.write_bytes(b"\x89PNG")
    entry = publish.publish(write_tiny_bundle(tmp_path / "a"), share, picture=picture)
    assert entry["picture"] == "100%2541%20%231%20%C3%9Cberblick.png"
    place = str(share / "models.json")
    assert index.parse((share / "models.json").read_bytes(), place).entries[0].picture == str(picture)


def test_nothing_is_published_into_a_folder_that_holds_something_else(tmp_path):
    bundle = write_tiny_bundle(tmp_path / "a")
    (tmp_path / "share").mkdir()
    (tmp_path / "share/models.json").write_text('{"my": "list"}')
    with pytest.raises(InputError, match="not valid"):
        publish.publish(bundle, tmp_path / "share")
    assert [path.name for path in (tmp_path / "share").iterdir()] == ["models.json"]
    with pytest.raises(OutputError, match="cannot be written"):
        publish.publish(bundle, tmp_path / "share/models.json/x")
    with pytest.raises(InputError, match="is no picture"):
        publish.publish(bundle, tmp_path / "other", picture=tmp_path / "a/model.json")
    with pytest.raises(InputError, match=r"minimum_engine is \"new\""):
        publish.publish(bundle, tmp_path / "other", minimum_engine="new")
    assert list((tmp_path / "other").iterdir()) == []


# USEMA's own index


@pytest.fixture(scope="module")
def ours() -> index.Index:
    place = str(resources_folder() / "models.json")
    return index.parse(index.read_bytes(place), place)


def test_our_index_lists_the_bundled_models_as_they_are(ours, tmp_path):
    expected = []
    for name, folder in bundled_models().items():
        entry = next(model for model in ours.document["models"] if model["name"] == name)
        file = archive.pack(folder, tmp_path / f"{name}.usema")
        size, sha256 = file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest()
        made = publish.entry_of(read_bundle(folder), entry["file"]["urls"], size, sha256, entry["minimum_engine"])
        expected.append({**made, "picture": entry["picture"]})
    listed = [model for model in ours.document["models"] if model["name"] in bundled_models()]
    assert listed == expected, "`usema models publish` into Resources, see README.md"
    assert not versions.newer(ours.entries[0].minimum_engine, usema.__version__)


def test_our_files_lie_with_the_repository(ours, root):
    home = re.search(r'EXTENSION_HOMEPAGE "([^"]+)"', (root / "CMakeLists.txt").read_text("utf-8"))[1]
    for entry in ours.entries:
        file = f"{entry.name}-{entry.version}"
        assert entry.file.urls[0] == f"{home}/releases/download/{file}/{file}.usema"
        assert Path(entry.picture).is_file()
    assert list((root / "Resources").glob("*.usema")) == [], "upload it to the release instead"


def test_our_page_is_that_of_our_index(ours, root):
    assert (root / "Resources/models.html").read_text("utf-8") == render(ours)


# The page


def test_the_page_shows_what_a_person_decides_by():
    page = Page(render(parsed(document(picture="liver.png"))))
    for word in ("Liver (CT)", "CC-BY-NC-4.0", "not for commercial use", "dice · liver", "0.95", "Somebody 2020"):
        assert word in page.text
    assert ("img", {"src": "liver.png", "alt": "Liver (CT): a result"}) in page.tags
    assert ("a", {"href": "liver-ct-1.0.0.usema"}) in page.tags
    assert ("i", {"style": "background:rgb(221,130,101)"}) in page.tags


def test_nothing_in_an_index_becomes_html():
    evil = '"><script>alert(1)</script>'
    changes = {key: evil for key in ("title", "description", "anatomy", "citation", "picture")}
    changes |= {"labels": [{"name": evil, "color": [0, 0, 0]}], "metrics": {evil: {evil: [evil]}}}
    changes["file"] = {**ENTRY["file"], "urls": [evil]}
    changes["licence"] = {"name": evil, "url": f"https://{evil}", "commercial_use": True, "attribution": evil}
    content = {**document(**changes), "title": evil}
    page = Page(render(parsed(content)))
    assert "script" not in [tag for tag, _ in page.tags]
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_the_page_can_be_made_where_nothing_is_installed(root):
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from usema.store import index, page\n"
        "print(len(page.render(index.parse(index.read_bytes(sys.argv[2]), sys.argv[2]))) > 1000)\n"
    )
    command = ["python3", "-S", "-E", "-c", program, root / "USEMASegmentation", root / "Resources/models.json"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert run.stdout == "True\n", run.stderr
