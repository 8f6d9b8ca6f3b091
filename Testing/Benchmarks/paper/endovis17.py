"""Endoscopy: the EndoVis 2017 challenge on robotic instruments; 1800 training and 1200 test frames, 7 instruments.

Sources: the challenge's page (eight training videos of 225 frames; test sequences of 75 frames that continue them,
and two of 300). Folders: README of TernausNet's robot-surgery-segmentation, ground_truth/Left_Prograsp_Forceps_labels
and its like in each instrument_dataset_N; the full list of these folders, which are named unevenly (with and without
side, with and without "_labels", "Maryland_Bipolar_Forceps"), in several public loaders, and that a folder belongs to
the type whose name it contains in ISINet's organize2017.py. A mask's values are the parts of an instrument (10 shaft,
20 wrist, 30 clasper, 40 probe); any value above 0 is the instrument. Some masks have three channels. Values of the
types: the challenge's instrument_type_mapping.json, where 7 is "Other" (U-Mamba's dataset.json calls it ultrasound
probe). Where masks overlap, the later folder in alphabetical order wins, as in ISINet. Test labels:
instrument_dataset_N/gt/TypeSegmentation, with the types' values. Folds by video: TernausNet's four.

The whole frames of 1920x1080 are kept, black margins and all, because only they give the paper's plan of 896x1536. (The
camera's picture in them is 1280x1024 from pixel (320, 28), says the challenge's page.)

Not verified: the values in gt/TypeSegmentation (values above 7 are refused), and U-Mamba's rule for overlaps.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
from usema.errors import InputError

from .raw_dataset import copy, pictures, refuse_missing, write_picture
from .recipe import Plan2D, Recipe

TYPES = (
    "Bipolar Forceps",
    "Prograsp Forceps",
    "Large Needle Driver",
    "Vessel Sealer",
    "Grasping Retractor",
    "Monopolar Curved Scissors",
    "Other",
)
FOLDS = ((1, 3), (2, 5), (4, 8), (6, 7))  # videos to validate on


def convert(download: Path, folder: Path) -> None:
    """Merge each training frame's masks into one label map of types; test frames and labels where they are there."""
    videos = {_number(path): path.parent for path in sorted(download.rglob("instrument_dataset_*/ground_truth"))}
    if not videos:
        raise InputError(
            f"{download} does not look like the download of EndoVis 2017: no folder instrument_dataset_N/ground_truth."
        )
    masks = {number: _mask_folders(video) for number, video in videos.items()}
    frames = {number: _frames(video) for number, video in videos.items()}
    refuse_missing((path / frame.name for n in videos for path, _ in masks[n] for frame in frames[n]), "masks are")
    tests = _test_labels(download)
    for number in videos:
        for frame in frames[number]:
            case = f"seq{number}_{frame.stem}"
            merged = merge_masks([(_mask(path / frame.name), value) for path, value in masks[number]])
            copy(frame, folder / "imagesTr" / f"{case}_0000.png")
            write_picture(folder / "labelsTr" / f"{case}.png", merged)
    for case, (frame, label) in tests.items():
        copy(frame, folder / "imagesTs" / f"{case}_0000.png")
        write_picture(folder / "labelsTs" / f"{case}.png", _types(label))
    _write_folds(folder, {number: [f"seq{number}_{frame.stem}" for frame in frames[number]] for number in videos})


def merge_masks(masks: list[tuple[np.ndarray, int]]) -> np.ndarray:
    """One label map (y, x) from pairs of a mask (y, x), which counts where it is above 0, and its value."""
    merged = np.zeros(masks[0][0].shape, np.uint8)
    for mask, value in masks:
        merged[mask > 0] = value
    return merged


def _number(path: Path) -> int:
    """Of the video; `path` is a folder in instrument_dataset_N."""
    return int(re.sub(r"\D", "", path.parent.name) or 0)


def _frames(video: Path) -> list[Path]:
    frames = sorted((video / "left_frames").glob("frame*.png"))
    if not frames:
        raise InputError(f"{video / 'left_frames'} holds no frame*.png.")
    return frames


