"""What the panel and scripts inside 3D Slicer are asked before a model is installed, and that it goes through."""

from __future__ import annotations

import pytest
from bundles import write_tiny_bundle
from model_shop import LICENCE, impatient_worker, open_shop
from usema.errors import UsemaError
from usema.models.bundle import read_bundle
from usema.models.bundle_writing import change_metadata
from usema.store import archive, cache, indexes
from usema.store.library import AVAILABLE, INSTALLED

pytest_plugins = ["slicer_fixtures"]


@pytest.fixture
def shop(tmp_path):
    with open_shop(tmp_path / "shop") as shop:
        yield shop


@pytest.fixture
def store(host):
    from USEMASegmentationLib.ModelStore import ModelStore  # not before the application is there

    store = ModelStore(impatient_worker())
    yield store
    store.shutdown()


def test_the_terms_that_were_shown_are_those_that_are_agreed_to(shop, store):
    shop.offer("tiny", licence=LICENCE)
    indexes.refresh()
    question = store.questionOf(store.find("tiny").entry)
    assert question.licence.name == LICENCE["name"]
    shop.offer("tiny", "1.1.0", licence={**LICENCE, "name": "Stricter"})
    indexes.refresh()  # somewhere else, while the question stood on the screen
    before = len(shop.requests)
    store.download("tiny", consent=question)
    with pytest.raises(UsemaError, match="Stricter"):
        store.finish()
    assert store.status.code == "consent"
    assert store.find("tiny").state == AVAILABLE
    assert len(shop.requests) == before
    store.download("tiny", consent=store.status.question)
    store.finish()
    assert (store.find("tiny").state, store.find("tiny").version) == (INSTALLED, "1.1.0")


@pytest.mark.parametrize("change", ["another version", "another file"])
def test_what_is_no_longer_offered_as_it_was_seen_is_not_downloaded(change, shop, store):
    shop.offer("tiny")
    indexes.refresh()
    shown = store.find("tiny").entry
    assert store.questionOf(shown) is None
    if change == "another version":
        shop.offer("tiny", "2.0.0", licence=LICENCE)
    else:
        shop.damage("tiny")
    indexes.refresh()  # somewhere else
    before = len(shop.requests)
    store.download("tiny", shown=shown)
    with pytest.raises(UsemaError, match="no longer offered as you saw it"):
        store.finish()
    assert store.find("tiny").state == AVAILABLE
    assert len(shop.requests) == before


def test_an_import_tells_what_to_ask_and_goes_on_with_the_answer(store, tmp_path):
    bundle = write_tiny_bundle(tmp_path / "tiny", name="tiny", licence=LICENCE)
    file = archive.pack(bundle.path, tmp_path / "tiny.usema")
    store.importFile(str(file))
    with pytest.raises(UsemaError, match=LICENCE["name"]):
        store.finish()
    question = store.status.question
    assert question == store.questionOfFile(str(file))
    store.importFile(str(file), question)
    store.finish()
    assert store.status.question is None
    assert store.questionOfFile(str(bundle.path)) is None, "the folder of the same model"
    other = change_metadata(bundle, limits="Others.")
    again = store.questionOfFile(str(other.path))
    assert again.licence is None
    assert again.replaces.coming == other.metadata_sha256
    store.importFile(str(other.path), again)
    store.finish()
    assert read_bundle(cache.place("tiny", "1.2.0")).metadata == other.metadata


def test_a_script_that_accepts_licences_does_not_thereby_replace_what_is_here(shop, store):
    shop.offer("tiny", licence=LICENCE)
    indexes.refresh()
    store.download("tiny", acceptLicence=True)
    store.finish()
    here = change_metadata(read_bundle(cache.place("tiny", "1.0.0")), limits="Measured here.")
    store.download("tiny", acceptLicence=True)
    with pytest.raises(UsemaError, match="would be replaced"):
        store.finish()
    assert read_bundle(here.path).metadata == here.metadata
    store.download("tiny", consent=store.status.question)
    store.finish()
    assert read_bundle(here.path).metadata != here.metadata
