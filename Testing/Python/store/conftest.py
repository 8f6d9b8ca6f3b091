"""Models of a few kilobytes to offer and to install."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from bundles import write_tiny_bundle
from usema.models.bundle import read_bundle
from usema.store import cache, indexes, publish, settings


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """bundle(name, version): made once."""
    folder, made = tmp_path_factory.mktemp("bundles"), {}

    def bundle(name: str, version: str = "1.0.0", **changes) -> Path:
        key = f"{name}-{version}-{len(changes)}"
        if key not in made:
            made[key] = write_tiny_bundle(folder / key, name=name, version=version, **changes).path
        return made[key]

    return bundle


@pytest.fixture
def install(bundles):
    """As the installation leaves it: a bundle's folder in the cache."""

    def into_cache(name: str, version: str = "1.0.0") -> Path:
        return Path(shutil.copytree(bundles(name, version), cache.place(name, version)))

    return into_cache


@pytest.fixture
def offer(bundles, tmp_path):
    """A folder that offers models, added as an index; returns the place."""

    def add(title: str, *models: tuple[str, str], **options) -> str:
        for name, version in models:
            publish.publish(read_bundle(bundles(name, version)), tmp_path / title, title=title, **options)
        indexes.fetch(str(tmp_path / title))
        return settings.add_index(str(tmp_path / title))

    return add
