"""Models found by what they segment: those that are here, those that lists offer, public ones.

The panel and the command line search with it, so they give the same answers. Offline, within milliseconds.
Standard library only at file scope.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import expected, shelf, shelf_install, words
from .expected import NOTHING, Expected
from .library import AVAILABLE, KnownModel, Library
from .shelf import PublicEntry

_EVERYWHERE = "whole body"  # models of that region find what lies in any


@dataclass(frozen=True)
class Measures:
    """The size of the volume that a model is to run on, as far as memory and time depend on it.

    Attributes:
        shape: (z, y, x) voxels.
        spacing: (z, y, x) mm.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]


@dataclass(frozen=True)
class Found:
    """A model that a search found.

    Attributes:
        model: as the library knows it.
        structures: names of those that were searched for; empty: the search names none.
        public: the model on the shelf of public ones; None: it is not from there.
        needs: titles of further models that are downloaded with it.
        size: bytes to download, with those; 0: nothing is to be downloaded, or nothing is known.
        is_size_known: whether that is all.
        takes: what is known of time and memory of one run on this computer.
        volume: that this is of; None: a usual one.
    """

    model: KnownModel
    structures: tuple[str, ...] = ()
    public: PublicEntry | None = None
    needs: tuple[str, ...] = ()
    size: int = 0
    is_size_known: bool = True
    takes: Expected = NOTHING
    volume: Measures | None = None

    @property
    def is_here(self) -> bool:
        return self.model.path is not None


def regions() -> list[str]:
    """Of the body, as the shelf has them."""
    return sorted({entry.model.region for entry in shelf.entries()})


def search(
    known: Library, text: str = "", modality: str = "", region: str = "", volume: Measures | None = None
) -> list[Found]:
    """The models that a person means: those that are here first, then those of lists, then public ones.

    Args:
        known: what this computer knows; the shelf is searched too.
        text: words such as "left adrenal", in English or German; empty: all.
        modality: DICOM's; empty: any.
        region: as ``regions`` has it; empty: any. Who searches for a structure also gets models of the whole body.
        volume: to be segmented; None: a usual one for each model.
    """
    modality, region = modality.strip().upper(), region.strip().lower()
    on_shelf = shelf.search(text, modality, region)
    if region and text.strip():
        on_shelf += [entry for entry in shelf.search(text, modality, _EVERYWHERE) if entry not in on_shelf]
    place = {entry.name: number for number, entry in enumerate(on_shelf)}
    here, offered = [], []
    for model in known.models:
        public = public_of(model)
        is_meant = public is not None and public.name in place
        if public is None or (model.path and not is_meant):  # what is here may name more than the shelf does
            is_meant = modality in ("", model.modality) and _is_in(region, text, model, public)
            is_meant = is_meant and words.rank(text, model.title, [label.name for label in model.labels]) is not None
        if is_meant:
            (here if model.path else offered).append(model)
    here.sort(key=lambda model: place.get(model.name, -1))
    names = {model.name for model in known.models}
    public = [known.get(entry.name) for entry in on_shelf if entry.name not in names]
    return [_found(model, known, text, volume) for model in (*here, *offered, *public)]


def describe(model: KnownModel, known: Library, volume: Measures | None = None) -> Found:
    """What there is to know of one model."""
    return _found(model, known, "", volume)


def public_of(model: KnownModel) -> PublicEntry | None:
    """The model on the shelf, if it is from there; a list's own model of the same name is not."""
    if model.entry is None:
        return shelf.find(model.name)
    return model.entry if isinstance(model.entry, PublicEntry) else None


def _is_in(region: str, text: str, model: KnownModel, public: PublicEntry | None) -> bool:
    """Whether a model is for a region; one that does not say it in one word is, if a structure was searched for."""
    if not region:
        return True
    if public is not None:
        return public.model.region == region or (public.model.region == _EVERYWHERE and bool(text.strip()))
    return bool(text.strip()) or words.rank(region, model.anatomy, ()) is not None


def _found(model: KnownModel, known: Library, text: str, volume: Measures | None) -> Found:
    structures = tuple(words.structures(text, [label.name for label in model.labels]))
    public = public_of(model)
    if public is None:
        return Found(model, structures, size=model.size if model.state == AVAILABLE else 0)
    here = {one.name for one in known.models if one.path}
    together = [] if model.path else shelf.needed(public, here)
    size, is_size_known = shelf_install.to_download(together)
    shape, spacing = (volume.shape, volume.spacing) if volume else (None, None)
    takes = expected.of(public.model, shape, spacing, model.bundle.metadata if model.bundle else None)
    return Found(
        model, structures, public, tuple(one.title for one in together[:-1]), size, is_size_known, takes, volume
    )
