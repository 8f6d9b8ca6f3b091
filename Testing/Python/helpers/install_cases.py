"""What the tests of installing share: a small model as a file, an entry for it, and what is there in the end."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import torch
from bundles import METADATA
from usema.models.bundle import read_bundle
from usema.models.bundle_writing import write_bundle
from usema.store import archive, cache, index

NAME, VERSION = METADATA["name"], METADATA["version"]


def packed(folder: Path, seed: int = 0, **changes) -> Path:
    """A model of 1 MB as a .usema file."""
    torch.manual_seed(seed)
    write_bundle(folder, {**METADATA, **changes}, {"weight": torch.randn(500_000)})
    return archive.pack(folder, folder.with_suffix(".usema"))


def entry_for(file: Path, *urls: str, **changes) -> index.Entry:
    content = file.read_bytes()
    licence = index.Licence("CC0-1.0", "https://creativecommons.org/publicdomain/zero/1.0/", True, "")
    entry = index.Entry(
        name=NAME, title="Hippocampus", description="", version=VERSION, modality="MR", anatomy="", labels=(),
        file=index.EntryFile(urls, len(content), hashlib.sha256(content).hexdigest()), licence=licence, citation="",
        minimum_engine="0.0.1", metrics={},
    )  # fmt: skip
    return replace(entry, **changes)


def assert_installed(file: Path) -> None:
    """The model of that file is in the cache, whole, and nothing is left over but locks."""
    bundle = read_bundle(cache.place(NAME, VERSION))
    bundle.verify()
    assert bundle.metadata == read_bundle(file).metadata
    assert [path for path in cache.parts().iterdir() if path.suffix != ".lock"] == []
