"""A safetensors file that was made to harm is refused before a library reads it, and a sound one is not."""

from __future__ import annotations

import hashlib
import json
import tracemalloc

import pytest
import safetensors.torch
import torch
from bundles import METADATA, weights
from usema.errors import BundleError
from usema.models import weights_header
from usema.models.bundle import METADATA_FILE, WEIGHTS_FILE, read_bundle
from usema.models.bundle_writing import write_bundle
from usema.store import archive, cache, install


def f16(*offsets: int, shape=(16,), dtype="F16") -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def packed(header: dict | bytes, body: int) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(body)


HOSTILE = {
    "overlap": (packed({"a": f16(0, 32), "b": f16(16, 48)}, 48), "'b' overlaps"),
    "the same place": (packed({"a": f16(0, 32), "b": f16(0, 32)}, 32), "'b' overlaps"),
    "a gap": (packed({"a": f16(0, 32), "b": f16(40, 72)}, 72), "'b' begins 8 bytes too late"),
    "bytes that are no tensor's": (packed({"a": f16(0, 32)}, 64), "take 32 bytes, and there are 64"),
    "a tensor behind the end": (packed({"a": f16(0, 32)}, 16), "take 32 bytes, and there are 16"),
    "a size that overflows": (packed({"a": f16(0, 64, shape=(2**63, 2))}, 64), "does not take the bytes"),
    "a negative size": (packed({"a": f16(0, 32, shape=(-16, -1))}, 32), "that are no sizes"),
    "offsets turned round": (packed({"a": f16(32, 0)}, 32), "does not take the bytes"),
    "a size that is no number": (packed({"a": f16(0, 32, shape=("16",))}, 32), "that are no sizes"),
    "a type that torch has no tensors of": (packed({"a": f16(0, 16, dtype="F8_E8M0")}, 16), "type 'F8_E8M0'"),
    "an unknown type": (packed({"a": f16(0, 16, dtype=["F16"])}, 16), "type \\['F16'\\]"),
    "no offsets": (packed({"a": {"dtype": "F16", "shape": [16]}}, 32), "'a' has no dtype, shape or data_offsets"),
    "no tensor": (packed({"a": 7}, 0), "'a' has no dtype, shape or data_offsets"),
    "a thousand dimensions": (packed({"a": f16(0, 2, shape=[1] * 1000)}, 2), "that are no sizes"),
    "a huge header": (packed(b"{" + b" " * (17 * 2**20), 0), "header has 17825793 bytes"),
    "a deep header": (packed(b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}", 0), "nested deeper"),
    "a header cut off": (packed(b'{"a": {"dtype"', 0), "cannot be read"),
}


@pytest.fixture
def bundle(tmp_path):
    return write_bundle(tmp_path / "hippocampus-mr", METADATA, weights()).path


def forge(bundle, data: bytes) -> None:
    """Other weights, with size and hash to match."""
    document = json.loads((bundle / METADATA_FILE).read_text())
    document["weights"].update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    (bundle / METADATA_FILE).write_text(json.dumps(document))
    (bundle / WEIGHTS_FILE).write_bytes(data)


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_weights_are_refused_wherever_they_are_used(what, bundle):
    data, message = HOSTILE[what]
    forge(bundle, data)
    read = read_bundle(bundle)
    tracemalloc.start()
    for use in (read.verify, read.load_weights, read.check_header):
        with pytest.raises(BundleError, match=message) as caught:
            use()
        assert str(bundle) in caught.value.message
    with pytest.raises(BundleError, match=message):
        install.install_file(bundle)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 * 2**20
    assert cache.installed() == []


def test_what_safetensors_writes_is_sound():
    torch.manual_seed(0)
    tensors = {
        "half": torch.randn(3, 4).half(), "single": torch.randn(5), "double": torch.randn(2, 2).double(),
        "brain": torch.randn(4).bfloat16(), "count": torch.tensor(7), "small": torch.ones(2, dtype=torch.int8),
        "mask": torch.ones(3, dtype=torch.bool), "none": torch.empty(0, 4),
    }  # fmt: skip
    for metadata in (None, {"format": "pt"}):
        data = safetensors.torch.save(tensors, metadata)
        length = int.from_bytes(data[:8], "little")
        weights_header.check(data[8 : 8 + length], len(data) - 8 - length)


def test_it_is_a_folder_or_a_file_that_is_read_and_nothing_that_could_be_waited_for(tmp_path):
    import os

    pipe = tmp_path / "pipe.usema"
    os.mkfifo(pipe)
    with pytest.raises(BundleError, match="neither a folder nor a file"):
        read_bundle(pipe)
    with pytest.raises(BundleError, match="it is no file"):
        archive.unpack(pipe, tmp_path / "out")
