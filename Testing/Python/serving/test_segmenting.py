"""The worker with a small model on a real volume, asked through the client: results, cancelling, refusals, faults."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bundles import write_tiny_bundle
from usema.errors import Cancelled
from usema.inference.predictor import Predictor
from usema.models.bundle import WEIGHTS_FILE, read_bundle
from usema.serving.client import WorkerClient
from usema.serving.protocol import throttled
from usema.serving.segmenting import Commands
from usema.volumes.volume import Geometry, Volume
from workers import all_events, events_of, is_alive, is_progress, last_event, python, wait_until


def crop(volume: Volume, *shape: int) -> Volume:
    """The first voxels along each axis."""
    return Volume(volume.array[tuple(map(slice, shape))], replace(volume.geometry, size=shape[::-1]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("a") / "Größe 肝臓 & more"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def model(folder) -> Path:
    return write_tiny_bundle(folder / "tiny model").path


@pytest.fixture(scope="module")
def volume(eight_tiles) -> Volume:
    return eight_tiles


@pytest.fixture
def ask(folder, model, volume):
    """Makes the fields of a segment request, its input and the folder for its output; changes replace fields."""

    def fields(array=volume.array, geometry=volume.geometry, **changes) -> dict:
        here = Path(tempfile.mkdtemp(dir=folder))
        (here / "output").mkdir()
        np.save(here / "input.npy", array)
        inputs = [{"array": str(here / "input.npy"), "geometry": geometry.to_dict()}]
        return {"model": str(model), "device": "cpu", "inputs": inputs, "output": str(here / "output"), **changes}

    return fields


@pytest.fixture
def long(ask, volume):
    """A request of thousands of tiles: eight copies of the volume side by side, with nearly all of a tile shared."""
    geometry = replace(volume.geometry, size=[2 * side for side in volume.geometry.size])
    return ask(np.tile(volume.array, (2, 2, 2)), geometry, overlap=0.9)


# What it is for


def test_the_second_request_finds_the_model_warm_and_the_result_is_that_of_the_predictor(client, ask, model, volume):
    expected = Predictor(read_bundle(model), "cpu").segment(volume, overlap=0.4, probabilities=True)
    asked = ask(overlap=0.4, probabilities=True)
    first, second = (events_of(client, client.request("segment", **asked)) for _ in range(2))
    assert first[0]["event"] == "loading"
    assert {event["event"] for event in second} == {"progress", "result"}
    assert client.hello["pid"] == last_event(client, client.request("hello"))["pid"]

    for events in (first, second):
        result = events[-1]
        assert Geometry.from_dict(result["geometry"]) == volume.geometry
        np.testing.assert_array_equal(np.load(result["labels"]), expected.labels)
        np.testing.assert_array_equal(np.load(result["probabilities"]), expected.probabilities)
        assert result["max_foreground_probability"] == expected.max_foreground_probability
        assert result["warnings"] == expected.warnings
        assert result["provenance"].keys() == expected.provenance.keys()
        assert result["provenance"]["weightsSha256"] == expected.provenance["weightsSha256"]
    assert sorted(os.listdir(asked["output"])) == ["labels.npy", "probabilities.npy"]


def test_a_first_look_is_sent_before_the_same_result(client, ask, volume):
    double = np.tile(volume.array[:24, :32, :24], (1, 2, 4))  # 21 tiles, or 8 that do not overlap
    geometry = replace(volume.geometry, size=double.shape[::-1])
    exact = last_event(client, client.request("segment", **ask(double, geometry)))
    asked = ask(double, geometry, speed="preview")
    events = events_of(client, client.request("segment", **asked))
    assert [event["event"] for event in events if event["event"] != "progress"] == ["preview", "result"]
    look = np.load(next(event for event in events if event["event"] == "preview")["labels"])
    assert look.shape == double.shape
    np.testing.assert_array_equal(np.load(events[-1]["labels"]), np.load(exact["labels"]))
    assert (look != np.load(exact["labels"])).any()
    assert exact["seconds_by_speed"]["fast"] < exact["seconds_by_speed"]["exact"]


def test_a_speed_that_is_none_is_refused(client, ask):
    answer = last_event(client, client.request("segment", **ask(speed="turbo")))
    assert (answer["event"], answer["code"]) == ("error", "input")
    assert "'turbo'" in answer["message"]


def test_hello_tells_what_runs_where(client):
    import torch

    hello = last_event(client, client.request("hello"))
    assert hello["torch"] == torch.__version__
    assert hello["device"] in hello["devices"]
    assert (hello["gpu"] is None) == (not torch.cuda.is_available())
    assert hello["memory_bytes"] > 0
    assert hello["attention"]


def test_progress_grows_to_the_total(client, ask):
    events = events_of(client, client.request("segment", **ask(overlap=0.6)))
    progress = [event for event in events if is_progress(event)]
    done = [event["done"] for event in progress]
    assert done == sorted(done)
    assert done[0] == 0
    assert done[-1] == progress[0]["total"] > 5
    assert progress[-1]["seconds_left"] == pytest.approx(0)
    assert events[-1]["probabilities"] is None


def test_of_fast_progress_a_part_is_sent_but_always_the_first_and_the_last_step():
    sent = []
    progress = throttled(lambda **event: sent.append(event["done"]))
    for done in range(10_001):
        progress(done, 10_000, None)
    assert (sent[0], sent[-1]) == (0, 10_000)
    assert len(sent) < 5_000


def test_a_model_can_be_loaded_before_it_is_needed(client, ask, folder):
    other = str(write_tiny_bundle(folder / "other", version="2.0.0").path)
    loaded = last_event(client, client.request("load", model=other, device="cpu"))
    assert (loaded["event"], loaded["model"]) == ("loaded", other)
    events = events_of(client, client.request("segment", **ask(model=other)))
    assert "loading" not in {event["event"] for event in events}
    assert events[-1]["provenance"]["modelVersion"] == "2.0.0"


def test_a_model_that_changed_on_disk_is_loaded_again_and_an_altered_one_refused(client, ask, folder):
    path = write_tiny_bundle(folder / "changing").path
    asked = ask(model=str(path))
    assert last_event(client, client.request("segment", **asked))["event"] == "result"

    weights = path / WEIGHTS_FILE
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))  # as long as before
    error = last_event(client, client.request("segment", **asked))
    assert error["code"] == "bundle"
    assert "was altered" in error["message"]
    assert "Download" in error["hint"]

    weights.write_bytes(good)
    events = events_of(client, client.request("segment", **asked))
    assert (events[0]["event"], events[-1]["event"]) == ("loading", "result")


# Cancelling


def test_a_running_request_is_cancelled_and_leaves_nothing(client, long, ask):
    pid = last_event(client, client.request("hello"))["pid"]
    request = client.request("segment", **long)
    events_of(client, request, is_progress)
    client.cancel(request)
    error = last_event(client, request)
    assert (error["event"], error["code"]) == ("error", "cancelled")
    assert os.listdir(long["output"]) == []
    assert not client.busy
    assert last_event(client, client.request("hello"))["pid"] == pid
    assert last_event(client, client.request("segment", **ask()))["event"] == "result"


def test_a_request_cancelled_after_its_last_tile_writes_nothing_either(ask):
    events = []
    asked = {"id": 1, "command": "segment", **ask()}

    def finished() -> bool:
        return bool(events) and events[-1]["event"] == "progress" and events[-1]["done"] == events[-1]["total"]

    with pytest.raises(Cancelled):
        Commands().by_name["segment"](asked, lambda **event: events.append(event), finished)
    assert finished()
    assert os.listdir(asked["output"]) == []


def test_a_waiting_request_is_cancelled_at_once_and_the_running_one_goes_on(client, long, ask):
    running, waiting = client.request("segment", **long), client.request("segment", **ask())
    events_of(client, running, is_progress)
    client.cancel(waiting)
    assert last_event(client, waiting)["code"] == "cancelled"
    assert client.busy
    events_of(client, running, is_progress)
    client.cancel(running)
    assert last_event(client, running)["code"] == "cancelled"


def test_two_requests_are_answered_one_after_the_other(client, ask):
    first, second = client.request("segment", **ask()), client.request("segment", **ask())
    client.cancel(12345)  # no such request: nothing happens
    events = all_events(client)
    ids = [event["id"] for event in events]
    assert ids == sorted(ids)
    assert [event["event"] for event in events if event["id"] in (first, second)].count("result") == 2


# What the worker refuses, and survives


def damaged(path: Path, how: str) -> None:
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif how == "pickled":
        np.save(path, np.array([{"a": 1}, None], object), allow_pickle=True)
    elif how == "text":
        path.write_text("not an array")


@pytest.mark.parametrize("how", ["missing", "truncated", "pickled", "text"])
def test_an_input_file_that_is_no_array_is_refused(client, ask, how):
    asked = ask()
    damaged(Path(asked["inputs"][0]["array"]), how)
    error = last_event(client, client.request("segment", **asked))
    assert error["code"] == "input"
    assert "is no array that can be read" in error["message"]


def with_nan(array):
    array = array.astype(np.float32)
    array[3, 4, 5] = np.nan
    return array


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_nan, "1 NaN or infinite voxels; the first is nan at x 5, y 4, z 3"),
        (lambda array: array[1:], "its grid has"),
        (lambda array: array[None], "its grid has"),
        (lambda array: array.astype(complex), "values of type complex128"),
        (lambda array: array[:0], "is empty"),
    ],
    ids=["NaN", "shape", "dimensions", "type", "empty"],
)
def test_an_array_that_is_no_volume_is_refused(client, ask, volume, change, message):
    error = last_event(client, client.request("segment", **ask(change(volume.array))))
    assert error["code"] == "input"
    assert message in error["message"]


def test_a_geometry_that_is_none_is_refused(client, ask):
    for wrong in ({"spacing": [0, 1, 1]}, {"direction": [1] * 9}, {"size": None}):
        asked = ask()
        asked["inputs"][0]["geometry"].update(wrong)
        assert last_event(client, client.request("segment", **asked))["code"] == "input"
    asked = ask()
    asked["inputs"] *= 2
    assert "takes 1 volume" in last_event(client, client.request("segment", **asked))["message"]


def test_a_missing_model_is_refused(client, ask, folder):
    error = last_event(client, client.request("segment", **ask(model=str(folder / "nowhere"))))
    assert (error["code"], error["message"]) == ("bundle", f"There is no model at {folder / 'nowhere'}.")


def test_an_output_folder_that_takes_no_files_is_refused_before_anything_is_computed(client, ask, folder):
    (folder / "a file").touch()
    for output in (folder / "no folder", folder / "a file"):
        events = events_of(client, client.request("segment", **ask(output=str(output))))
        assert events[-1]["code"] == "output"
        assert "Nothing can be written" in events[-1]["message"]
        assert not any(map(is_progress, events))


def test_a_disk_too_small_for_the_result_is_refused_before_anything_is_computed(client, ask, folder):
    asked = ask()
    planes = 2 * shutil.disk_usage(asked["output"]).free // 2**20  # of 2**20 voxels: four times too many, at 2 bytes
    header = {"descr": "|u1", "fortran_order": False, "shape": (planes, 2**10, 2**10)}
    with open(asked["inputs"][0]["array"], "wb") as file:  # takes no room: all of it is a hole
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + planes * 2**20)
    asked["inputs"][0]["geometry"]["size"] = [2**10, 2**10, planes]
    error = last_event(client, client.request("segment", **asked))
    assert error["code"] == "output"
    assert "too full" in error["message"]


def test_short_memory_and_a_full_disk_end_in_errors_that_the_worker_survives(ask, volume):
    # The worker may take 300 MB more than its libraries do, which it does not see before, and write files up to 20 KB,
    # as on a full disk.
    limited = """
