"""Whether a volume or image shows what a model is for, by what is said of it and by what its numbers cannot be.

Doubts, no proofs: descriptions are typed by hand, and a body part may be what the scanner was last set to. So one word
that fits is enough, and neighbouring regions fit each other. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..models.metadata import ModelMetadata
from ..volumes.told import Told

# Words of descriptions, body parts (DICOM PS3.16, CID 4031) and models, English and German, by the region they name.
_WORDS = {
    "head": "head brain skull cranium cranial cerebral intracranial kopf schädel schaedel cct hirn gehirn neurocranium "
    "hippocampus hippocampi orbit orbita face facial mandible jaw teeth dental sinuses nnh ear pituitary sella",
    "neck": "neck hals larynx thyroid carotid pharynx",
    "spine": "spine cspine tspine lspine ctspine tlspine lsspine hws bws lws myelon vertebra vertebrae wirbelsäule "
    "wirbelsaeule sacrum",
    "chest": "chest thorax lung lungs lunge heart cardiac herz mediastinum rib ribs breast mamma",
    "abdomen": "abdomen abdominal oberbauch bauch liver leber kidney kidneys niere nieren pancreas pankreas spleen "
    "milz mrcp",
    "pelvis": "pelvis pelvic becken prostate prostata uterus rectum bladder",
    "trunk": "trunk torso aorta",
    "limbs": "knee knie ankle foot fuss fuß hand wrist elbow ellenbogen leg legs arm extremity thigh calf femur "
    "humerus tibia finger toe shoulder schulter hip hüfte huefte",
    "fetus": "fetus foetus fetal foetal obstetric obstetrics",
    "all": "body wholebody ganzkörper ganzkoerper",
}
_REGION = {word: region for region, words in _WORDS.items() for word in words.split()}
# What a volume of a region may show a good part of.
_SEEN_WITH = {
    "head": {"head", "neck"},
    "neck": {"neck", "head", "spine", "chest"},
    "spine": {"spine", "neck", "chest", "abdomen", "pelvis", "trunk"},
    "chest": {"chest", "neck", "spine", "abdomen", "trunk"},
    "abdomen": {"abdomen", "chest", "spine", "pelvis", "trunk", "fetus"},
    "pelvis": {"pelvis", "abdomen", "spine", "trunk", "limbs", "fetus"},
    "trunk": {"trunk", "chest", "abdomen", "pelvis", "spine"},
    "limbs": {"limbs", "pelvis", "chest"},  # hip and shoulder
    # Whole, or a part of it; and what scanners call it is often the mother's.
    "fetus": {"fetus", "head", "neck", "spine", "chest", "abdomen", "pelvis", "trunk", "limbs"},
}
# The same image: radiographs by plate, detector or film; microscopy of a field or of a slide.
_ALIKE = ({"CR", "DX", "RG", "PX"}, {"GM", "SM"})
_UNKNOWN = {"", "OT"}  # "other", as pictures made DICOM and models without a card have it
_LEAST_OF_CT = ((-1100, -900), (-1500, -1500), (-2048, -2000), (-3100, -3000))  # air, and what pads the image


def modality_doubt(metadata: ModelMetadata, told: Told) -> str:
    """A sentence where a volume is said to be of another modality; else empty."""
    both = {told.modality, metadata.modality}
    if both & _UNKNOWN or len(both) == 1 or any(both <= alike for alike in _ALIKE):
        return ""
    return f"The {_what(metadata)} is {told.modality}; the model was made for {metadata.modality}."


def region_doubt(metadata: ModelMetadata, told: Told) -> str:
    """A sentence where all that is said of a volume names other regions than the model is for; else empty."""
    wanted, said = _regions([metadata.anatomy]), _regions(told.texts)
    if not wanted or not said or "all" in wanted | said:
        return ""
    if wanted & set().union(*(_SEEN_WITH[region] for region in said)):
        return ""
    naming = ", ".join(repr(text) for text in told.texts if _regions([text]))
    return f"The {_what(metadata)} is called {naming}; the model is for: {metadata.anatomy}. Is it the right one?"


def scale_doubt(metadata: ModelMetadata, lowest: float) -> str:
    """A sentence where a volume's least value is none that the model's modality has; else empty."""
    if metadata.modality == "CT" and lowest >= 0:
        return (
            f"The least value is {lowest:g}, but the model is for CT in Hounsfield units, where air is -1000. Is the "
            "volume a CT, and was it stored without its rescaling?"
        )
    if metadata.modality == "MR" and any(least <= lowest <= most for least, most in _LEAST_OF_CT):
        return f"The least value is {lowest:g}, as in a CT; the model is for MR. Is it the right one?"
    return ""


def _what(metadata: ModelMetadata) -> str:
    return "image" if metadata.takes_images else "volume"


def _regions(texts: Iterable[str]) -> set[str]:
    words = (word for text in texts for word in re.findall(r"[^\W\d_]+", text.lower()))
    return {_REGION[word] for word in words if word in _REGION}
