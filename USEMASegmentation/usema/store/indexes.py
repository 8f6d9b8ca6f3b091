"""Which indexes there are: the user's own, in their order, then USEMA's.

Of each of the user's own the last good copy is kept in the cache, so that listing models needs no network and is quick
even if an index lies on a share that is away. Only ``refresh`` and ``fetch`` look at where an index really lies.
Standard library only at file scope.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ..errors import InputError, OutputError, StoreError, UsemaError
from ..files import replace_file
from ..resources import resources_folder
from . import cache, download, settings, web
from .faults import Fault, shown
from .index import INDEX_FILE, MAX_INDEX_BYTES, Index, full_place, is_remote, parse, read_bytes
from .pace import Pace

_parsed = lru_cache(maxsize=8)(parse)  # the panel asks again and again; whoever changes an index parses it anew


@dataclass(frozen=True)
class Source:
    """An index that models are looked for in.

    Attributes:
        place: its address or path.
        index: what its last good copy says; None if there is none.
        fetched: when that was fetched, in seconds since 1970; None for USEMA's own index, which came with it.
        problem: why there is no copy; else empty.
    """

    place: str
    index: Index | None
    fetched: float | None = None
    problem: str = ""

    @property
    def title(self) -> str:
        return self.index.title if self.index else shown(self.place)

    @property
    def age(self) -> str:
        """How old the copy is, in words."""
        if self.index is None:
            return "never fetched"
        if self.fetched is None:
            return "came with USEMA"
        seconds = max(0.0, time.time() - self.fetched)
        for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
            if seconds >= length:
                number = int(seconds // length)
                return f"{number} {unit}{'s' if number > 1 else ''} old"
        return "fresh"


def sources() -> list[Source]:
    """Every index, the one that wins first: a department may offer a model under the name of one of ours.

    Raises:
        InputError: the settings cannot be read.
    """
    return [*map(_copy_of, settings.read().indexes), *ours()]


def names(found: Sequence[Source]) -> dict[str, str]:
    """What each index is called, by its place: its title, with its address where others have the same title."""
    titles = Counter(source.title for source in found)
    return {
        source.place: source.title if titles[source.title] == 1 else f"{source.title} ({shown(source.place)})"
        for source in found
    }


def refresh() -> list[str]:
    """Fetches all of the user's own indexes.

    Returns:
        a sentence for each that could not be fetched; of those the last copy stays in use.
    """
    failed = []
    for place in settings.read().indexes:
        try:
            fetch(place)
        except UsemaError as error:
            failed.append(str(error))
    return failed


def fetch(place: str) -> Index:
    """Fetches an index from where it lies and keeps a copy. If it cannot be had or is not valid, the last copy stays.

    Args:
        place: an address, over the network, or a path.

    Raises:
        UsemaError: it cannot be fetched, is not valid, or the copy cannot be written.
    """
    place = full_place(place)
    data = _download(place) if is_remote(place) else read_bytes(place)
    index = parse(data, place)
    path = _copy_path(place)
    try:
        replace_file(path, data)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}.") from error
    return index


def forget(place: str) -> None:
    """Deletes the copy of an index."""
    _copy_path(full_place(place)).unlink(missing_ok=True)


def _download(place: str) -> bytes:
    data = bytearray()
    try:
        pace = Pace(download.SLOWEST, download.SLOW_SECONDS)
        with web.open_session(settings.read().ca_bundle, [place]) as session:
            for chunk in web.read_from(session, place, 0, None, pace):
                data += chunk
                if len(data) > MAX_INDEX_BYTES:  # parse says so
                    break
    except Fault as fault:
        raise StoreError(f"The index {shown(place)} {fault.reason}.", fault.hint) from fault
    return bytes(data)


def _copy_path(place: str) -> Path:
    return cache.folder() / ".indexes" / f"{hashlib.sha256(place.encode()).hexdigest()[:16]}.json"


def _copy_of(place: str) -> Source:
    try:
        path = _copy_path(place)
        if not path.is_file():
            hint = "Check for new models (command line: usema models list --refresh)."
            return Source(place, None, problem=f"The index {shown(place)} was never fetched. {hint}")
        return Source(place, _parsed(read_bytes(path), place), path.stat().st_mtime)
    except UsemaError as error:
        return Source(place, None, problem=str(error))
    except OSError as error:  # a cache that may not be looked at
        return Source(place, None, problem=f"The copy of the index {shown(place)}: {error.strerror or error}.")


def ours() -> list[Source]:
    """USEMA's own index, which is there whatever the user's settings are."""
    try:
        place = str(resources_folder() / INDEX_FILE)
        return [Source(place, _parsed(read_bytes(place), place))] if os.path.isfile(place) else []
    except InputError as error:
        return [Source("USEMA", None, problem=str(error))]
