"""An index: a ``models.json`` that lists models to download. Standard library only.

Its rules stand in ``models.schema.json`` beside this file. Where it says ``urls`` or ``picture``, an address may be
relative to the index itself, so a folder with ``models.json`` and its ``.usema`` files works from any web server, disk
or network share without a change.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import url2pathname

from .. import __version__, strict_json
from ..errors import InputError
from ..json_schema import problems
from .faults import shown
from .versions import newer

INDEX_FILE = "models.json"
SCHEMA_VERSION = 3  # the newest that is read; least_schema_version is what is written
SCHEMA = json.loads(Path(__file__).with_name("models.schema.json").read_text(encoding="utf-8"))
MAX_INDEX_BYTES = 4 * 2**20  # an entry takes about 2 KB; a larger file is something else


@dataclass(frozen=True)
class EntryLabel:
    """One class of a model: its name and its colour (red, green, blue, each 0 to 255)."""

    name: str
    color: tuple[int, int, int]


@dataclass(frozen=True)
class EntryFile:
    """The model as one ``.usema`` file.

    Attributes:
        urls: mirrors, in the order they are tried; each an ``http://`` or ``https://`` address, or the absolute path
            of a file on this computer or on a share.
        size: bytes.
        sha256: of the whole file, in lower-case hex.
        metadata_sha256: of the ``model.json`` in it; empty where the index does not say.
    """

    urls: tuple[str, ...]
    size: int
    sha256: str
    metadata_sha256: str = ""


@dataclass(frozen=True)
class Licence:
    """What may be done with a model; ``commercial_use`` False: the user is asked before it is downloaded."""

    name: str
    url: str
    commercial_use: bool
    attribution: str
    open: str = ""  # "yes", "no", "not stated", or nothing is said of it
    stated_at: str = ""


@dataclass(frozen=True)
class Entry:
    """A model that an index offers; ``models.schema.json`` describes each field.

    Attributes:
        picture: address or path like those of ``file.urls``, or None.
        source: title of the index that it comes from; the library adds its address where two have one title.
    """

    name: str
    title: str
    description: str
    version: str
    modality: str
    anatomy: str
    labels: tuple[EntryLabel, ...]
    file: EntryFile
    licence: Licence
    citation: str
    minimum_engine: str
    metrics: dict[str, Any]
    picture: str | None = None
    source: str = ""

    @property
    def why_not(self) -> str:
        """Why this USEMA cannot run the model; empty if it can."""
        if newer(self.minimum_engine, __version__):
            return f"{self.title} {self.version} needs USEMA {self.minimum_engine} or newer, this is {__version__}."
        return ""


@dataclass(frozen=True)
class Index:
    """What a valid ``models.json`` says.

    Attributes:
        place: the address or path it was read from.
        document: the JSON as it stands, with relative addresses; what a page or a new index is made from.
    """

    place: str
    title: str
    entries: tuple[Entry, ...]
    document: dict[str, Any]


def is_remote(place: str) -> bool:
    """Whether a place is an address on the web, and not a path."""
    return urlsplit(place).scheme in ("http", "https")


def full_place(place: str) -> str:
    """The one spelling of where an index lies, so that it is not added twice.

    Args:
        place: the address or path of a ``models.json`` or of the folder that holds it; ``file:`` addresses too.

    Raises:
        InputError: an address with a password, or of another kind.
    """
    try:
        parts = urlsplit(place)
    except ValueError as error:
        raise _no_place(place) from error
    if is_remote(place):
        if parts.username or parts.password:
            raise InputError(
                f"The address of {parts.hostname} has a user or password in it.", "Put them into the file .netrc."
            )
        path = parts.path if parts.path.endswith(".json") else f"{parts.path.rstrip('/')}/{INDEX_FILE}"
        return parts._replace(path=path, fragment="").geturl()
    if parts.scheme == "file":
        place = url2pathname(f"//{parts.netloc}{parts.path}" if parts.netloc else parts.path)
    elif "://" in place:
        raise _no_place(place)
    path = os.path.abspath(os.path.expanduser(place))  # unlike resolve(), it leaves shares and drive letters as named
    return path if path.endswith(".json") else os.path.join(path, INDEX_FILE)


def _no_place(place: str) -> InputError:
    return InputError(f"{shown(place)} is no address of an index.", "It begins with https:// or http://, or is a path.")


def parse(data: bytes, place: str) -> Index:
    """Checks the bytes of a ``models.json``. Unknown keys are refused: most are slips of the pen.

    Args:
        data: UTF-8 JSON.
        place: where it lies, as ``full_place`` gives it: relative addresses start there.

    Raises:
        InputError: names the first thing that is wrong; or the index needs a newer USEMA.
    """
    hint, where = "Tell whoever keeps the index.", shown(place)
    if len(data) > MAX_INDEX_BYTES:
        raise InputError(f"The index {where} has more than {MAX_INDEX_BYTES} bytes.", hint)
    try:
        document = strict_json.loads(data)
    except ValueError as error:
        raise InputError(f"The index {where} is not valid JSON: {error}.", hint) from error
    version = document.get("schema_version") if isinstance(document, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        reads = f"schema {version}, this one reads {SCHEMA_VERSION}"
        raise InputError(f"The index {where} is made for a newer USEMA ({reads}).", "Update USEMA.")
    # chain is lazy: names are only compared once they are known to be there.
    for problem in chain(problems(document, SCHEMA), _contradictions(document)):
        raise InputError(f"The index {where} is not valid: {problem}.", hint)
    entries = tuple(_entry(model, place, document["title"]) for model in document["models"])
    return Index(place, document["title"], entries, document)


def least_schema_version(document: dict[str, Any]) -> int:
    """The oldest version of the schema that knows a valid document's keys, so that older USEMAs read what they can."""
    models, new = document["models"], ("metadata_sha256", "open", "stated_at")
    if any(model["licence"]["url"] == "" for model in models):
        return 3
    return 2 if any(key in model["file"] or key in model["licence"] for model in models for key in new) else 1


