"""What the user chose for the model store: a small JSON that the panel and the command line share.

It lies in the user's configuration folder, or where the environment variable ``USEMA_SETTINGS`` says. Standard library
only at file scope.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .. import strict_json
from ..errors import InputError, MissingDependencyError, OutputError
from ..files import replace_file, user_place
from ..json_schema import problems
from . import locks, web
from .faults import shown
from .index import Entry, full_place

if TYPE_CHECKING:
    from .consent import Question

ENVIRONMENT_VARIABLE = "USEMA_SETTINGS"
_LOCK_SECONDS = 2.0  # how long a change, which takes milliseconds, waits for another one; the panel waits with it
_TEXTS = {"type": "array", "items": {"type": "string", "minLength": 1}}
_SCHEMA = {
    "type": "object",
    "properties": {"indexes": _TEXTS, "ca_bundle": {"type": "string"}, "accepted_licences": _TEXTS},
}


@dataclass(frozen=True)
class Settings:
    """The settings.

    Attributes:
        indexes: places of the user's own indexes, in the order in which they are looked through.
        ca_bundle: file with the certificates (PEM) that downloads trust, for an institution with its own; empty: the
            system's.
        accepted_licences: what ``accept`` wrote.
    """

    indexes: tuple[str, ...] = ()
    ca_bundle: str = ""
    accepted_licences: tuple[str, ...] = ()

    def accepts(self, model: Entry | Question) -> bool:
        """Whether a model may be installed without a question: its licence is free for all uses, or was accepted."""
        free = model.licence.commercial_use and model.licence.open != "not stated"
        return free or _licence_key(model) in self.accepted_licences


def file() -> Path:
    """Where the settings lie.

    Raises:
        MissingDependencyError: platformdirs, which knows where that is, is not installed.
        NoPlaceError: this user has no home.
    """
    return user_place(ENVIRONMENT_VARIABLE, "config", "models.json", title="Settings of the model store", what="file")


def read() -> Settings:
    """The settings; those of a new user if there are none yet.

    Raises:
        InputError: the file cannot be read, or is not what ``write`` writes.
    """
    try:
        path = file()
        document = strict_json.loads(path.read_bytes())
    except (FileNotFoundError, MissingDependencyError):
        return Settings()
    except OSError as error:
        raise InputError(
            f"The settings {path} cannot be read: {error.strerror or error}.",
            f"Name another file in {ENVIRONMENT_VARIABLE}, or ask whoever looks after this computer.",
        ) from error
    except ValueError as error:
        raise InputError(f"The settings {path} cannot be read: {error}.", "Correct or delete the file.") from error
    for problem in problems(document, _SCHEMA):
        raise InputError(f"The settings {path} are not valid: {problem}.", "Correct or delete the file.")
    return Settings(
        tuple(document.get("indexes", ())), document.get("ca_bundle", ""), tuple(document.get("accepted_licences", ()))
    )


def write(settings: Settings) -> None:
    """Keeps the settings.

    Raises:
        OutputError: they cannot be written.
    """
    path = file()
    try:
        replace_file(path, json.dumps(asdict(settings), indent=2, ensure_ascii=False).encode("utf-8"))
    except OSError as error:
        raise OutputError(f"The settings {path} cannot be written: {error.strerror or error}.") from error


def add_index(place: str) -> str:
    """Adds an index behind the user's others, without fetching it; returns its full place.

    Raises:
        InputError: it is no place of an index, or is there already.
    """
    place = full_place(place)

    def add(settings: Settings) -> Settings:
        if place in settings.indexes:
            raise InputError(f"The index {shown(place)} is there already.")
        return replace(settings, indexes=(*settings.indexes, place))

    _change(add)
    return place


def remove_index(place: str) -> str:
    """Takes an index away again; models that came from it stay. Returns its full place.

    Args:
        place: of the index; without a query it does, too, if no other is shown alike.

    Raises:
        InputError: it is not there; lists those that are.
    """
    place, removed = full_place(place), []

    def take_away(settings: Settings) -> Settings:
        alike = [one for one in settings.indexes if one == place] or [
            one for one in settings.indexes if shown(one) == place
        ]
        if len(alike) != 1:
            known = ", ".join(map(shown, settings.indexes)) or "none"
            raise InputError(f"There is no index {shown(place)}.", f"Known: {known}.")
        removed.extend(alike)
        return replace(settings, indexes=tuple(one for one in settings.indexes if one not in alike))

    _change(take_away)
    return removed[0]


def trust(ca_bundle: str | os.PathLike) -> None:
    """Sets the file of certificates that downloads trust; empty: the system's.

    Raises:
        InputError: there is no such file.
        StoreError: it holds no certificates.
    """
    path = os.path.abspath(os.path.expanduser(ca_bundle)) if ca_bundle else ""
    if path and not os.path.isfile(path):
        raise InputError(f"There is no file {path}.", "Name the file with your institution's certificates (PEM).")
    if path:
        web.trusting(path)
    _change(lambda settings: replace(settings, ca_bundle=path))


def accept(model: Entry | Question) -> None:
    """Remembers that the user accepted the licence of a model, so that a new version with the same one does not ask."""
    if not read().accepts(model):
        key = _licence_key(model)
        _change(lambda settings: replace(settings, accepted_licences=(*settings.accepted_licences, key)))


def _change(how: Callable[[Settings], Settings]) -> None:
    """Changes what is kept, one process at a time: none undoes what another one wrote.

    Raises:
        OutputError: another process changes them all the time.
    """
    path = file()
    with locks.alone(path.with_name(f"{path.name}.lock"), _LOCK_SECONDS, f"The settings {path}"):
        write(how(read()))


def _licence_key(model: Entry | Question) -> str:
    said = {key: value for key, value in asdict(model.licence).items() if value != ""} | {
        "attribution": model.licence.attribution  # so that what was accepted before there were other texts stays so
    }
    terms = json.dumps(said, sort_keys=True)
    return f"{model.name} {model.licence.name} {hashlib.sha256(terms.encode()).hexdigest()[:16]}"
