"""All models that this computer knows: those that came with USEMA, those installed, those that an index offers.

Nothing here goes over the network. Standard library only.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import BundleError, UsemaError
from ..models.bundle import METADATA_FILE, Bundle, read_bundle
from ..resources import bundled_models
from . import cache, indexes, shelf, versions
from .index import Entry, EntryLabel, Licence

BUNDLED = "bundled"  # came with USEMA
INSTALLED = "installed"  # in the cache
UPDATE = "update"  # here, and an index offers a newer version
AVAILABLE = "available"  # an index offers it, it is not here


@dataclass(frozen=True)
class KnownModel:
    """One model, by its name.

    Attributes:
        name: how commands and folders call it.
        state: BUNDLED, INSTALLED, UPDATE or AVAILABLE.
        path: folder of the newest version that is here, the one that is used; None if none is.
        bundle: what is in that folder; None if none is here, or if it cannot be read.
        problem: why it cannot be read; else empty.
        entry: what the first index that knows the name offers; None: no index does.
        others: what further indexes offer under the same name; they are shown and not used.
    """

    name: str
    state: str
    path: Path | None = None
    bundle: Bundle | None = None
    problem: str = ""
    entry: Entry | None = None
    others: tuple[Entry, ...] = ()

    @property
    def _says(self):
        """Metadata or entry, whichever there is: both name title, version, modality, labels, ... alike."""
        return self.bundle.metadata if self.bundle else self.entry

    @property
    def title(self) -> str:
        return self._says.title if self._says else self.name

    @property
    def version(self) -> str:
        """Of the bundle that is here, else of the entry."""
        return self._says.version if self._says else ""

    @property
    def modality(self) -> str:
        return self._says.modality if self._says else ""

    @property
    def anatomy(self) -> str:
        return self._says.anatomy if self._says else ""

    @property
    def labels(self) -> tuple[EntryLabel, ...]:
        return tuple(EntryLabel(label.name, label.color) for label in self._says.labels) if self._says else ()

    @property
    def dice_by_speed(self) -> dict[str, float]:
        """By how much the mean Dice of a speed differs from that of an exact run, as its maker measured it."""
        measured = self._says.metrics.get("speeds") if self._says else None
        found = {}
        for name, figures in measured.items() if isinstance(measured, Mapping) else ():
            difference = figures.get("difference") if isinstance(figures, Mapping) else None
            if isinstance(difference, (int, float)) and math.isfinite(difference):
                found[name] = float(difference)
        return found

    @property
    def licence(self) -> Licence | None:
        if self.bundle:
            return Licence(**self.bundle.metadata.licence)
        return self.entry.licence if self.entry else None

    @property
    def size(self) -> int:
        """Bytes on disk, else bytes to download."""
        if self.path:
            return cache.size_of(self.path)
        return self.entry.file.size if self.entry else 0

    @property
    def source(self) -> str:
        """Whence what is here came, and else whence it is to be had.

        Title of an index, name of a publisher, "USEMA" for what came with it, cache.FILE for what was imported.
        """
        if self.path is None:
            return self.entry.source if self.entry else ""
        place = cache.installed_at(self.path)
        if place is None:
            return "USEMA"
        _, noted = cache.noted(*place)
        return noted or self._offered_by(place[1])

    def _offered_by(self, version: str) -> str:
        """Of what was installed before its source was kept: the index that offers this version; nobody else's name."""
        offers = [entry for entry in (self.entry, *self.others) if entry and entry.version == version]
        return offers[0].source if offers else "unknown"

    @property
    def why_not(self) -> str:
        """Why this USEMA cannot run what the index offers; empty if it can, or if there is nothing to download."""
        return self.entry.why_not if self.entry and self.state in (AVAILABLE, UPDATE) else ""


@dataclass(frozen=True)
class Library:
    """All known models by name, and what went wrong while looking: sentences for the user."""

    models: tuple[KnownModel, ...]
    problems: tuple[str, ...] = ()

    def get(self, name: str) -> KnownModel | None:
        """The model of that name; of the shelf, where neither this computer nor an index knows it."""
        known = next((model for model in self.models if model.name == name), None)
        public = shelf.find(name) if known is None else None
        return known if public is None else KnownModel(name, AVAILABLE, entry=public)


