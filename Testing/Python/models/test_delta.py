"""A file of what a model has learned, as it comes from somebody else: refused by name, or exactly what was learned."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest
import safetensors.torch
import torch
from bundles import write_tiny_bundle
from hostile_weights import HOSTILE
from usema.errors import BundleError
from usema.inference.predictor import Predictor
from usema.models import delta
from usema.models.delta import FORMAT, VERSION, Delta


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def said(bundle) -> dict[str, str]:
    return {"weights_sha256": bundle.metadata.weights["sha256"], "model": "tiny", "format": FORMAT, "version": VERSION}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_is_refused_before_a_library_reads_it(what, tmp_path):
    path = tmp_path / "delta.safetensors"
    path.write_bytes(HOSTILE[what][0])
    tracemalloc.start()
    with pytest.raises(BundleError, match="cannot be read") as caught:
        Delta.read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 * 2**20
    assert str(path) in caught.value.message


def changed(change: str, name: str, value: torch.Tensor) -> dict[str, torch.Tensor]:
    return {
        "a shape": {name: value.reshape(-1)[:-1].clone()},
        "as many values in another shape": {name: value.reshape(-1, 1).clone()},
        "a name that there is not": {f"{name}.more": value},
        "an empty tensor": {name: torch.empty(0)},
        "NaN": {name: torch.full_like(value, torch.nan)},
        "infinity": {name: torch.full_like(value, torch.inf)},
        "half precision": {name: value.half()},
        "integers": {name: value.int()},
    }[change]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("a shape", "does not fit: the model has no .* of this shape"),
        ("as many values in another shape", "does not fit: the model has no .* of this shape"),
        ("a name that there is not", "does not fit: the model has no .*more of this shape"),
        ("an empty tensor", "does not fit: the model has no .* of this shape"),
        ("NaN", "are no finite numbers"),
        ("infinity", "are no finite numbers"),
        ("half precision", "are no finite numbers"),
        ("integers", "are no finite numbers"),
    ],
)
def test_values_that_have_no_place_in_the_model_are_refused(change, message, bundle, said, tmp_path):
    weights = bundle.load_weights()
    name = max(weights, key=lambda one: weights[one].dim())
    path = tmp_path / "delta.safetensors"
    path.write_bytes(safetensors.torch.save(changed(change, name, weights[name]), said))
    with pytest.raises(BundleError, match=message):
        Predictor(bundle, "cpu", delta=Delta.read(path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "pt"}, "no delta of a model"),
        ({"version": "2"}, "of version '2'"),
        ({"weights_sha256": "0" * 64}, r"other weights \(SHA-256 000000000000\.\.\.\)"),
        ({"weights_sha256": ""}, r"other weights \(SHA-256 not stated\.\.\.\)"),
    ],
)
def test_a_file_of_another_kind_version_or_model_is_refused(change, message, bundle, said, tmp_path):
    name, value = next(iter(bundle.load_weights().items()))
    path = tmp_path / "delta.safetensors"
    path.write_bytes(safetensors.torch.save({name: value.float()}, {**said, **change}))
    with pytest.raises(BundleError, match=message):
        Predictor(bundle, "cpu", delta=Delta.read(path))


@pytest.mark.parametrize("kind", ["a pipe", "a device", "a folder", "nothing", "too large"])
def test_what_is_no_file_is_not_waited_for(kind, tmp_path, monkeypatch):
    path = tmp_path / "delta.safetensors"
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a device":
        path = Path("/dev/zero")  # never ends
    elif kind == "a folder":
        path.mkdir()
    elif kind == "too large":
        monkeypatch.setattr(delta, "MOST_BYTES", 100)
        path.write_bytes(bytes(101))
    message = {"nothing": "cannot be read: No such file", "too large": "has 101 bytes"}.get(kind, "is no file")
    with pytest.raises(BundleError, match=message) as caught:
        Delta.read(path)
    assert str(path) in caught.value.message


def test_what_was_learned_comes_back_bit_for_bit(bundle, said, tmp_path):
    weights = {name: value.float() for name, value in list(bundle.load_weights().items())[:3]}
    learned = Delta({name: value + 0.5 for name, value in weights.items()}, {"weights_sha256": said["weights_sha256"]})
    (tmp_path / "delta.safetensors").write_bytes(learned.to_bytes())
    again = Delta.read(tmp_path / "delta.safetensors")
    assert again.sha256 == learned.sha256
    assert again.said == {"weights_sha256": said["weights_sha256"], "format": FORMAT, "version": VERSION}
    assert Predictor(bundle, "cpu", delta=again) is not None
