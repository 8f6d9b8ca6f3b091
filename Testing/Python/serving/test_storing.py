"""The worker of the store as a process: downloads from a real server, cancelled, killed, gone on with."""

from __future__ import annotations

import os
import shutil
import sys

import pytest
from bundles import write_tiny_bundle
from model_shop import LICENCE, open_shop
from usema.serving.client import WorkerClient, worker_command
from usema.store import archive, cache, indexes
from usema.store.library import AVAILABLE, INSTALLED, library
from workers import all_events, events_of, is_alive, last_event, python, wait_until

# What 3D Slicer's Python may lack must not be missed before it is needed.
WITHOUT = """
import sys
sys.modules.update(dict.fromkeys({missing!r}))
from usema.serving.worker import main
main(["--store"])
"""


@pytest.fixture
def shop(tmp_path):
    with open_shop(tmp_path / "shop") as shop:
        shop.offer("tiny")
        indexes.refresh()
        yield shop


@pytest.fixture
def client():
    client = WorkerClient(worker_command(store=True))
    yield client
    client.stop()


def parts() -> list[int]:
    """Bytes of the downloads under way."""
    return [size for path, size in cache.left_parts() if path.suffix == ".part"]


def stateOf(name: str) -> str:
    return library().get(name).state


def test_it_says_hello_without_any_package_installed():
    client = WorkerClient(
        [sys.executable, "-S", "-u", "-m", "usema.serving.worker", "--store"]
    )  # -S: no installed packages
    client.start()
    hello = last_event(client, 1)
    client.stop()
    assert hello["event"] == "hello"
    assert hello["protocol"] == 1


def test_a_download_needs_no_torch_and_the_model_is_whole(shop):
    client = WorkerClient(python(WITHOUT.format(missing=["torch", "numpy", "SimpleITK", "safetensors"])))
    request = client.request("download", name="tiny", version="1.0.0")
    *progress, result = events_of(client, request)
    client.stop()
    assert (result["name"], result["title"], result["version"]) == ("tiny", "Hippocampus (MR)", "1.0.0")
    assert {"done", "total", "bytes_per_second", "seconds_left", "message"} <= set(progress[0])
    assert any(event["done"] == event["total"] > 0 for event in progress)
    assert stateOf("tiny") == INSTALLED
    library().get("tiny").bundle.verify()
    assert parts() == []


@pytest.mark.parametrize("missing", ["filelock", "requests", "truststore", "platformdirs"])
def test_a_missing_package_is_named(shop, missing, monkeypatch):
    if missing == "platformdirs":
        monkeypatch.delenv("USEMA_MODELS")
    client = WorkerClient(python(WITHOUT.format(missing=[missing])))
    request = client.request("import", file=str(shop.folder / "tiny-1.0.0.usema"))
    if missing in ("requests", "truststore"):
        request = client.request("download", name="tiny", version="1.0.0")
        assert last_event(client, request - 1)["event"] == "result"  # an import needs no network
        cache.remove(cache.installed()[0])
        request = client.request("download", name="tiny", version="1.0.0")
    error = last_event(client, request)
    client.stop()
    assert error["code"] == "dependency"
    assert missing in error["message"]


def test_a_cancelled_download_keeps_its_part_and_goes_on_from_there(shop, client):
    shop.held = 20_000
    request = client.request("download", name="tiny", version="1.0.0")
    wait_until(lambda: parts() == [20_000])
    client.cancel(request)
    assert last_event(client, request)["code"] == "cancelled"
    assert parts() == [20_000]
    assert stateOf("tiny") == AVAILABLE
    shop.release()
    assert last_event(client, client.request("download", name="tiny", version="1.0.0"))["event"] == "result"
    assert shop.requests[-1] == ("/tiny-1.0.0.usema", "bytes=20000-")


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_a_worker_that_ends_in_the_middle_leaves_its_part(shop, client, how):
    shop.held = 20_000
    request = client.request("download", name="tiny", version="1.0.0")
    wait_until(lambda: parts() == [20_000])
    client.poll()
    pid = client.hello["pid"]
    if how == "killed":
        os.kill(pid, 9)
        assert last_event(client, request)["code"] == "worker-died"
    else:
        client.stop()
        assert [event["code"] for event in client.poll() if "code" in event] == ["cancelled"]
    wait_until(lambda: not is_alive(pid))
    assert parts() == [20_000]
    shop.release()
    assert last_event(client, client.request("download", name="tiny", version="1.0.0"))["event"] == "result"
    assert shop.requests[-1] == ("/tiny-1.0.0.usema", "bytes=20000-")