def library() -> Library:
    """Looks at bundled and installed models and at the last copies of the indexes: offline, and within milliseconds."""
    problems = [problem] if (problem := cache.problem()) else []
    try:
        sources = indexes.sources()
    except UsemaError as error:
        sources = indexes.ours()
        problems.append(str(error))
    problems += [source.problem for source in sources if source.problem]
    names_of = indexes.names(sources)
    offers: dict[str, list[Entry]] = {}
    for source in sources:
        for entry in source.index.entries if source.index else ():
            offers.setdefault(entry.name, []).append(replace(entry, source=names_of[source.place]))
    names = {*offers, *bundled_models(), *(model.name for model in cache.installed())}
    return Library(tuple(_known(name, offers.get(name, [])) for name in sorted(names)), tuple(problems))


def find_model(name_or_path: str | os.PathLike) -> Path:
    """The path of a bundle: the newest version that is here of the model of that name, else the path itself.

    Raises:
        BundleError: neither is here; says how to download it, or lists the names that are known. Or both are, and are
            not the same model: nobody should get another one than they think.
    """
    here, path = _newest_here(os.fspath(name_or_path)), Path(name_or_path)
    if here is not None:
        if _is_there(path / METADATA_FILE) and read_bundle(path).metadata != read_bundle(here).metadata:
            raise BundleError(
                f"{str(name_or_path)!r} is the name of a model that is here, and a folder with another one.",
                f"Write {os.path.join(os.curdir, path)} for the folder, or {here} for the model of that name.",
            )
        return here
    if _is_there(path):
        return path
    known = library()
    model = known.get(str(name_or_path))
    if model is not None:
        raise BundleError(
            f"The model {model.name!r} is not on this computer yet.",
            model.why_not or f"`usema models download {model.name}` gets it ({model.size / 1e6:.1f} MB).",
        )
    names = [model.name for model in known.models if model.path]
    raise BundleError(
        f"There is no model {str(name_or_path)!r}.",
        f"Known models: {', '.join(names) or 'none'}. The path of a bundle, a folder or a zip, does as well.",
    )


def _is_there(path: Path) -> bool:
    """Also where the present folder may not be looked at, which is no reason to know no model."""
    try:
        return path.exists()
    except OSError:
        return False


def find_folder(path: str | os.PathLike) -> Bundle:
    """A bundle that is to be changed: in a folder of the user's own, named by its path.

    Raises:
        BundleError: it is not here, is one file, or its folder cannot be written. Or it was given by its name: what
            came with USEMA or was installed stays as it was published, else nobody could tell whether it is damaged.
    """
    here = _newest_here(os.fspath(path))
    if here is not None:
        raise BundleError(
            f"{str(path)!r} is the name of a model that came with USEMA or was installed, which stays as it is.",
            f"Copy {here} to a folder of your own, and give that folder's path: {os.path.join(os.curdir, path)}.",
        )
    bundle = read_bundle(find_model(path))
    if not Path(bundle.path).is_dir():
        raise BundleError(f"{bundle.path} is no folder, and what is measured is written into one.", "Unpack it first.")
    if not os.access(bundle.path, os.W_OK):
        raise BundleError(f"{bundle.path} cannot be written.", "Copy the model to a folder of your own.")
    return bundle


def find_entry(name: str) -> Entry:
    """What the first index that knows a model offers.

    Raises:
        BundleError: no index knows it.
    """
    known = library()
    model = known.get(name)
    if model is not None and model.entry is not None:
        return model.entry
    names = [model.name for model in known.models if model.entry]
    raise BundleError(
        f"No index offers a model {name!r}.",
        f"On offer: {', '.join(names) or 'nothing'}. Check for new ones (command line: usema models list --refresh).",
    )


def _newest_here(name: str) -> Path | None:
    """The folder that is used for a name. What is installed wins over what came with USEMA, unless that is newer."""
    installed = cache.installed_versions(name)
    bundled = bundled_models().get(name)
    if not installed:
        return bundled
    if bundled is not None:
        try:
            if versions.newer(read_bundle(bundled).metadata.version, installed[0]):
                return bundled
        except UsemaError:
            pass  # a broken one is no reason to leave the other unused
    return cache.place(name, installed[0])


def _known(name: str, offers: list[Entry]) -> KnownModel:
    path, bundle, problem = _newest_here(name), None, ""
    if path is None:
        return KnownModel(name, AVAILABLE, entry=offers[0], others=tuple(offers[1:]))
    try:
        bundle = read_bundle(path)
    except UsemaError as error:
        problem = str(error)
    state = BUNDLED if path == bundled_models().get(name) else INSTALLED
    if offers and bundle and versions.newer(offers[0].version, bundle.metadata.version):
        state = UPDATE
    return KnownModel(name, state, path, bundle, problem, offers[0] if offers else None, tuple(offers[1:]))
