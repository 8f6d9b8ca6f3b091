"""Whether a model is as it was published: its weights by its own ``model.json``, and that by what is known of it.

Standard library only.
"""

from __future__ import annotations

from ..errors import BundleError, UsemaError
from ..models.bundle import METADATA_FILE, Bundle
from . import cache, indexes


def verify(bundle: Bundle) -> str:
    """Reads a whole bundle and compares it with hashes.

    Returns:
        What it was compared with, as the end of a sentence.

    Raises:
        BundleError: the weights or ``model.json`` are not what they should be.
    """
    bundle.verify()
    said = bundle.metadata.name, bundle.metadata.version
    place = cache.installed_at(bundle.path)
    if place not in (None, said):
        raise BundleError(
            f"{bundle.path}: {METADATA_FILE} was changed: it is that of {' '.join(said)}.", "Get the model again."
        )
    known = _published(*said)
    if place and (noted := cache.noted(*said)[0]):
        known.setdefault(noted, "when it was installed")
    if not known:
        return "verified (its weights; no index here has the hash of its model.json)"
    if bundle.metadata_sha256 not in known:
        said = "; ".join(f"{where} it was {sha256}" for sha256, where in known.items())
        raise BundleError(
            f"{bundle.path}: {METADATA_FILE} was changed: its SHA-256 is {bundle.metadata_sha256}, {said}.",
            "If you did not calibrate or measure it yourself, get the model again.",
        )
    return "verified (weights and model.json)"


def _published(name: str, version: str) -> dict[str, str]:
    """Hashes of that version's ``model.json`` -> where they stand."""
    found: dict[str, str] = {}
    try:
        sources = indexes.sources()
    except UsemaError:  # the user's settings cannot be read
        sources = indexes.ours()
    for source in sources:
        for entry in source.index.entries if source.index else ():
            if (entry.name, entry.version) == (name, version) and entry.file.metadata_sha256:
                found.setdefault(entry.file.metadata_sha256, f"in the index {source.title}")
    return found
