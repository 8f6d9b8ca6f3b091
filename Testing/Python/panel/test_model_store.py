"""Models from a script inside 3D Slicer: downloaded, accepted, imported and deleted without a panel or a question."""

from __future__ import annotations

import time

import numpy as np
import pytest
from bundles import write_tiny_bundle
from model_shop import LICENCE, impatient_worker, open_shop
from slicer_cases import addVolume, children
from usema.errors import BundleError, Cancelled, InputError, StoreError, UsemaError
from usema.serving.client import WorkerClient
from usema.store import archive, cache, indexes
from usema.store.library import AVAILABLE, INSTALLED, UPDATE
from usema.store.publish import publish
from USEMASegmentationLib.Logic import USEMASegmentationLogic
from USEMASegmentationLib.ModelStore import ModelStore, StoreStatus
from USEMASegmentationLib.Parameters import Parameters

pytest_plugins = ["slicer_fixtures"]


@pytest.fixture
def shop(tmp_path):
    with open_shop(tmp_path / "shop") as shop:
        yield shop


@pytest.fixture
def logic(host, worker):
    logic, client = USEMASegmentationLogic(worker), impatient_worker()
    logic.store = ModelStore(client)
    yield logic
    logic.store.shutdown()
    assert not client.running


@pytest.fixture
def store(logic):
    return logic.store


@pytest.fixture
def volume(host):
    array = np.random.default_rng(0).integers(0, 1000, (24, 32, 24)).astype(np.int16)
    return addVolume(array, np.diag([-1.0, -1.0, 1.0, 1.0]), "Head")


def stateOf(store, name: str) -> str:
    return store.find(name).state


def pollUntilBytes(store) -> None:
    """Until something of the file is there."""
    deadline = time.monotonic() + 60
    while not store.poll().done:
        assert store.busy, store.status
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_model_that_is_not_here_is_refused_with_the_way_to_get_it_and_works_right_after(shop, logic, volume):
    shop.offer("tiny")
    indexes.refresh()
    with pytest.raises(BundleError, match=r"not on this computer yet.*downloadModel\('tiny'\)"):
        logic.segment(volume, "tiny")
    assert not logic.check(Parameters(inputVolume=volume, modelName="tiny")).ready
    assert "tiny" not in [bundle.metadata.name for bundle in logic.models()]
    assert logic.downloadModel("tiny").metadata.name == "tiny"
    assert logic.segment(volume, "tiny").GetAttribute("USEMA.model") == "tiny"
    assert "tiny" in [bundle.metadata.name for bundle in logic.models()]


def test_an_unknown_model_is_refused_before_anything_is_started(logic):
    with pytest.raises(BundleError, match="no model 'tiny' to download"):
        logic.downloadModel("tiny")
    assert logic.store.status == StoreStatus()


def test_a_licence_has_to_be_accepted_once_also_by_a_script(shop, logic):
    shop.offer("tiny", licence=LICENCE)
    indexes.refresh()
    before = len(shop.requests)
    with pytest.raises(InputError, match=r"CC-BY-NC-4\.0.*https://creativecommons.*Accept it"):
        logic.downloadModel("tiny")
    assert len(shop.requests) == before
    logic.downloadModel("tiny", acceptLicence=True)
    shop.offer("tiny", "1.1.0", licence=LICENCE)
    logic.store.refresh()
    logic.store.finish()
    logic.downloadModel("tiny")
    assert logic.store.find("tiny").version == "1.1.0"


def test_an_update_keeps_the_old_version_usable_until_it_is_there(shop, logic, store, volume):
    shop.offer("tiny")
    indexes.refresh()
    logic.downloadModel("tiny")
    shop.offer("tiny", "1.1.0")
    indexes.refresh()
    assert stateOf(store, "tiny") == UPDATE
    shop.held = 20_000
    store.download("tiny")
    pollUntilBytes(store)
    assert logic.segment(volume, "tiny").GetAttribute("USEMA.modelVersion") == "1.0.0"
    assert store.busy
    shop.release()
    store.finish()
    assert stateOf(store, "tiny") == INSTALLED
    assert logic.segment(volume, "tiny").GetAttribute("USEMA.modelVersion") == "1.1.0"
    assert [(one.version, one.bundled) for one in store.modelsHere() if one.name == "tiny"] == [
        ("1.1.0", False),
        ("1.0.0", False),
    ]