def read_bytes(path: str | os.PathLike) -> bytes:
    """The bytes of a ``models.json`` on disk, for ``parse``.

    Raises:
        InputError: it is not there or cannot be read.
    """
    try:
        if os.path.exists(path) and not os.path.isfile(path):  # a pipe or a device could be waited for, for ever
            raise OSError("it is no file")
        with open(path, "rb") as stream:
            return stream.read(MAX_INDEX_BYTES + 1)
    except OSError as error:
        raise InputError(
            f"The index {path} cannot be read: {error.strerror or error}.",
            f"Check that the disk or share is there, and that the folder holds a {INDEX_FILE}.",
        ) from error


def _entry(model: dict[str, Any], place: str, source: str) -> Entry:
    file, picture = model["file"], model.get("picture")
    return Entry(
        **{
            **model,
            "labels": tuple(EntryLabel(one["name"], tuple(map(int, one["color"]))) for one in model["labels"]),
            "file": EntryFile(
                **{**file, "urls": tuple(_absolute(url, place) for url in file["urls"]), "size": int(file["size"])}
            ),
            "licence": Licence(**model["licence"]),
            "picture": None if picture is None else _absolute(picture, place),
            "source": source,
        }
    )


def _absolute(url: str, place: str) -> str:
    """An address in an index, seen from where the index lies."""
    with suppress(ValueError):  # what urllib takes for no address at all
        if is_remote(place):
            url = urljoin(place, url)
        elif not urlsplit(url).scheme:
            return os.path.join(os.path.dirname(place), *unquote(url).split("/"))
        if is_remote(url):
            return url
    # A page on the web must not make this computer read its own files.
    raise InputError(
        f"The index {shown(place)} names {shown(url)}, which is neither on the web nor relative to the index.",
        "Tell whoever keeps the index.",
    )


def _contradictions(document: dict) -> Iterator[str]:
    """What a valid document may still get wrong, because JSON Schema cannot compare two values."""
    first: dict[str, int] = {}
    for position, model in enumerate(document["models"]):
        if first.setdefault(model["name"], position) != position:
            yield f"models[{position}].name is {model['name']!r}, as models[{first[model['name']]}].name is"
