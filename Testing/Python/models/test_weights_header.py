"""A safetensors file that was made to harm is refused before a library reads it, and a sound one is not."""

from __future__ import annotations

import hashlib
import json
import tracemalloc

import pytest
import safetensors.torch
import torch
from bundles import METADATA, weights
from hostile_weights import HOSTILE
from usema.errors import BundleError
from usema.models import weights_header
from usema.models.bundle import METADATA_FILE, WEIGHTS_FILE, read_bundle
from usema.models.bundle_writing import write_bundle
from usema.store import archive, cache, install


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
