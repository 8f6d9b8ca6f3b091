"""Puts a model into a folder that is an index: ``NAME-VERSION.usema``, ``models.json`` and a page for people.

Such a folder works as it is from a network share, from any static web server, or as the files of a release.
Standard library only.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .. import __version__
from ..errors import BundleError, InputError, OutputError
from ..files import refuse_existing, replace_file, sha256_of_file
from ..models.bundle import Bundle
from . import archive, locks
from .index import INDEX_FILE, SCHEMA_VERSION, full_place, least_schema_version, parse, read_bytes
from .page import PAGE_FILE, render
from .versions import newer

_LOCK = ".models.json.lock"
_LOCK_SECONDS = 60.0  # to write the index takes less than a second, also onto a share
_PICTURES = (".png", ".jpg", ".jpeg")


def publish(
    bundle: Bundle,
    folder: str | os.PathLike,
    *,
    urls: Sequence[str] = (),
    picture: str | os.PathLike | None = None,
    minimum_engine: str = __version__,
    title: str | None = None,
) -> dict[str, Any]:
    """Packs a model and makes or replaces its entry. Every file appears whole, the index last but for the page.

    Args:
        bundle: the model, in a folder; it is verified.
        folder: where to; it is made, and begins an index if it holds none.
        urls: where else than beside the index people will find the file; the first that works is used, in this order.
            None given: beside the index.
        picture: PNG or JPEG of a result; copied, unless it lies in the folder. None: the entry keeps the one it has.
        minimum_engine: the oldest USEMA that runs the model.
        title: of the index; None: as it is, or after the folder.

    Returns:
        The entry, as it stands in ``models.json``.

    Raises:
        BundleError: the model is damaged, or a newer version is published already, or this one with other contents.
        InputError: the index in the folder is not valid, or an argument is not.
        OutputError: a file cannot be written.
    """
    folder = Path(os.path.abspath(folder))
    file = folder / f"{bundle.metadata.name}-{bundle.metadata.version}.usema"
    temporary = folder / f".{bundle.metadata.name}-{uuid.uuid4().hex}.usema"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            archive.pack(bundle.path, temporary)
            size, sha256 = temporary.stat().st_size, sha256_of_file(temporary)
            made = entry_of(bundle, urls or [file.name], size, sha256, minimum_engine)
            # Whoever publishes into the same folder at this moment waits: none overwrites the entry of another one.
            with locks.alone(folder / _LOCK, _LOCK_SECONDS, f"The index in {folder}", leave=False):
                return _list(made, folder, title, picture, temporary, file)
        finally:
            with suppress(OSError):  # on a disk that takes no writes, that error would hide the one above
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{error.filename or folder} cannot be written: {error.strerror or error}.") from error


def _list(
    made: dict[str, Any], folder: Path, title: str | None, picture: str | os.PathLike | None, packed: Path, file: Path
) -> dict[str, Any]:
    """Puts a packed file and its entry into the index; returns the entry as it stands there."""
    name, version = made["name"], made["version"]
    document = _document(folder, title)
    previous = next((model for model in document["models"] if model["name"] == name), None)
    if previous and newer(previous["version"], version):
        raise BundleError(
            f"{name} {previous['version']} is published in {folder}, which is newer than {version}.",
            "Give the model a higher version in model.json: nobody would get this one.",
        )
    if previous and previous["version"] == version and previous["file"]["sha256"] != made["file"]["sha256"]:
        raise BundleError(
            f"{name} {version} is published in {folder} already, with other contents.",
            "Give the model a higher version in model.json: who has this one would never get the new one.",
        )
    kept = {"picture": previous["picture"]} if previous and "picture" in previous else {}
    entry = made | (kept if picture is None else {"picture": _put_picture(Path(picture), folder, file.stem)})
    others = [model for model in document["models"] if model["name"] != name]
    document["models"] = sorted([*others, entry], key=lambda model: model["name"])
    data = to_bytes({**document, "schema_version": least_schema_version(document)})
    index = parse(data, str(folder / INDEX_FILE))  # what no reader would accept is not written
    packed.replace(file)
    replace_file(folder / INDEX_FILE, data)
    replace_file(folder / PAGE_FILE, render(index).encode("utf-8"))
    return entry


def entry_of(bundle: Bundle, urls: Sequence[str], size: int, sha256: str, minimum_engine: str) -> dict[str, Any]:
    """What an index says of a model, taken from the model's own words."""
    says = bundle.metadata.to_dict()
    return {
        **{key: says[key] for key in ("name", "title", "description", "version", "modality", "anatomy")},
        "labels": [{"name": label["name"], "color": label["color"]} for label in says["labels"]],
        "file": {
            "urls": list(urls),
            "size": size,
            "sha256": sha256,
            "metadata_sha256": bundle.metadata_sha256,
        },
        **{key: says[key] for key in ("licence", "citation")},
        "minimum_engine": minimum_engine,
        "metrics": says["metrics"],
    }


def to_bytes(document: dict[str, Any]) -> bytes:
    """An index as it is written; a folder's name may be no Unicode."""
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "replace")


def _document(folder: Path, title: str | None) -> dict[str, Any]:
    place = folder / INDEX_FILE
    if place.exists():
        document = parse(read_bytes(place), full_place(str(place))).document
    else:
        refuse_existing(folder / PAGE_FILE, overwrite=False)  # without an index, the page is somebody else's
        document = {"schema_version": SCHEMA_VERSION, "title": f"Models of {folder.name}", "models": []}
    return {**document, **({"title": title} if title else {})}


def _put_picture(picture: Path, folder: Path, stem: str) -> str:
    """The picture's address relative to the index."""
    if picture.suffix.lower() not in _PICTURES or not picture.is_file():
        raise InputError(f"{picture} is no picture.", f"Name a file that ends with {', '.join(_PICTURES)}.")
    picture = Path(os.path.abspath(picture))
    if not picture.is_relative_to(folder):
        replace_file(folder / f"{stem}{picture.suffix.lower()}", picture.read_bytes())
        picture = folder / f"{stem}{picture.suffix.lower()}"
    return quote(picture.relative_to(folder).as_posix())
