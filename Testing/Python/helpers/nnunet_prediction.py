"""Small networks trained for a moment, and nnU-Net's own prediction with them, for tests that compare."""

from __future__ import annotations

import functools

import numpy as np
import SimpleITK as sitk
import torch
from bundles import TINY
from nnunet_cases import planned
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from usema.networks import build

LABELS = {"background": 0, "Anterior hippocampus": 1, "Posterior hippocampus": 2}
# The whole hippocampus and, in it, its posterior part: what the anterior part is follows from the order.
REGIONS = {"background": 0, "Whole hippocampus": [1, 2], "Posterior hippocampus": [2]}
REGION_ORDER = [1, 2]


def case(data, number: str = "001") -> tuple[sitk.Image, np.ndarray]:
    """A volume of the hippocampus dataset and its labels (z, y, x)."""
    folder = data / "nnUNet_raw/Dataset004_Hippocampus"
    image = sitk.ReadImage(str(folder / f"imagesTr/hippocampus_{number}_0000.nii.gz"))
    labels = sitk.ReadImage(str(folder / f"labelsTr/hippocampus_{number}.nii.gz"))
    return image, sitk.GetArrayFromImage(labels)


def architecture(heads: int = 3, channels: int = 1, axes: int = 3) -> dict:
    config = {**TINY, "num_classes": heads, "in_channels": channels}
    config["kernels"] = [[3] * axes] * 2
    config["strides"] = [[1] * axes, [2] * axes]
    return {"name": "USEMA", "config": config}


@functools.cache
def _trained(data, seed: int, regions: bool, cascade: bool, axes: int) -> tuple[dict, dict]:
    described = architecture(2 if regions else 3, 3 if cascade else 1, axes)
    torch.manual_seed(seed)
    network = build(described).train()
    optimiser = torch.optim.Adam(network.parameters(), 2e-2)
    image, labels = case(data, f"{1 + 2 * (seed % 2):03d}")
    x = sitk.GetArrayFromImage(image).astype(np.float32)
    x = torch.from_numpy((x - x.mean()) / x.std())[None, None, 8:32, 8:48, 8:32]
    y = torch.from_numpy(labels.astype(np.int64))[None, 8:32, 8:48, 8:32]
    if cascade:
        # What the stage before might have found: the labels, some voxels off.
        before = torch.roll(y, (1, 2, -1), (1, 2, 3))
        x = torch.cat([x, torch.from_numpy(convert_labelmap_to_one_hot(before[0].numpy(), [1, 2]))[None].float()], 1)
    if axes == 2:
        x, y = x[0].transpose(0, 1), y[0]
    for _ in range(25):
        logits = network(x)
        if regions:
            wanted = torch.stack([y > 0, y == 2], dim=1).float()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted)
        else:
            loss = torch.nn.functional.cross_entropy(logits, y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return described, {name: tensor.clone() for name, tensor in network.state_dict().items()}


def trained(data, seed: int = 0, *, regions: bool = False, cascade: bool = False, axes: int = 3) -> tuple[dict, dict]:
    """Architecture and weights of a network that finds the hippocampus roughly, after a few seconds of training."""
    return _trained(data, seed, regions, cascade, axes)


def plans(configuration: str = "3d_fullres", **changes) -> dict:
    """Plans for the hippocampus with a small tile; ``changes`` to the configuration."""
    result = planned("hippocampus")
    patch = [24, 32, 24] if configuration == "3d_fullres" else [32, 24]
    result["configurations"][configuration].update({"patch_size": patch, **changes})
    return result


def predicted_by_nnunet(
    described: dict,
    states: list[dict],
    plans: dict,
    image: sitk.Image,
    *,
    configuration: str = "3d_fullres",
    regions: bool = False,
    mirror_axes: tuple[int, ...] | None = None,
    previous: np.ndarray | None = None,
    labels: dict | None = None,
    overlap: float = 0.5,
) -> tuple[np.ndarray, np.ndarray]:
    """Labels (z, y, x) and probabilities (heads, z, y, x) of nnU-Net's own predictor, with each fold's weights."""
    dataset = {
        "labels": labels or (REGIONS if regions else LABELS),
        "channel_names": {"0": "MRI"},
        "file_ending": ".nii",
    }
    if regions:
        dataset["regions_class_order"] = REGION_ORDER
    manager = PlansManager(plans)
    predictor = nnUNetPredictor(
        tile_step_size=1 - overlap, use_mirroring=mirror_axes is not None, device=torch.device("cpu"), allow_tqdm=False
    )
    predictor.manual_initialization(
        build(described).eval(),
        manager,
        manager.get_configuration(configuration),
        states,
        dataset,
        "nnUNetTrainer",
        mirror_axes,
    )
    before = None if previous is None else previous[None]
    return predictor.predict_single_npy_array(
        sitk.GetArrayFromImage(image)[None].astype(np.float32),
        {"spacing": list(image.GetSpacing())[::-1]},
        before,
        None,
        True,
    )
