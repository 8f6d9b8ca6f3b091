"""What people type when they look for a structure, compared with the names of labels. Standard library only.

English and German words, spellings, ordinal numbers, and what the codes of labels mean: "mandible" finds the "Lower
jawbone", "LWK 3" the "Vertebrae L3".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from ..converters.labels import meaning

# What radiologists type in German, and the words in the labels that it means; compounds are taken apart.
_GERMAN = {
    "leber": "liver", "milz": "spleen", "niere": "kidney", "nieren": "kidney", "nebenniere": "adrenal",
    "nebennieren": "adrenal", "bauchspeicheldruese": "pancreas", "pankreas": "pancreas", "magen": "stomach",
    "lunge": "lung", "lungen": "lung", "herz": "heart", "vorhof": "atri", "herzvorhof": "atri", "kammer": "ventric",
    "gehirn": "brain", "hirn": "brain", "hirnstamm": "brainstem", "schaedel": "skull", "wirbel": "vertebrae",
    "wirbelsaeule": "vertebrae", "rippe": "rib", "rippen": "rib", "rippenknorpel": "costal", "knorpel": "cartilage",
    "gallenblase": "gallbladder", "blase": "bladder", "harnblase": "bladder", "prostata": "prostate", "darm": "bowel",
    "dickdarm": "colon", "duenndarm": "small bowel", "zwoelffingerdarm": "duodenum", "speiseroehre": "esophagus",
    "luftroehre": "trachea", "schilddruese": "thyroid", "speicheldruese": "gland", "druese": "gland",
    "ohrspeicheldruese": "parotid", "druesen": "gland", "muskel": "muscle", "muskeln": "muscle", "zaehne": "teeth",
    "zahn": "teeth", "huefte": "hip", "hueft": "hip", "becken": "hip", "oberschenkel": "femur",
    "oberschenkelknochen": "femur", "oberarm": "humerus", "oberarmknochen": "humerus", "schulterblatt": "scapula",
    "schluesselbein": "clavicula", "brustbein": "sternum", "kreuzbein": "sacrum", "unterkiefer": "mandible",
    "oberkiefer": "maxilla", "kiefer": "jawbone", "knochen": "bone", "bandscheibe": "discs", "bandscheiben": "discs",
    "rueckenmark": "spinal cord", "hauptschlagader": "aorta", "halsschlagader": "carotid", "hohlvene": "vena cava",
    "gefaess": "vessels", "gefaesse": "vessels", "arterie": "artery", "vene": "vein", "pfortader": "portal",
    "lungenarterie": "pulmonary artery", "lungenvene": "pulmonary vein", "beckenarterie": "iliac artery",
    "beckenvene": "iliac vein", "tumor": "tumor", "tumoren": "tumor", "laesion": "lesion", "laesionen": "lesion",
    "zyste": "cyst", "zysten": "cyst", "segment": "segment", "segmente": "segment", "lappen": "lobe",
    "oberlappen": "upper lobe", "mittellappen": "middle lobe", "unterlappen": "lower lobe", "koerper": "body",
    "implantat": "implant", "prothese": "implant", "kleinhirn": "cerebellum", "hippokampus": "hippocampus",
    "ventrikel": "ventricle", "hirnventrikel": "ventricle", "rinde": "cortex", "hirnrinde": "cortex", "weisse": "white",
    "graue": "grey", "substanz": "matter", "rechts": "right", "links": "left", "rechte": "right", "linke": "left",
    "rechter": "right", "linker": "left", "rechtes": "right", "linkes": "left", "obere": "superior",
    "untere": "inferior", "knoten": "nodules", "blutung": "hemorrhage", "hirnblutung": "hemorrhage",
    "erguss": "effusion", "herzbeutel": "pericard", "pleura": "pleura", "kopf": "head", "hals": "neck",
    "bauch": "abdomen", "brust": "breast", "auge": "eye", "augen": "eye", "sehnerv": "optic nerve",
    "rachen": "pharyn", "kehlkopf": "laryn",
}  # fmt: skip
_JOINTS = ("", "n", "s")  # between the parts of a German compound
_PLAIN = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss"})
_VERTEBRAE = {"h": "c", "b": "t", "l": "l"}  # HWK 7 is C7
_ROMAN = {"i": "1", "ii": "2", "iii": "3", "iv": "4", "v": "5", "vi": "6", "vii": "7", "viii": "8"}
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh",
             "twelfth")  # fmt: skip
# Of what is written in several ways, the one that is compared, in a search as in a label.
_SPELLINGS = {
    "oesophagus": "esophagus", "oesophageal": "esophageal", "haemorrhage": "hemorrhage", "vertebra": "vertebrae",
    "gray": "grey", "tumour": "tumor", "clavicle": "clavicula", "intestine": "bowel", "tooth": "teeth",
    "disc": "discs", "disk": "discs", "disks": "discs", "vena": "vein", "arteries": "artery",
    **{word: str(number) for number, word in enumerate(_ORDINALS, 1)},
}  # fmt: skip


def structures(text: str, labels: Iterable[str]) -> list[str]:
    """Those of some names of structures that hold all words of a search; none for an empty one."""
    words = _words(text)
    return [label for label in labels if words and _hold(_parts_of(label), words)]


def rank(text: str, title: str, labels: Sequence[str]) -> int | None:
    """How well a search means a model: 0, the best, where a structure holds all words; 1, where its title does; 2,
    where both together do; None: it does not.

    Args:
        text: words; empty: all models are meant.
        title: what the model is called, and further words about it.
        labels: the names of its structures.
    """
    words = _words(text)
    if not words or any(_hold(_parts_of(label), words) for label in labels):
        return 0
    titled = _parts_of(title)
    if _hold(titled, words):
        return 1
    return 2 if _hold(titled.union(*map(_parts_of, labels)), words) else None


def _hold(parts: Iterable[str], words: Iterable[str]) -> bool:
    return all(any(_begins(part, word) for part in parts) for word in words)


def _begins(part: str, word: str) -> bool:
    """Whether a word of a label is meant: "ventric" begins ventricles, "ribs" means a rib; "1" does not begin 12."""
    if part.startswith(word):
        return not (word[-1].isdigit() and part[len(word) :][:1].isdigit())
    return word.endswith("s") and part == word[:-1]


@lru_cache(maxsize=4096)
def _parts_of(label: str) -> frozenset[str]:
    """The words of a label and of what its code means, up to "of", which is where it lies and not what it is."""
    parts = re.findall(r"[^\W_]+", f"{label} {meaning(label).partition(' of ')[0]}".lower())
    numbers = [found[1] for part in parts if (found := re.fullmatch(r"[a-z]{3,}(\d+)", part))]  # fdi11 is tooth 11
    return frozenset([*parts, *numbers, *(_SPELLINGS.get(part, part) for part in parts)])


def _words(text: str) -> list[str]:
    plain = text.lower().translate(_PLAIN)
    plain = re.sub(r"\b([hbl]wk)\s+(\d)", r"\1\2", plain)
    plain = re.sub(r"\bth\s?(\d)", r"t\1", plain)  # Th 12 is T12
    plain = re.sub(r"\b(segment[es]?) (i|ii|iii|iv|v|vi|vii|viii)\b", lambda one: f"{one[1]} {_ROMAN[one[2]]}", plain)
    english = (one for word in re.findall(r"[^\W_]+", plain) for one in _english(word))
    return [_SPELLINGS.get(word, word) for word in english]


def _english(word: str) -> Iterator[str]:
    """What a German word means, if it is one or made of two; else the word."""
    if word in _GERMAN:
        yield from _GERMAN[word].split()
        return
    if vertebra := re.fullmatch(r"([hbl])wk(\d+)", word):
        yield from ("vertebrae", f"{_VERTEBRAE[vertebra[1]]}{vertebra[2]}")
        return
    for end in range(len(word) - 3, 3, -1):
        rest = next((word[end + len(joint) :] for joint in _JOINTS if word[end:].startswith(joint)
                     and word[end + len(joint) :] in _GERMAN), None)  # fmt: skip
        if word[:end] in _GERMAN and rest is not None:
            yield from f"{_GERMAN[word[:end]]} {_GERMAN[rest]}".split()
            return
    yield word