def test_a_cancelled_download_goes_on_from_where_it_was(shop, logic, store, monkeypatch):
    monkeypatch.setattr("usema.serving.client.CANCEL_SECONDS", 0.5)  # it waits for the network, and hears nothing
    shop.offer("tiny")
    indexes.refresh()
    shop.held = 20_000
    store.download("tiny")
    pollUntilBytes(store)
    with pytest.raises(InputError, match="at work"):
        store.refresh()
    store.cancel()
    store.cancel()
    with pytest.raises(Cancelled):
        store.finish()
    assert stateOf(store, "tiny") == AVAILABLE
    shop.release()
    logic.downloadModel("tiny")
    assert shop.requests[-1] == ("/tiny-1.0.0.usema", "bytes=20000-")


def test_after_an_exception_in_the_wait_hook_the_store_works_on(shop, logic):
    shop.offer("tiny")
    indexes.refresh()
    shop.held = 20_000

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        logic.downloadModel("tiny", wait=interrupt)
    assert logic.store.status.state == "cancelled"
    shop.release()
    assert logic.downloadModel("tiny").metadata.name == "tiny"


def test_what_goes_wrong_comes_as_an_error_that_says_what_to_do(shop, logic):
    shop.offer("tiny")
    shop.damage("tiny")
    indexes.refresh()
    with pytest.raises(StoreError, match="is not the file that the index describes") as caught:
        logic.downloadModel("tiny")
    assert "Refresh the index" in caught.value.hint
    shop.close()
    with pytest.raises(StoreError, match="refuses the connection"):
        logic.downloadModel("tiny")
    assert cache.installed() == []


def test_a_model_made_for_a_newer_usema_is_not_fetched(shop, logic):
    bundle = write_tiny_bundle(shop.folder.parent / "future", name="future")
    publish(bundle, shop.folder, minimum_engine="99.0.0")
    indexes.refresh()
    with pytest.raises(InputError, match=r"needs USEMA 99\.0\.0"):
        logic.downloadModel("future")


def test_a_file_is_imported_verified_and_deleted(logic, store, volume, tmp_path):
    file = archive.pack(write_tiny_bundle(tmp_path / "tiny", name="tiny").path, tmp_path / "tiny.usema")
    store.importFile(file)
    assert store.finish().modelName == "tiny"
    assert logic.segment(volume, "tiny")
    (here,) = [one for one in store.modelsHere() if one.name == "tiny"]
    store.verify(here.bundle)
    assert store.finish().state == "done"
    store.remove(here)
    store.finish()
    with pytest.raises(UsemaError, match="no model 'tiny'"):
        logic.segment(volume, "tiny")


def test_what_came_with_usema_is_listed_and_cannot_be_deleted(store):
    (bundled,) = store.modelsHere()
    assert (bundled.name, bundled.bundled) == ("hippocampus-mr", True)
    with pytest.raises(InputError, match="came with USEMA"):
        store.remove(bundled)


def test_a_worker_that_cannot_be_started_leaves_the_store_free(host, shop):
    store = ModelStore(WorkerClient(["/nowhere/python"]))
    with pytest.raises(UsemaError, match="cannot be started"):
        store.refresh()
    assert not store.busy


def test_a_worker_that_dies_is_told_and_the_next_task_starts_a_new_one(host, shop):
    store = ModelStore(WorkerClient(["false"]))
    for _ in range(2):
        store.refresh()
        with pytest.raises(UsemaError, match="exit code 1") as caught:
            store.finish()
        assert caught.value.code == "worker-died"
    assert not store.busy


def test_ending_the_application_ends_the_download_and_keeps_its_part(shop, host):
    shop.offer("tiny")
    indexes.refresh()
    before, logic = children(), USEMASegmentationLogic(WorkerClient(["false"]))
    shop.held = 20_000
    logic.store.download("tiny")
    pollUntilBytes(logic.store)
    logic.shutdown()
    assert children() <= before
    assert logic.store.status.state == "cancelled"
    assert [size for path, size in cache.left_parts() if path.suffix == ".part"] == [20_000]
