"""Models found by what they segment: those that are here, those that lists offer, public ones. No Qt and no pop-ups."""

from __future__ import annotations

from dataclasses import dataclass

from usema.store import expected, shelf
from usema.store.expected import NOTHING, Expected
from usema.store.library import AVAILABLE, KnownModel, Library
from usema.store.shelf import PublicEntry

MODALITIES = ("CT", "MR")
_EVERYWHERE = "whole body"  # models of that region find what lies in any


@dataclass(frozen=True)
class Found:
    """A model that a search found.

    Attributes:
        model: as the library knows it.
        structures: names of those that were searched for; empty: the search names none.
        public: the model on the shelf of public ones; None: it is not from there.
        needs: titles of further models that are downloaded with it.
        size: bytes to download, with those; 0: nothing is to be downloaded, or nothing is known.
        isSizeKnown: whether that is all.
        takes: what is known of time and memory of one run on this computer.
    """

    model: KnownModel
    structures: tuple[str, ...] = ()
    public: PublicEntry | None = None
    needs: tuple[str, ...] = ()
    size: int = 0
    isSizeKnown: bool = True
    takes: Expected = NOTHING

    @property
    def isHere(self) -> bool:
        return self.model.path is not None

    @property
    def labelCount(self) -> int:
        """How many structures it finds; ``model.labels`` is empty where only the publisher's file names them."""
        return len(self.model.labels) or (self.public.model.label_count if self.public else 0)


def regions() -> list[str]:
    """Of the body, as the shelf has them."""
    return sorted({entry.model.region for entry in shelf.entries()})


def search(known: Library, text: str = "", modality: str = "", region: str = "") -> list[Found]:
    """The models that a person means: those that are here first, then those of lists, then public ones.

    Args:
        known: what this computer knows; the shelf is searched too.
        text: words such as "left adrenal", in English or German; empty: all.
        modality: DICOM's; empty, or one that no model has: any.
        region: as ``regions`` has it; empty: any. Who searches for a structure also gets models of the whole body.
    """
    modality = modality if modality in MODALITIES else ""
    onShelf = shelf.search(text, modality, region)
    if region and text.strip():
        onShelf += [entry for entry in shelf.search(text, modality, _EVERYWHERE) if entry not in onShelf]
    place = {entry.name: number for number, entry in enumerate(onShelf)}
    here, offered = [], []
    for model in known.models:
        public = publicOf(model)
        isMeant = public is not None and public.name in place
        if public is None or (
            model.path and not isMeant
        ):  # of some, the shelf does not know the structures: its file did
            labels = [label.name for label in model.labels]
            regions = ("", public.model.region) if public else ("",)  # other models do not say their region
            isMeant = region in regions or bool(text.strip() and (public is None or public.model.region == _EVERYWHERE))
            isMeant = isMeant and modality in ("", model.modality) and shelf.finds(text, model.title, labels)
        if isMeant:
            (here if model.path else offered).append(model)
    here.sort(key=lambda model: place.get(model.name, -1))
    names = {model.name for model in known.models}
    public = [known.get(entry.name) for entry in onShelf if entry.name not in names]
    return [_found(model, known, text) for model in (*here, *offered, *public)]


def describe(model: KnownModel, known: Library) -> Found:
    """What there is to know of one model."""
    return _found(model, known, "")


def publicOf(model: KnownModel) -> PublicEntry | None:
    """The model on the shelf, if it is from there; a list's own model of the same name is not."""
    if model.entry is None:
        return shelf.find(model.name)
    return model.entry if isinstance(model.entry, PublicEntry) else None


def _found(model: KnownModel, known: Library, text: str) -> Found:
    structures = tuple(shelf.structures(text, [label.name for label in model.labels]))
    public = publicOf(model)
    if public is None:
        return Found(model, structures, size=model.size if model.state == AVAILABLE else 0)
    here = {one.name for one in known.models if one.path}
    together = [] if model.path else shelf.needed(public, here)
    size, isSizeKnown = shelf.to_download(together)
    takes = expected.of(public.model)
    return Found(model, structures, public, tuple(one.title for one in together[:-1]), size, isSizeKnown, takes)