def test_another_version_than_was_agreed_to_is_not_fetched(shop, client):
    shop.offer("tiny", "1.1.0")
    indexes.refresh()
    before = len(shop.requests)
    error = last_event(client, client.request("download", name="tiny", version="1.0.0"))
    assert error["code"] == "input"
    assert "no longer offered" in error["message"]
    assert len(shop.requests) == before


def test_a_file_is_imported_verified_and_removed(client, tmp_path):
    bundle = write_tiny_bundle(tmp_path / "tiny", name="tiny")
    file = archive.pack(bundle.path, tmp_path / "tiny.usema")
    assert last_event(client, client.request("import", file=str(file)))["name"] == "tiny"
    (installed,) = cache.installed()
    verify = client.request("verify", path=str(installed.path))
    assert last_event(client, verify)["event"] == "result"
    weights = installed.path / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    damaged = last_event(client, client.request("verify", path=str(installed.path)))
    assert damaged["code"] == "bundle"
    assert "was altered" in damaged["message"]
    assert last_event(client, client.request("remove", name="tiny", version="1.2.0"))["event"] == "result"
    assert cache.installed() == []
    assert "not on this computer" in last_event(client, client.request("remove", name="tiny", version="1"))["message"]


def test_indexes_are_fetched_on_request_and_those_that_are_away_are_named(tmp_path, client):
    with open_shop(tmp_path / "one") as here, open_shop(tmp_path / "two") as away:
        here.offer("tiny")
        away.close()
        assert here.requests == []
        result = last_event(client, client.request("refresh"))
        assert [path for path, _ in here.requests] == ["/models.json"]
    (problem,) = result["problems"]
    assert away.address.rpartition("/")[0] in problem
    assert stateOf("tiny") == AVAILABLE


def test_requests_that_make_no_sense_are_answered_and_the_next_one_works(client, tmp_path):
    requests = [
        client.request("download", name="nothing", version="1.0.0"),
        client.request("download"),
        client.request("segment"),
        client.request("import", file=str(tmp_path / "nothing.usema")),
        client.request("verify", path=str(tmp_path)),
    ]
    events = {event["id"]: event for event in all_events(client)}
    assert [events[one]["code"] for one in requests] == ["bundle", "protocol", "input", "bundle", "bundle"]


def test_a_disk_folder_that_cannot_be_written_is_named(client, tmp_path, shop, empty_store):
    shutil.rmtree(empty_store / "Models", ignore_errors=True)
    (empty_store / "Models").write_text("a file where the folder should be")
    error = last_event(client, client.request("import", file=str(shop.folder / "tiny-1.0.0.usema")))
    assert error["code"] == "store"
    assert "Models" in error["message"]


def test_what_has_to_be_asked_first_comes_as_a_question_and_goes_back_as_consent(client, tmp_path):
    bundle = write_tiny_bundle(tmp_path / "tiny", name="tiny", licence=LICENCE)
    asked = last_event(client, client.request("import", file=str(bundle.path)))
    assert (asked["event"], asked["code"]) == ("error", "consent")
    assert asked["question"]["licence"]["name"] == LICENCE["name"]
    assert cache.installed() == []
    other = {**asked["question"], "sha256": "0" * 64}
    assert last_event(client, client.request("import", file=str(bundle.path), consent=other))["code"] == "consent"
    agreed = client.request("import", file=str(bundle.path), consent=asked["question"])
    assert last_event(client, agreed)["name"] == "tiny"
    verified = last_event(client, client.request("verify", path=str(cache.installed()[0].path)))
    assert verified["verified"] == "verified (weights and model.json)"


@pytest.mark.parametrize("consent", [7, "yes", [], {"name": "tiny"}, {"licence": 1}])
def test_a_consent_that_is_no_question_is_refused_and_the_worker_goes_on(client, tmp_path, consent):
    bundle = write_tiny_bundle(tmp_path / "tiny", name="tiny", licence=LICENCE)
    error = last_event(client, client.request("import", file=str(bundle.path), consent=consent))
    assert error["code"] in ("protocol", "input", "consent")
    assert cache.installed() == []
    assert last_event(client, client.request("hello"))["event"] == "hello"


def test_another_file_under_the_version_that_was_seen_is_not_fetched(shop, client):
    before = len(shop.requests)
    error = last_event(client, client.request("download", name="tiny", version="1.0.0", sha256="0" * 64))
    assert error["code"] == "input"
    assert len(shop.requests) == before