import resource, usema.inference.memory, usema.inference.predictor, usema.serving.worker
usema.inference.memory.free_in_limits = lambda **_: None
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 300 * 2**20,) * 2)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000,) * 2)
usema.serving.worker.main([])
"""
    client = WorkerClient(python(limited), {"OMP_NUM_THREADS": "1"})
    try:
        large = np.zeros((400, 400, 600), np.uint8)  # 96 MB, and four times that when it is preprocessed
        large[200, 200, 300] = 1
        geometry = replace(volume.geometry, size=large.shape[::-1])
        error = last_event(client, client.request("segment", **ask(large, geometry)))
        assert error["code"] == "memory"
        assert "Close other programs" in error["hint"]
        assert "Traceback" in error["detail"]

        asked = ask()
        error = last_event(client, client.request("segment", **asked))
        assert error["code"] == "output"
        assert "labels.npy cannot be written" in error["message"]
        assert os.listdir(asked["output"]) == []

        small = crop(volume, 20, 20, 20)
        assert last_event(client, client.request("segment", **ask(small.array, small.geometry)))["event"] == "result"
    finally:
        client.stop()


# Processes that die in the middle


def test_a_worker_killed_in_the_middle_is_reported_and_replaced(client, long, ask):
    pid = last_event(client, client.request("hello"))["pid"]
    running, waiting = client.request("segment", **long), client.request("segment", **ask())
    events_of(client, running, is_progress)
    os.kill(pid, signal.SIGKILL)
    events = all_events(client)
    errors = [event for event in events if event["event"] == "error"]
    assert [(error["id"], error["code"]) for error in errors] == [(running, "worker-died"), (waiting, "worker-died")]
    assert errors[0]["detail"].startswith("exit code -9, SIGKILL")
    assert errors[0]["message"] == "The worker ended unexpectedly (exit code -9, SIGKILL)."
    assert not client.running
    assert client.poll() == []

    assert last_event(client, client.request("segment", **ask()))["event"] == "result"
    assert client.hello["pid"] != pid


def test_when_the_application_is_killed_the_worker_ends_in_the_middle(root, long):
    script = f"""
import json, sys, time
sys.path.insert(0, {str(root / "USEMASegmentation")!r})
from usema.serving.client import WorkerClient
client = WorkerClient()
client.request("segment", **json.loads(sys.argv[1]))
while True:
    for event in client.poll():
        print(json.dumps(event), flush=True)
    time.sleep(0.05)
"""
    with subprocess.Popen([*python(script), json.dumps(long)], stdout=subprocess.PIPE) as application:
        events = [json.loads(application.stdout.readline())]
        while not is_progress(events[-1]):
            events.append(json.loads(application.stdout.readline()))
        application.kill()
    wait_until(lambda: not is_alive(events[0]["pid"]))