def _mask_folders(video: Path) -> list[tuple[Path, int]]:
    """Each instrument's folder with the value of its type, in alphabetical order."""
    found = []
    for path in sorted(path for path in (video / "ground_truth").iterdir() if path.is_dir()):
        name = path.name.replace("_", " ")
        value = next((value for value, kind in enumerate(TYPES, start=1) if kind in name), None)
        if value is None:
            raise InputError(f"{path} names no known instrument.", f"Known are: {', '.join(TYPES)}.")
        found.append((path, value))
    if not found:
        raise InputError(f"{video / 'ground_truth'} holds no folder of masks.")
    return found


def _mask(path: Path) -> np.ndarray:
    mask = pictures().imread(path)
    return mask[..., :3].max(axis=-1) if mask.ndim == 3 else mask


def _types(path: Path) -> np.ndarray:
    types = _mask(path)
    if types.max() > len(TYPES):
        raise InputError(f"{path} holds the value {types.max()}; the types are 1 to {len(TYPES)}.")
    return types.astype(np.uint8)


def _test_labels(download: Path) -> dict[str, tuple[Path, Path]]:
    """Case -> (frame, label). They lie in different archives; the video's number and the frame's name pair them."""
    folders = sorted(download.rglob("instrument_dataset_*/left_frames"))
    frames = {_number(path): path for path in folders if not (path.parent / "ground_truth").is_dir()}
    pairs = {}
    for truth in sorted(download.rglob("instrument_dataset_*/gt/TypeSegmentation")):
        number = _number(truth.parent)
        if number not in frames:
            raise InputError(f"The frames of test video {number} are missing; its labels are in {truth}.")
        for label in sorted(truth.glob("*.png")):
            pairs[f"seq{number}_{label.stem}"] = (frames[number] / label.name, label)
    refuse_missing((frame for frame, _ in pairs.values()), "test frames are")
    return pairs


def _write_folds(folder: Path, cases: dict[int, list[str]]) -> None:
    """nnU-Net would split frames of one video over training and validation; whole videos are left out here."""
    splits = []
    for held_out in FOLDS:
        train = [case for number, names in cases.items() if number not in held_out for case in names]
        val = [case for number, names in cases.items() if number in held_out for case in names]
        if train and val:
            splits.append({"train": train, "val": val})
    (folder / "splits_final.json").write_text(json.dumps(splits, indent=1), encoding="utf-8")


RECIPE = Recipe(
    name="endoscopy",
    title="Endoscopy (EndoVis 2017)",
    pages=("https://endovissub2017-roboticinstrumentsegmentation.grand-challenge.org/Downloads/",),
    licence="The challenge's rules, which you accept when you register to download.",
    layout="instrument_dataset_N/left_frames and instrument_dataset_N/ground_truth/*_labels, at any depth; for testing "
    "also the test frames and instrument_dataset_N/gt/TypeSegmentation.",
    dataset="Dataset704_Endovis17",
    cases=1800,
    channels=("R", "G", "B"),
    labels=("background", *TYPES),
    file_ending=".png",
    plan=Plan2D(median_shape=(1080, 1920), patch_size=(896, 1536), batch_size=2, stages=9),
    convert=convert,
    scoring=(
        "DSC: nnUNetv2_evaluate_simple RAW/{dataset}/labelsTs PREDICTIONS -l 1 2 3 4 5 6 7",
        "The published DSC is a mean per frame, over the types in reference or prediction, then over frames; that "
        "command gives means per type. The published NSD has a tolerance of 2 pixels.",
    ),
    notes=(
        "USEMA's paper used nnU-Net's current plan (its Figure 1 has 5376 = 56x96 tokens, which is 896x1536 in patches "
        "of 16). The published tables used an older planner: compare with an nnU-Net trained on the same plan.",
        "A batch of 2 can be spread over 2 GPUs at most.",
        "--fold 0 to 3 leaves out two videos each; --fold all trains on all, as the published runs did.",
    ),
)
