"""Auto3DSeg models that MONAI trains here in a second, in the published format, and MONAI's own way of running them.

``labels_by_monai`` puts MONAI's transforms in the order of SlicerMONAIAuto3DSeg's inference script, with two changes:
the box is looked for after the axes were turned, and each volume is turned (see the recipe).
"""

from __future__ import annotations

import csv
import zipfile
from pathlib import Path

import numpy as np
import torch
from monai.data import decollate_batch, list_data_collate
from monai.inferers import SlidingWindowInferer
from monai.losses import DeepSupervisionLoss, DiceCELoss
from monai.networks.nets import SegResNetDS
from monai.transforms import (
    Compose,
    ConcatItemsd,
    CopyItemsd,
    CropForegroundd,
    EnsureTyped,
    Invertd,
    KeepLargestConnectedComponent,
    Lambdad,
    LoadImaged,
    NormalizeIntensityd,
    Orientationd,
    ScaleIntensityRanged,
    Spacingd,
)
from torch.nn.functional import avg_pool3d

CODES = ("Category", "Type", "TypeModifier")
_CODE_COLUMNS = [f"SegmentedProperty{code}CodeSequence" for code in CODES]
_CODE_COLUMNS += ["AnatomicRegionSequence", "AnatomicRegionModifierSequence"]
COLUMNS = [
    f"{column}.{part}" for column in _CODE_COLUMNS for part in ("CodingSchemeDesignator", "CodeValue", "CodeMeaning")
]
_TRAINED_ON = 16  # voxels along an axis: a network of convolutions then finds it everywhere
LIVER = ["SCT", "123037004", "Anatomical Structure", "SCT", "10200004", "Liver"]


def config(outputs: int = 4, **changes) -> dict:
    """What a checkpoint says of itself; "network" changes single keys of the network."""
    network = {
        "_target_": "SegResNetDS",
        "init_filters": 4,
        "blocks_down": [1, 1, 1],
        "norm": "INSTANCE_NVFUSER",
        "act": ["relu", {"inplace": False}],
        "in_channels": 1,
        "out_channels": outputs,
        "dsdepth": 2,
        **changes.pop("network", {}),
    }
    return {
        "bundle_root": "/nowhere/auto3dseg",
        "ckpt_path": "$@bundle_root + '/model'",
        "network": network,
        "sigmoid": False,
        "orientation_ras": False,
        "crop_foreground": True,
        "resample": True,
        "resample_resolution": [3.0, 3.0, 3.0],
        "normalize_mode": "range",
        "intensity_bounds": [-250.0, 250.0],
        "extra_modalities": {},
        "roi_size": [32, 32, 16],
        "custom_data_transforms": [],
        **changes,
    }


def network_of(settings: dict) -> SegResNetDS:
    """MONAI's own network; the fused norm is the plain one, as where its package is missing."""
    options = {key: value for key, value in settings["network"].items() if key not in ("_target_", "act")}
    options["norm"] = "instance" if "INSTANCE" in str(options["norm"]) else options["norm"]
    torch.manual_seed(0)
    return SegResNetDS(**options)


