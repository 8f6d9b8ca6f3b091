"""Abdomen MR: the 60 labelled MR scans of AMOS22 (40 of its training, 20 of its validation part); 13 of 15 organs.

Sources: amos22.zip of zenodo.org/records/7262581 unpacks to amos22/ with imagesTr, labelsTr, imagesVa, labelsVa and
imagesTs; files are named amos_0507.nii.gz in both, numbers up to 500 are CT and above it MR, 40 and 20 MR scans
(AMOS's own readme). Values of its labels: A-Eval's label systems and AMOS's dataset.json. Which organs are kept and
their values: dataset.json of U-Mamba's Dataset702_AbdomenMR, the same as for FLARE22; bladder and prostate/uterus
become background. U-Mamba's test set, 50 further MR scans that its authors annotated, is in their own packaging only.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from usema.errors import InputError

from .flare22 import ORGANS, SCORING
from .raw_dataset import copy, refuse_missing, require_folder
from .recipe import Plan2D, Recipe

LAST_CT = 500
AMOS_ORGANS = (
    "background",
    "spleen",
    "right kidney",
    "left kidney",
    "gallbladder",
    "esophagus",
    "liver",
    "stomach",
    "aorta",
    "inferior vena cava",
    "pancreas",
    "right adrenal gland",
    "left adrenal gland",
    "duodenum",
    "bladder",
    "prostate/uterus",
)
LABELS = ("background", *ORGANS)
# AMOS's value -> ours
_VALUES = np.array([LABELS.index(organ) if organ in LABELS else 0 for organ in AMOS_ORGANS], dtype=np.uint8)
_PARTS = ("imagesTr", "labelsTr", "imagesVa", "labelsVa")


def convert(download: Path, folder: Path) -> None:
    """Copy the MR images, and renumber their labels."""
    source = require_folder(download, "AMOS22", ("amos22", "."), _PARTS)
    images = [image for part in ("imagesTr", "imagesVa") for image in sorted((source / part).glob("amos_*.nii.gz"))]
    images = [image for image in images if _number(image) > LAST_CT]
    if not images:
        raise InputError(f"{source} holds no MR scan: no amos_*.nii.gz with a number above {LAST_CT} in imagesTr.")
    labels = [source / image.parent.name.replace("images", "labels") / image.name for image in images]
    refuse_missing(labels, "label files are")
    for image, label in zip(images, labels, strict=True):
        copy(image, folder / "imagesTr" / image.name.replace(".nii.gz", "_0000.nii.gz"))
        _renumber(label, folder / "labelsTr" / label.name)


def _number(image: Path) -> int:
    found = re.fullmatch(r"amos_(\d+)\.nii\.gz", image.name)
    return int(found[1]) if found else 0


def _renumber(label: Path, target: Path) -> None:
    import SimpleITK as sitk

    image = sitk.ReadImage(str(label))
    values = sitk.GetArrayFromImage(image).astype(np.int64)
    if values.min() < 0 or values.max() >= len(_VALUES):
        raise InputError(f"{label} holds the value {values.max()}; AMOS22's labels are 0 to {len(_VALUES) - 1}.")
    renumbered = sitk.GetImageFromArray(_VALUES[values])
    renumbered.CopyInformation(image)
    target.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(renumbered, str(target), useCompression=True)


RECIPE = Recipe(
    name="abdomen-mr",
    title="Abdomen MR (AMOS22)",
    pages=("https://zenodo.org/records/7262581", "https://amos22.grand-challenge.org/"),
    licence="Read it on the page; the paper's page names a non-commercial Creative Commons licence.",
    layout="amos22/ with imagesTr, labelsTr, imagesVa, labelsVa, each with files like amos_0507.nii.gz.",
    dataset="Dataset702_AbdomenMR",
    cases=60,
    channels=("MR",),
    labels=LABELS,
    file_ending=".nii.gz",
    plan=Plan2D(median_shape=(320, 290), patch_size=(320, 320), batch_size=30, stages=7),
    convert=convert,
    scoring=SCORING,
    notes=(
        "The published scores are of 50 further MR scans that U-Mamba's authors annotated. They are in the packaging "
        "linked from its repository: put them into imagesTs and labelsTs, or train with --fold 0 to 4 for a "
        "cross-validation.",
    ),
)
