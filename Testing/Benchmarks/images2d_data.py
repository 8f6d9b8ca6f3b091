"""The data sets of images2d.py in nnU-Net's raw layout, and their plans.

Pictures are reduced to a longest side, their masks by the area that each pixel covers; the split is the data's own. The
plans are nnU-Net's, with a network small enough for one CPU core and a file of 4 MB.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from usema.measure.objects import rims

SHARED = Path(__file__).resolve().parents[3] / "shared/data/images2d"
FEATURES = (8, 24, 48, 96, 96, 96)
BATCH = 4


@dataclass(frozen=True)
class DataSet:
    """One of the three.

    Attributes:
        number: nnU-Net's.
        folder: in the shared data.
        channel: what the picture's grey means.
        labels: value of each name.
        patch: of the network, rows and columns.
        longest_side: to which pictures are reduced; None: as they are.
        trainer: of this project.
        inwards: by how many pixels outlines are moved before masks are reduced.
    """

    number: int
    folder: str
    channel: str
    labels: dict[str, int]
    patch: tuple[int, int]
    longest_side: int | None
    trainer: str
    inwards: float = 0.0

    @property
    def name(self) -> str:
        return f"Dataset{self.number:03d}_{self.folder}"

    def split(self) -> dict[str, list[str]]:
        return json.loads((SHARED / self.folder / "split.json").read_text())


DATA_SETS = {
    "fetal-head-us": DataSet(
        721,
        "hc18",
        "ultrasound",
        {"background": 0, "fetal head": 1},
        (192, 256),
        256,
        "nnUNetTrainerUSEMARobust2D",
        # The masks reach to the outer rim of a drawn line: an ellipse around them is longer than the published
        # circumference by that of 0.90 pixels of radius (median of all; 0.86 to 0.97 in nine of ten).
        inwards=0.9,
    ),
    "lungs-cxr": DataSet(
        722,
        "cxr_lungs",
        "X-ray",
        {"background": 0, "lungs": 1},
        (256, 256),
        256,
        "nnUNetTrainerUSEMARobust2DUpright",
    ),
    "nuclei-fluo": DataSet(
        723,
        "dsb2018_nuclei",
        "fluorescence",
        {"background": 0, "nucleus": 1, "boundary": 2},
        (256, 256),
        None,
        "nnUNetTrainerUSEMARobust2D",
    ),
}


def prepare(data: DataSet, runs: Path) -> Path:
    """The raw data set; made if it is not there."""
    raw = runs / "raw" / data.name
    split = data.split()
    for part in ("imagesTr", "labelsTr"):
        (raw / part).mkdir(parents=True, exist_ok=True)
    source = SHARED / data.folder
    for case in (*split["train"], *split["val"]):
        label_path = raw / "labelsTr" / f"{case}.png"
        if label_path.is_file():
            continue
        image = Image.open(source / "images" / f"{case}.png").convert("L")
        size = reduced(image.size, data.longest_side)
        image.resize(size, Image.Resampling.BILINEAR).save(raw / "imagesTr" / f"{case}_0000.png")
        if "boundary" in data.labels:
            label = rims(np.asarray(Image.open(source / "instances" / f"{case}.png")))
        else:
            mask = np.asarray(Image.open(source / "masks" / f"{case}.png")) > 0
            shares = Image.fromarray(moved_inwards(mask, data.inwards)).resize(size, Image.Resampling.BILINEAR)
            label = (np.asarray(shares) > 0.5).astype(np.uint8)
        Image.fromarray(label).save(label_path)
    description = {
        "channel_names": {"0": data.channel},
        "labels": data.labels,
        "numTraining": len(split["train"]) + len(split["val"]),
        "file_ending": ".png",
        "overwrite_image_reader_writer": "NaturalImage2DIO",
    }
    (raw / "dataset.json").write_text(json.dumps(description, indent=1) + "\n")
    (raw / "splits_final.json").write_text(json.dumps([split]) + "\n")
    return raw


def given(data: DataSet, raw: Path, runs: Path) -> Path:
    """The validation images and their labels as they were given, in nnU-Net's layout, for `usema card` and `calibrate`.

    Outlines are where the data set has them; of objects, the labels have rims.
    """
    folder, source = runs / "given" / data.name, SHARED / data.folder
    labels = (raw / "labelsTr") if "boundary" in data.labels else (source / "masks")
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for case in data.split()["val"]:
        for link, target in (
            (folder / "imagesTr" / f"{case}_0000.png", source / "images" / f"{case}.png"),
            (folder / "labelsTr" / f"{case}.png", labels / f"{case}.png"),
        ):
            link.unlink(missing_ok=True)
            link.symlink_to(target.resolve())
    (folder / "splits_final.json").write_text((raw / "splits_final.json").read_text())
    return folder


def reduced(size: tuple[int, int], longest_side: int | None) -> tuple[int, int]:
    """Columns and rows of a picture whose longest side is at most so many pixels."""
    factor = longest_side / max(size) if longest_side else 1
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def moved_inwards(mask: np.ndarray, pixels: float) -> np.ndarray:
    """The share of each pixel that lies inside, float32, once the outline was moved."""
    from scipy.ndimage import distance_transform_edt

    if not pixels:
        return mask.astype(np.float32)
    # Distances run between centres of pixels, and the outline half a pixel before the first one outside.
    around = np.pad(mask, 1, mode="edge")
    depth = distance_transform_edt(around)[1:-1, 1:-1] - 0.5
    return np.clip(depth - pixels + 0.5, 0, 1).astype(np.float32)


def plan(data: DataSet, raw: Path, runs: Path) -> None:
    """nnU-Net's plan with this experiment's network, and its preprocessing."""
    preprocessed = runs / "preprocessed"
    path = preprocessed / data.name / "nnUNetPlans.json"
    if path.is_file() and json.loads(path.read_text()).get("images2d"):
        return
    os.environ |= {
        "nnUNet_raw": str(raw.parent),
        "nnUNet_preprocessed": str(preprocessed),
        "nnUNet_results": str(runs / "results"),
    }
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api

    api.extract_fingerprint_dataset(data.number, num_processes=1, check_dataset_integrity=True)
    api.plan_experiment_dataset(data.number)
    document = json.loads(path.read_text())
    chosen = document["configurations"]["2d"]
    chosen |= {"patch_size": list(data.patch), "batch_size": BATCH, "use_mask_for_norm": [False]}
    stages = len(FEATURES)
    chosen["architecture"]["arch_kwargs"] |= {
        "n_stages": stages,
        "features_per_stage": list(FEATURES),
        "kernel_sizes": [[3, 3]] * stages,
        "strides": [[1, 1]] + [[2, 2]] * (stages - 1),
        "n_conv_per_stage": [2] * stages,
        "n_conv_per_stage_decoder": [2] * (stages - 1),
    }
    document["configurations"] = {"2d": chosen}
    path.write_text(json.dumps(document, indent=1))
    api.preprocess_dataset(data.number, configurations=("2d",), num_processes=[1])
    document["images2d"] = True
    path.write_text(json.dumps(document, indent=1))