def train(settings: dict, files: list[Path], brats: bool = False, steps: int = 20) -> SegResNetDS:
    """A network that has learnt to tell bright from dark in a few steps, on a small tile where there is something."""
    network = network_of(settings)
    image = prepared(settings, files, brats)(_inputs(files, brats))["image"].as_tensor()[None]
    sides = zip(settings["roi_size"], image.shape[2:], strict=True)
    tile = tuple(min(side, most, _TRAINED_ON) // 4 * 4 for side, most in sides)
    centre = (image[0, 0] > image[0, 0].mean()).nonzero().float().mean(0).tolist()
    sides = zip(centre, tile, image.shape[2:], strict=True)
    starts = [min(max(0, round(place - side / 2)), length - side) for place, side, length in sides]
    middle = image[(..., *(slice(first, first + side) for first, side in zip(starts, tile, strict=True)))]
    smooth = avg_pool3d(middle[:, :1], 3, stride=1, padding=1)
    outputs, sigmoid = settings["network"]["out_channels"], settings["sigmoid"]
    limits = torch.quantile(smooth, torch.linspace(0, 1, outputs + 1 + sigmoid)[1:-1])
    classes = torch.bucketize(smooth, limits).float()
    target = torch.cat([classes > index for index in range(outputs)], 1).float() if sigmoid else classes
    loss = DeepSupervisionLoss(DiceCELoss(sigmoid=sigmoid, softmax=not sigmoid, to_onehot_y=not sigmoid))
    optimizer = torch.optim.AdamW(network.parameters(), 0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(network(middle), target).backward()
        optimizer.step()
    return network.eval()


def save(folder: Path, settings: dict, network: torch.nn.Module, names: list[str] | None = None) -> Path:
    """``model.pt`` and ``labels.csv`` as the publisher packs them."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {"state_dict": network.state_dict(), "config": settings, "epoch": 7, "best_metric": np.float64(0.9)}
    torch.save(state, folder / "model.pt")
    count = settings["network"]["out_channels"] - (not settings["sigmoid"])
    write_labels(folder, names or ["liver", *(f"structure {value}" for value in range(2, count + 1))])
    return folder


def write_labels(folder: Path, names: list[str]) -> None:
    """The first has codes; trailing empty fields of the others are left out."""
    with (folder / "labels.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["LabelValue", "Name", *COLUMNS])
        for value, name in enumerate(names, 1):
            rows.writerow([value, name, *(LIVER if value == 1 else [])])


def zipped(folder: Path, target: Path, inside: str = "") -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"{inside}{file.name}")
    return target


def labels_by_monai(folder: Path, files: list[Path], brats: bool = False, components: int = 0) -> np.ndarray:
    """Labels (z, y, x) on the first file's grid, by MONAI alone."""
    checkpoint = torch.load(folder / "model.pt", weights_only=False)
    settings = checkpoint["config"]
    network = network_of(settings).eval()
    network.load_state_dict(checkpoint["state_dict"])
    transform = prepared(settings, files, brats)
    batch = list_data_collate([transform(_inputs(files, brats))])
    inferer = SlidingWindowInferer(settings["roi_size"], sw_batch_size=1, overlap=0.625, mode="gaussian")
    with torch.no_grad():
        logits = inferer(batch["image"].as_tensor(), network)
    found = logits.sigmoid() >= 0.5 if settings["sigmoid"] else logits.argmax(1, keepdim=True)
    batch["pred"] = batch["image"][:, :1].repeat(1, found.shape[1], 1, 1, 1)
    batch["pred"].copy_(found)
    back = Invertd(keys="pred", orig_keys="image", transform=transform, nearest_interp=True)
    labels = back(decollate_batch(batch)[0])["pred"].as_tensor()
    if settings["sigmoid"]:
        regions, labels = labels > 0, 2 * (labels > 0).any(0)
        labels[regions[1:].any(0)] = 1
        labels[regions[2:].any(0)] = 3
    else:
        labels = (KeepLargestConnectedComponent(num_components=components)(labels) if components else labels)[0]
    return labels.numpy().astype(np.uint8).transpose(2, 1, 0)


def prepared(settings: dict, files: list[Path], brats: bool) -> Compose:
    """MONAI's transforms from files to what the network sees, "image"."""
    if brats:
        steps = [
            LoadImaged("image", ensure_channel_first=True, image_only=True),
            EnsureTyped("image", dtype=torch.float),
        ]
        steps += _turned(settings, ["image"]) + _cropped(settings, "image") + _resampled(settings)
        return Compose(steps + _normalised(settings["normalize_mode"], "image", settings))
    keys = [f"image{index}" for index in range(1, len(files) + 1)]
    steps = [LoadImaged(keys, ensure_channel_first=True, image_only=True), EnsureTyped(keys, dtype=torch.float)]
    steps.append(CopyItemsd("image1", names="raw"))
    for key, mode in zip(keys, [settings["normalize_mode"], *settings["extra_modalities"].values()], strict=True):
        steps += _normalised(mode, key, settings)
    steps += [ConcatItemsd(keys, "image"), *_turned(settings, ["image", "image1", "raw"])]
    steps += _cropped(settings, "raw" if len(keys) == 1 else "image1") + _resampled(settings)
    return Compose(steps)


def _inputs(files: list[Path], brats: bool) -> dict:
    return {"image": list(files)} if brats else {f"image{index}": file for index, file in enumerate(files, 1)}


def _normalised(mode: str, key: str, settings: dict) -> list:
    if mode in ("range", "ct"):
        low, high = settings["intensity_bounds"]
        return [ScaleIntensityRanged(key, low, high, -1, 1, clip=False), Lambdad(key, torch.sigmoid)]
    if mode == "pet":
        return [Lambdad(key, lambda x: torch.sigmoid((x - x.min()) / x.std()))]
    steps = [NormalizeIntensityd(key, nonzero=True, channel_wise=True)] if mode != "none" else []
    return [*steps, Lambdad(key, lambda x: 3 * torch.tanh(x / 3))] if mode == "meanstdtanh" else steps


def _turned(settings: dict, keys: list[str]) -> list:
    return [Orientationd(keys, axcodes="RAS")] if settings["orientation_ras"] else []


def _cropped(settings: dict, source: str) -> list:
    return [CropForegroundd("image", source, margin=10, allow_smaller=True)] if settings["crop_foreground"] else []


def _resampled(settings: dict) -> list:
    wanted = settings["resample_resolution"]
    if wanted is None:
        return []
    low, high = 0.75 * np.array(wanted), 1.25 * np.array(wanted)
    return [Spacingd("image", wanted, mode="bilinear", dtype=torch.float, min_pixdim=low, max_pixdim=high)]
