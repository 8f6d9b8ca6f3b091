"""The file that the tests of downloads download, and what they all ask about it."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest
from usema.errors import StoreError
from usema.store.download import fetch
from usema.store.faults import shown

SIZE = 1_000_000
CONTENT = random.Random(0).randbytes(SIZE)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
IMPORT = "usema models import FILE"


def get(urls, target, **options) -> Path:
    urls = [urls] if isinstance(urls, str) else urls
    return fetch(urls, target, **{"size": SIZE, "sha256": SHA256, **options})


def part_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def put_part(target: Path, data: bytes) -> None:
    target.parent.mkdir(parents=True)
    part_of(target).write_bytes(data)


def assert_whole(target: Path) -> None:
    """The file is there, and nothing else."""
    assert hashlib.sha256(target.read_bytes()).hexdigest() == SHA256
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def refused(urls, target, **options) -> StoreError:
    """The error; the target is not there, and the message names the first address and the way without a network."""
    with pytest.raises(StoreError) as caught:
        get(urls, target, **options)
    assert not target.exists()
    first = urls if isinstance(urls, str) else urls[0]
    assert shown(first) in caught.value.message
    assert IMPORT in caught.value.hint
    return caught.value
