"""The shelf: models that others publish, as entries that are installed like any other. Standard library only.

What is known of them stands in ``usema.converters.public_models.json``; no index has to be added for it, and none of
them is downloaded without being asked for.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from functools import cache

from ..converters.labels import palette_color
from ..converters.public import PublicModel, public_models
from .index import Entry, EntryFile, EntryLabel, Licence

SOURCE = "public"  # what the library calls where they come from
VERSION = "1.0.0"  # of what the converters make; a publisher's own version stands in the address of its file

# What radiologists type in German, and the words in the labels that it means; compounds are taken apart.
_GERMAN = {
    "leber": "liver", "milz": "spleen", "niere": "kidney", "nieren": "kidney", "nebenniere": "adrenal",
    "nebennieren": "adrenal", "bauchspeicheldruese": "pancreas", "pankreas": "pancreas", "magen": "stomach",
    "lunge": "lung", "lungen": "lung", "herz": "heart", "vorhof": "atri", "herzvorhof": "atri", "kammer": "ventric",
    "gehirn": "brain", "hirn": "brain", "hirnstamm": "brainstem", "schaedel": "skull", "wirbel": "vertebrae",
    "wirbelsaeule": "vertebrae", "rippe": "rib", "rippen": "rib", "rippenknorpel": "costal", "knorpel": "cartilage",
    "gallenblase": "gallbladder", "blase": "bladder", "harnblase": "bladder", "prostata": "prostate", "darm": "bowel",
    "dickdarm": "colon", "duenndarm": "small", "zwoelffingerdarm": "duodenum", "speiseroehre": "esophagus",
    "luftroehre": "trachea", "schilddruese": "thyroid", "speicheldruese": "gland", "druese": "gland",
    "druesen": "gland", "muskel": "muscle", "muskeln": "muscle", "zaehne": "teeth", "zahn": "teeth", "huefte": "hip",
    "becken": "hip", "oberschenkel": "femur", "oberschenkelknochen": "femur", "oberarm": "humerus",
    "oberarmknochen": "humerus", "schulterblatt": "scapula", "schluesselbein": "clavicula", "brustbein": "sternum",
    "kreuzbein": "sacrum", "unterkiefer": "mandible", "kiefer": "jawbone", "knochen": "bone",
    "rueckenmark": "spinal cord", "hauptschlagader": "aorta", "gefaess": "vessels", "gefaesse": "vessels",
    "arterie": "artery", "vene": "vein", "pfortader": "portal", "tumor": "tumor", "tumoren": "tumor",
    "laesion": "lesion", "laesionen": "lesion", "zyste": "cyst", "zysten": "cyst", "segment": "segment",
    "segmente": "segment", "lappen": "lobe", "koerper": "body", "implantat": "implant", "kleinhirn": "cerebellum",
    "hippokampus": "hippocampus", "ventrikel": "ventricle", "hirnventrikel": "ventricle", "rinde": "cortex",
    "hirnrinde": "cortex", "weisse": "white", "graue": "grey", "substanz": "matter", "rechts": "right",
    "links": "left", "rechte": "right", "linke": "left", "rechter": "right", "linker": "left", "rechtes": "right",
    "linkes": "left", "knoten": "nodules", "blutung": "hemorrhage", "hirnblutung": "hemorrhage", "erguss": "effusion",
    "pleura": "pleura", "kopf": "head", "hals": "neck", "bauch": "abdomen", "brust": "breast",
}  # fmt: skip
_JOINTS = ("", "n", "s")  # between the parts of a German compound
_PLAIN = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss"})
_VERTEBRAE = {"h": "c", "b": "t", "l": "l"}  # HWK 7 is C7
_SPELLINGS = {
    "oesophagus": "esophagus", "haemorrhage": "hemorrhage", "vertebra": "vertebrae", "gray": "grey",
    "oesophageal": "esophageal", "tumour": "tumor", "clavicle": "clavicula",
}  # fmt: skip


@dataclass(frozen=True)
class PublicEntry(Entry):
    """A model of the shelf.

    Attributes:
        model: what is known of it.
    """

    model: PublicModel | None = None


@cache
def entries() -> tuple[PublicEntry, ...]:
    """All of them, in the order in which they are offered; those whose licence is known not to be open are left out."""
    return tuple(_entry(model) for model in public_models() if model.licence.get("open") != "no")


def find(name: str) -> PublicEntry | None:
    """The one of that name."""
    return next((entry for entry in entries() if entry.name == name), None)


def search(text: str = "", modality: str = "", region: str = "") -> list[PublicEntry]:
    """Those that a person means, the best first: whose structures hold all words, then whose titles do.

    Args:
        text: words such as "left adrenal", in English or German; empty: all.
        modality: DICOM's; empty: any.
        region: of the body, as entries have it; empty: any.
    """
    words = list(_words(text))
    found = []
    for place, entry in enumerate(entries()):
        model = entry.model
        if modality.upper() not in ("", model.modality) or region.lower() not in ("", model.region):
            continue
        rank = _rank(words, model)
        if rank is not None:
            found.append((rank, place, entry))
    return [entry for _, _, entry in sorted(found, key=lambda one: one[:2])]


def matching(text: str, model: PublicModel) -> list[str]:
    """The structures of a model whose names hold all words of a search."""
    return structures(text, model.labels)


def structures(text: str, labels: Iterable[str]) -> list[str]:
    """Those of some names of structures that hold all words of a search; none for an empty one."""
    words = list(_words(text))
    return [label for label in labels if words and all(_holds(label, word) for word in words)]


def finds(text: str, title: str, labels: Iterable[str]) -> bool:
    """Whether a search means a model that is on no shelf, by what it is called and the names of its structures."""
    return _rank_of(list(_words(text)), title, labels) is not None


def needed(entry: PublicEntry, here: Container[str]) -> list[PublicEntry]:
    """What is installed with an entry: the models that it needs and that are not here, and itself, last."""
    found: dict[str, PublicEntry] = {}
    for name in entry.model.needs:
        if name not in here:
            found.update((one.name, one) for one in needed(find(name), here))
    return [*found.values(), entry]


def to_download(together: Iterable[PublicEntry]) -> tuple[int, bool]:
    """(bytes to download for models that are installed together, whether that is all: some publishers tell no size)."""
    files = {file.url: file.size for entry in together for file in entry.model.files}
    return sum(size or 0 for size in files.values()), None not in files.values()


def _rank(words: list[str], model: PublicModel) -> int | None:
    return _rank_of(words, f"{model.title} {model.region} {model.name}", model.labels)


def _rank_of(words: list[str], title: str, labels: Iterable[str]) -> int | None:
    if not words or any(all(_holds(label, word) for word in words) for label in labels):
        return 0
    if all(_holds(title, word) for word in words):
        return 1
    every = " ".join([title, *labels])
    return 2 if all(_holds(every, word) for word in words) else None


def _holds(text: str, word: str) -> bool:
    """Whether a word of the text begins so: "ventric" finds ventricles, "rib" no tribute to fibrosis; "ribs" finds
    a rib."""
    parts = re.split(r"[^\w]+|_", text.lower())
    return any(part.startswith(word) or (word.endswith("s") and part == word[:-1]) for part in parts)


def _words(text: str) -> Iterator[str]:
    for word in re.findall(r"\w+", text.lower()):
        for one in _english(word.translate(_PLAIN)):
            yield _SPELLINGS.get(one, one)


def _english(word: str) -> list[str]:
    """What a German word means, if it is one or made of two."""
    if word in _GERMAN:
        return _GERMAN[word].split()
    if vertebra := re.fullmatch(r"([hbl])wk(\d+)", word):
        return ["vertebrae", f"{_VERTEBRAE[vertebra[1]]}{vertebra[2]}"]
    for end in range(len(word) - 3, 3, -1):
        rest = next((word[end + len(joint) :] for joint in _JOINTS if word[end:].startswith(joint)
                     and word[end + len(joint) :] in _GERMAN), None)  # fmt: skip
        if word[:end] in _GERMAN and rest is not None:
            return [*_GERMAN[word[:end]].split(), *_GERMAN[rest].split()]
    return [word]


def _entry(model: PublicModel) -> PublicEntry:
    return PublicEntry(
        name=model.name,
        title=model.title,
        description=f"By {model.publisher}. {model.note}".strip(),
        version=VERSION,
        modality=model.modality,
        anatomy=model.region.capitalize(),
        labels=tuple(EntryLabel(label, tuple(palette_color(value))) for value, label in enumerate(model.labels, 1)),
        file=EntryFile(tuple(file.url for file in model.files), model.size, model.files[0].sha256 or ""),
        licence=Licence(**model.licence),
        citation=model.citation,
        minimum_engine="0.0.1",
        metrics={},
        source=SOURCE,
        model=model,
    )
