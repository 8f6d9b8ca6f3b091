"""Abdomen CT: FLARE22, 50 labelled cases for training and the 50 of the tuning set for testing; 13 organs.

Sources: FLARE22Train.zip of zenodo.org/records/7860267 unpacks to FLARE22Train/images/FLARE22_Tr_0001_0000.nii.gz and
FLARE22Train/labels/FLARE22_Tr_0001.nii.gz (README of MedSAM's LiteMedSAM). The challenge's own download has the same
two folders in Training/FLARE22_LabeledCase50, and the tuning cases as Tuning/images/FLARETs_0001_0000.nii.gz and
Tuning/labels/FLARETs_0001.nii.gz (OpenMEDLab's page on FLARE 2022). Names and values of the labels: dataset.json of
U-Mamba's Dataset701_AbdomenCT. The files are already what nnU-Net wants, so they are copied as they are.

Not verified: that U-Mamba's test cases are all of the tuning set (its dataset.json says 50 cases from TCIA).
"""

from __future__ import annotations

from pathlib import Path

from usema.errors import InputError

from .raw_dataset import copy, find_folder, refuse_missing, require_folder
from .recipe import Plan2D, Recipe

ORGANS = (
    "liver",
    "right kidney",
    "spleen",
    "pancreas",
    "aorta",
    "inferior vena cava",
    "right adrenal gland",
    "left adrenal gland",
    "gallbladder",
    "esophagus",
    "stomach",
    "duodenum",
    "left kidney",
)

# How both abdomen sets are scored. The tolerances of NSD, in ``published.json``, are those of U-Mamba's evaluation,
# which is FLARE22's.
SCORING = (
    "DSC and NSD: usema evaluate PREDICTIONS RAW/{dataset}/labelsTs {tolerances}",
    "The published scores count an organ absent from both as 1, and look at aorta, inferior vena cava and esophagus "
    "only between the first and last slice that the reference marks; usema evaluate leaves the former out and looks "
    "everywhere. MONAI's surface distances are over voxels, the published ones over surface elements.",
)

_TRAINING = ("FLARE22Train", "Training/FLARE22_LabeledCase50", "FLARE22_LabeledCase50", ".")
_TUNING = ("Tuning", "FLARE22Tuning")
_PARTS = ("images", "labels")


def convert(download: Path, folder: Path) -> None:
    """Copy images and labels; cases of the tuning set become the test set."""
    _copy_pairs(require_folder(download, "FLARE22", _TRAINING, _PARTS), folder, "Tr")
    tuning = find_folder(download, _TUNING, _PARTS)
    if tuning is not None:
        _copy_pairs(tuning, folder, "Ts")


def _copy_pairs(source: Path, folder: Path, part: str) -> None:
    images = sorted((source / "images").glob("FLARE*_0000.nii.gz"))
    if not images:
        raise InputError(f"{source / 'images'} holds no FLARE*_0000.nii.gz.")
    labels = [source / "labels" / image.name.replace("_0000.nii.gz", ".nii.gz") for image in images]
    refuse_missing(labels, "label files are")
    for image, label in zip(images, labels, strict=True):
        copy(image, folder / f"images{part}" / image.name)
        copy(label, folder / f"labels{part}" / label.name)


RECIPE = Recipe(
    name="abdomen-ct",
    title="Abdomen CT (FLARE22)",
    pages=("https://zenodo.org/records/7860267", "https://flare22.grand-challenge.org/Dataset/"),
    licence="Read it on the page; the images are the Medical Segmentation Decathlon's (CC-BY-SA 4.0).",
    layout="FLARE22Train/images/FLARE22_Tr_0001_0000.nii.gz and FLARE22Train/labels/FLARE22_Tr_0001.nii.gz; "
    "for testing also Tuning/images and Tuning/labels.",
    dataset="Dataset701_AbdomenCT",
    cases=50,
    channels=("CT",),
    labels=("background", *ORGANS),
    file_ending=".nii.gz",
    plan=Plan2D(median_shape=(512, 512), patch_size=(512, 512), batch_size=12, stages=8),
    convert=convert,
    scoring=SCORING,
    notes=("The forks of nnU-Net behind U-Mamba planned 512x448 with a batch of 14; nnU-Net now plans 512x512.",),
)
