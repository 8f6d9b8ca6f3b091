"""Where a model that is here came from, whoever else offers one of its name. Nothing here uses a network."""

from __future__ import annotations

from usema.models.bundle import read_bundle
from usema.store import cache, indexes, library, publish, settings
from usema.store.install import install as download
from usema.store.install import install_file, question_of_entry, question_of_file
from usema.store.library import INSTALLED, UPDATE


def test_a_model_is_from_where_it_came_whoever_else_offers_its_name(offer, bundles, tmp_path):
    installed = install_file(
        bundles("hippocampus-mr", "9.0.0"), consent=question_of_file(bundles("hippocampus-mr", "9.0.0"))
    )
    model = library.library().get("hippocampus-mr")
    assert (model.state, model.version, model.source) == (INSTALLED, "9.0.0", cache.FILE)
    assert model.entry.source == "USEMA models"
    cache.remove(cache.installed()[0])
    assert library.library().get("hippocampus-mr").source == "USEMA"
    offer("Röntgen", ("hippocampus-mr", "9.0.0"))
    offered = library.library().get("hippocampus-mr")
    assert (offered.state, offered.source, offered.entry.source) == (UPDATE, "USEMA", "Röntgen"), "what is here"
    assert not installed.path.exists()


def test_a_downloaded_model_is_still_from_its_index_when_that_moves_on_or_is_removed(offer, bundles, tmp_path):
    place = offer("Röntgen", ("liver-ct", "1.0.0"))
    entry = library.find_entry("liver-ct")
    download(entry, consent=question_of_entry(entry))
    publish.publish(read_bundle(bundles("liver-ct", "1.1.0")), tmp_path / "Röntgen")
    indexes.fetch(place)
    model = library.library().get("liver-ct")
    assert (model.state, model.version, model.source) == (UPDATE, "1.0.0", "Röntgen")
    settings.remove_index(place)
    offer("Surgery", ("liver-ct", "1.0.0"))
    assert library.library().get("liver-ct").source == "Röntgen"


def test_where_the_source_was_not_kept_only_who_offers_that_very_version_is_named(offer, install):
    offer("Radiology", ("liver-ct", "1.1.0"))
    install("liver-ct", "1.0.0")
    assert library.library().get("liver-ct").source == "unknown"
    install("liver-ct", "1.1.0")
    assert library.library().get("liver-ct").source == "Radiology"
