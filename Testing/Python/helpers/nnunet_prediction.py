"""Small networks, and nnU-Net's own prediction with them, for tests that compare.

nnU-Net adds up the logits of tiles in half precision. Here it does so in single, so that what differs is the engine's.
"""

from __future__ import annotations

from unittest import mock

import numpy as np
import SimpleITK as sitk
import torch
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
    config = {
        "in_channels": channels,
        "num_classes": heads,
        "features": [4, 8],
        "kernels": [[3] * axes] * 2,
        "strides": [[1] * axes, [2] * axes],
        "convs": [1, 1],
        "decoder_convs": [1],
    }
    return {"name": "PlainConvUNet", "config": config}


def network(data, seed: int = 0, *, regions: bool = False, cascade: bool = False, axes: int = 3) -> tuple[dict, dict]:
    """Architecture and seeded weights of a small network whose outputs are each now and then the largest.

    Regions: its two outputs lie above zero in a third of the voxels or so.
    """
    described = architecture(2 if regions else 3, 3 if cascade else 1, axes)
    torch.manual_seed(seed)
    made = build(described).eval().requires_grad_(False)
    image, labels = case(data)
    x = sitk.GetArrayFromImage(image).astype(np.float32)
    x = torch.from_numpy((x - x.mean()) / x.std())[None, None, :32, :48, :32]
    if cascade:
        before = convert_labelmap_to_one_hot(labels[:32, :48, :32], [1, 2])
        x = torch.cat([x, torch.from_numpy(before)[None].float()], dim=1)
    if axes == 2:
        x = x[0].transpose(0, 1)
    state = made.state_dict()
    logits = made(x).transpose(0, 1).flatten(1)
    *_, head = [name.removesuffix(".weight") for name, tensor in state.items() if tensor.shape[0] == len(logits)][::2]
    scale = 3 / logits.std(dim=1)
    state[f"{head}.weight"] *= scale.reshape(-1, *[1] * (axes + 1))
    state[f"{head}.bias"][:] = (state[f"{head}.bias"] - logits.mean(dim=1)) * scale - (1 if regions else 0)
    return described, {name: tensor.clone() for name, tensor in state.items()}


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
    before = None if previous is None else previous[None].astype(np.int16)
    with mock.patch.object(torch, "half", torch.float32):
        return predictor.predict_single_npy_array(
            sitk.GetArrayFromImage(image)[None].astype(np.float32),
            {"spacing": list(image.GetSpacing())[::-1]},
            before,
            None,
            True,
        )
