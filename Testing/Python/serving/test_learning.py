"""The worker learns from corrections: what it answers, cancelling in each phase, and being killed in the middle."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest
from bundles import write_tiny_bundle
from usema.adaptation.adapting import PHASES
from usema.models.delta import Delta
from usema.volumes.volume import Volume, read_volume
from workers import all_events, events_of, is_progress, last_event


@pytest.fixture(scope="module")
def model(tiny_model) -> Path:
    return tiny_model


@pytest.fixture
def volume(small_volume) -> Volume:
    return read_volume(small_volume)


@pytest.fixture
def ask(tmp_path, model, volume):
    """Makes the fields of a request; changes replace fields, and those of the corrections."""

    def fields(corrections=(), **changes) -> dict:
        here = Path(tempfile.mkdtemp(dir=tmp_path))
        (here / "output").mkdir()
        labels = np.full(volume.array.shape, 2, np.int16)  # the tiny model says 1 nearly everywhere
        np.save(here / "input.npy", volume.array)
        np.save(here / "labels.npy", labels)
        np.save(here / "edited.npy", np.zeros(labels.shape, np.uint8))
        told = {"labels": str(here / "labels.npy"), "slices": [[0, 4], [0, 12], [0, 19]]}
        told |= {"edited": str(here / "edited.npy"), **dict(corrections)}
        inputs = [{"array": str(here / "input.npy"), "geometry": volume.geometry.to_dict()}]
        output = str(here / "output")
        request = {"model": str(model), "device": "cpu", "inputs": inputs, "output": output, "corrections": told}
        return {**request, **changes}

    return fields


def test_what_was_learned_comes_back_and_serves_the_next_request(client, ask):
    asked = ask(way="learned", margins=True)
    events = events_of(client, client.request("adapt", **asked))
    result = events[-1]
    phases = dict.fromkeys(event["phase"] for event in events if is_progress(event))
    assert list(phases) == ["looking", "learning", "segmenting"]
    labels = np.load(result["labels"])
    assert (labels[[4, 12, 19]] == 2).all()
    delta = Delta.read(Path(result["delta"]))
    assert result["provenance"]["deltaSha256"] == delta.sha256
    assert result["adaptation"]["slices"] == [[0, 4], [0, 12], [0, 19]]
    assert sorted(os.listdir(asked["output"])) == ["delta.safetensors", "labels.npy", "margins.txt"]

    plain = {name: value for name, value in ask().items() if name != "corrections"}
    own = np.load(last_event(client, client.request("segment", **plain))["labels"])
    again = events_of(client, client.request("segment", **{**plain, "delta": result["delta"]}))
    assert again[0]["event"] == "loading"  # the model as it is was warm: they are not confused
    assert again[-1]["provenance"]["deltaSha256"] == delta.sha256
    assert (np.load(again[-1]["labels"]) == 2).mean() > (own == 2).mean()
    assert "deltaSha256" not in last_event(client, client.request("segment", **plain))["provenance"]


@pytest.mark.parametrize("phase", [one for one in PHASES if one != "checking"])
def test_it_is_cancelled_in_each_phase_and_leaves_nothing(client, ask, phase):
    asked = ask(**({"way": "learned"} if phase == "learning" else {}), deep=phase == "learning")
    asked |= {"overlap": 0.9, "seconds_allowed": 1e6} if phase == "segmenting" else {"seconds_allowed": 1e6}
    request = client.request("adapt", **asked)
    seen = events_of(client, request, lambda event: event.get("phase") == phase)
    client.cancel(request)
    if seen[-1]["event"] != "result":  # on an idle computer the last step may be over
        last = last_event(client, request)
        assert last.get("code") == "cancelled" or (
            last["event"] == "result" and phase in ("looking", "propagating", "segmenting")
        )
        if last["event"] == "error":
            assert os.listdir(asked["output"]) == []
    assert not client.busy


def test_a_worker_killed_while_it_learns_is_reported_and_replaced(client, ask, model):
    before = {path.name: path.read_bytes() for path in model.iterdir() if path.is_file()}
    pid = last_event(client, client.request("hello"))["pid"]
    asked = ask(way="learned", deep=True, seconds_allowed=1e6)
    request = client.request("adapt", **asked)
    events_of(client, request, lambda event: event.get("phase") == "learning")
    os.kill(pid, signal.SIGKILL)
    error = all_events(client)[-1]
    assert (error["event"], error["code"]) == ("error", "worker-died")
    assert os.listdir(asked["output"]) == []
    assert {path.name: path.read_bytes() for path in model.iterdir() if path.is_file()} == before
    assert last_event(client, client.request("adapt", **ask(way="carried")))["event"] == "result"


@pytest.mark.parametrize(
    ("corrections", "code", "message"),
    [
        ({"slices": []}, "input", "No slice is marked"),
        ({"slices": [[0, 99]]}, "input", "no slice 99"),
        ({"slices": [[0, True]]}, "protocol", "are no corrections"),
        ({"slices": [0]}, "protocol", "are no corrections"),
        ({"labels": None}, "protocol", "are no corrections"),
        ({"labels": "/nowhere.npy"}, "input", "no array that can be read"),
    ],
)
def test_what_are_no_corrections_is_refused(client, ask, corrections, code, message):
    error = last_event(client, client.request("adapt", **ask(corrections)))
    assert error["code"] == code
    assert message in error["message"]


def test_a_delta_of_another_model_is_refused(client, ask, tmp_path):
    asked = {name: value for name, value in ask().items() if name != "corrections"}
    other = write_tiny_bundle(tmp_path / "other", architecture={
        "name": "USEMA",
        "config": {
            "in_channels": 1, "num_classes": 3, "features": [4, 8], "kernels": [[3, 3, 3]] * 2,
            "strides": [[1, 1, 1], [2, 2, 2]], "blocks": 1, "window": 4, "head_dim": 4,
        },
    })  # fmt: skip
    told = last_event(client, client.request("adapt", **ask(way="learned", model=str(other.path))))
    error = last_event(client, client.request("segment", **{**asked, "delta": told["delta"]}))
    assert error["code"] == "bundle"
    assert "belongs to other weights" in error["message"]
