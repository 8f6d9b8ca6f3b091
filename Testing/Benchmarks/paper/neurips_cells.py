"""Microscopy: the NeurIPS 2022 challenge on cell segmentation; 1000 training images, 101 tuning images for testing.

Sources: Training-labeled.zip and Tuning.zip of zenodo.org/records/10719375 have images/cell_00001.bmp (or .png, .tif,
.tiff, .jpg) and labels/cell_00001_label.tiff, one number per cell (torch_em's loader; MedVL's lists of file names;
the data set's own readme). Three classes instead of cells, and the scaling of each channel from its 1st and 99th
percentile to 8 bits: the challenge's baseline (JunMa11/NeurIPS-CellSeg). Names of the classes: dataset.json of
U-Mamba's Dataset703_NeurIPSCell.

Not verified: that U-Mamba's packaging scaled the intensities as the baseline does, and that its 101 test images
are the tuning set (the number fits).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage
from usema.errors import InputError

from .raw_dataset import copy, find_folder, pictures, refuse_missing, require_folder, write_picture
from .recipe import Plan2D, Recipe

BACKGROUND, INTERIOR, BOUNDARY = 0, 1, 2
SMALLEST_INTERIOR = 16  # pixels
_ENDINGS = (".bmp", ".png", ".tif", ".tiff", ".jpg", ".jpeg")
_PARTS = ("images", "labels")


def convert(download: Path, folder: Path) -> None:
    """Write 8-bit RGB images and three-class labels; test labels keep one number per cell."""
    candidates = ("Training-labeled", "Training-labeled/Training-labeled", "Train_Labeled", ".")
    train = _pairs(require_folder(download, "the NeurIPS 2022 cell challenge", candidates, _PARTS))
    tuning = find_folder(download, ("Tuning", "Tuning/Tuning"), _PARTS)
    test = _pairs(tuning) if tuning is not None else []
    for image, label in train:
        write_picture(folder / "imagesTr" / f"{image.stem}_0000.png", to_rgb(pictures().imread(image)))
        write_picture(folder / "labelsTr" / f"{image.stem}.png", three_classes(pictures().imread(label)))
    for image, label in test:
        write_picture(folder / "imagesTs" / f"{image.stem}_0000.png", to_rgb(pictures().imread(image)))
        copy(label, folder / "labelsTs" / label.name)


def to_rgb(image: np.ndarray) -> np.ndarray:
    """8-bit RGB of an image (y, x) or (y, x, channel) of any type.

    Each channel is scaled so that the 1st and 99th percentile of its pixels above 0 become 0 and 255. Grey becomes
    three equal channels; of more than three channels, the first three stay.

    Raises:
        InputError: the image is neither grey nor has three channels or more.
    """
    channels = np.repeat(image[..., None], 3, axis=-1) if image.ndim == 2 else image[..., :3]
    if channels.ndim != 3 or channels.shape[-1] != 3:
        raise InputError(f"A picture is neither grey nor coloured: its shape is {image.shape} (y, x, channel).")
    return np.stack([_scale(channels[..., index]) for index in range(3)], axis=-1)


def three_classes(cells: np.ndarray) -> np.ndarray:
    """Background 0, interior 1 and boundary 2 from one number per cell, (y, x).

    The boundary is each cell's outermost pixels, and their neighbours on either side; what is left inside and has
    fewer than 16 connected pixels is background.
    """
    from skimage.segmentation import find_boundaries

    cross = ndimage.generate_binary_structure(2, 1)
    boundary = ndimage.binary_dilation(find_boundaries(cells.astype(np.int32), mode="inner"), cross)
    pieces, _ = ndimage.label((cells > 0) & ~boundary, cross)
    large = np.bincount(pieces.ravel()) >= SMALLEST_INTERIOR
    large[0] = False
    classes = np.where(large[pieces], INTERIOR, BACKGROUND).astype(np.uint8)
    classes[boundary] = BOUNDARY
    return classes


def _scale(channel: np.ndarray) -> np.ndarray:
    lit = channel[channel > 0]
    low, high = np.percentile(lit, (1, 99)) if lit.size else (0.0, 0.0)
    if high - low <= 0.001:
        return np.clip(channel, 0, 255).astype(np.uint8)
    return (np.clip((channel.astype(np.float64) - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def _pairs(source: Path) -> list[tuple[Path, Path]]:
    images = sorted(path for path in (source / "images").iterdir() if path.suffix.lower() in _ENDINGS)
    if not images:
        raise InputError(f"{source / 'images'} holds no pictures ({', '.join(_ENDINGS)}).")
    pairs = [(image, source / "labels" / f"{image.stem}_label.tiff") for image in images]
    refuse_missing((label for _, label in pairs), "label files are")
    return pairs


RECIPE = Recipe(
    name="microscopy",
    title="Microscopy (NeurIPS 2022 cell segmentation)",
    pages=("https://zenodo.org/records/10719375", "https://neurips22-cellseg.grand-challenge.org/dataset/"),
    licence="Read it on the page.",
    layout="Training-labeled/images/cell_00001.bmp and Training-labeled/labels/cell_00001_label.tiff; for testing also "
    "Tuning/images and Tuning/labels.",
    dataset="Dataset703_NeurIPSCell",
    cases=1000,
    channels=("R", "G", "B"),
    labels=("background", "interior", "boundary"),
    file_ending=".png",
    plan=Plan2D(median_shape=(512, 512), patch_size=(512, 512), batch_size=12, stages=8),
    convert=convert,
    scoring=("F1: python Testing/Benchmarks/paper_data.py cell-f1 PREDICTIONS RAW/{dataset}/labelsTs",),
    notes=(
        "Were the median image 1024x1024, nnU-Net would plan 1024x1024 with a batch of 3 and 9 stages; the published "
        "runs planned 512x512.",
    ),
)
