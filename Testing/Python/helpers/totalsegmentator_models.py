"""Small nnU-Nets in TotalSegmentator's folders, under its names and in its zips, that find something in a real CT.

nnU-Net's own trainer writes the checkpoints. Weights are random but for the last layer, which is fitted to the labels
of the CT (a linear discriminant), so that the networks find connected structures and are sure of most voxels.
"""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from nnunet_cases import body_ct_intensities, planned
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as trainers
from scipy import ndimage
from usema.converters.public import PublicModel, public_models

# What stands for structures that an abdomen does not show, in the rough models: which of its labels.
_STAND_INS = {
    "skull": "vertebrae_L1", "clavicula_left": "vertebrae_L2", "vertebrae_T1": "aorta", "brain": "costal_cartilages",
    "hip_left": "autochthon_left", "lung_middle_lobe_right": "gallbladder",
}  # fmt: skip
_LABELS = "volumes/body_ct/example_seg_fast.nii.gz"
_CT = "volumes/body_ct/example_ct_sm.nii.gz"


def public(name: str) -> PublicModel:
    """The model of the shelf that is called totalsegmentator-``name``."""
    return next(model for model in public_models() if model.name == f"totalsegmentator-{name}")


def dataset_of(model: PublicModel, number: int) -> dict:
    return next(one for one in model.recipe["datasets"] if one["folder"].startswith(f"Dataset{number:03d}_"))


def make(
    results: Path, data: Path, model: PublicModel, dataset: dict, folds=(0,), outputs: int = 0, patch=None
) -> Path:
    """The folder of one dataset, with trained-looking checkpoints.

    Args:
        results: where the folder goes.
        model: the task.
        dataset: one of ``model.recipe["datasets"]``.
        folds: numbers.
        outputs: labels of the network; 0: as many as the task says.
        patch: of the plan, in voxels; None: a small one.
    """
    number = int(dataset["folder"][7:10])
    trainer_name, _, configuration = dataset["training"].split("__")
    outputs = outputs or len(dataset.get("labels", model.labels))
    spacing = model.recipe["resample_mm"] or [2.5, 2.5, 4.0]
    plans, description = _plans(data, dataset["folder"], configuration, spacing, patch), _description(outputs)
    for fold in folds:
        torch.manual_seed(100 * number + fold)
        trainer = _trainer(results, trainer_name, plans, configuration, fold, description)
        _fit(
            trainer.network, _targets(model, dataset, outputs, fold, data), plans["configurations"][configuration], data
        )
        folder = Path(trainer.output_folder).parent
        trainer.save_checkpoint(str(folder / f"fold_{fold}" / "checkpoint_final.pth"))
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(description))
    return results / dataset["folder"]


def ct(data: Path, box=(slice(None),) * 3, air: int = 0, axes=(2, 0, 1), flips=(True, False, True)) -> sitk.Image:
    """A piece of the CT (z, y, x), in so many voxels of air, stored along other axes and slightly turned."""
    image = sitk.ReadImage(str(data / _CT))
    image = image[tuple(box[::-1])]
    image = sitk.ConstantPad(image, [air, air // 2, air // 3], [air // 2, air, air // 2], -1024.0)
    image = sitk.Flip(sitk.PermuteAxes(image, list(axes)), list(flips))
    turn = np.array(sitk.Euler3DTransform((0, 0, 0), 0.08, -0.05, 0.1).GetMatrix()).reshape(3, 3)
    image.SetDirection((turn @ np.array(image.GetDirection()).reshape(3, 3)).ravel().tolist())
    return image


def _plans(data: Path, name: str, configuration: str, spacing, patch=None) -> dict:
    plans = planned("sarcoma")
    plans |= {"dataset_name": name, "plans_name": "nnUNetPlans"}
    plans["foreground_intensity_properties_per_channel"]["0"] = body_ct_intensities(data)
    chosen = deepcopy(plans["configurations"]["3d_fullres"])
    # As the published configurations are, with small tiles.
    chosen |= {
        "spacing": list(spacing[::-1]),
        "patch_size": patch or ([48, 48, 48] if min(spacing) < 1 else [24, 40, 40]),
        "batch_size": 2,
        "normalization_schemes": ["CTNormalization"],
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": 2,
                "features_per_stage": [16, 16] if min(spacing) >= 3 else [8, 8],
                "conv_op": "torch.nn.modules.conv.Conv3d",
                "kernel_sizes": [[3, 3, 3]] * 2,
                "strides": [[1, 1, 1], [2, 2, 2]],
                "n_conv_per_stage": [1, 1],
                "n_conv_per_stage_decoder": [1],
                "conv_bias": True,
                "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    plans["configurations"] = {configuration: chosen}
    return plans


def _description(outputs: int) -> dict:
    labels = {"background": 0, **{f"label{value}": value for value in range(1, outputs + 1)}}
    return {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}


def _trainer(results: Path, name: str, plans: dict, configuration: str, fold: int, description: dict):
    module = trainers
    before = module.nnUNet_results, module.nnUNet_preprocessed
    module.nnUNet_results = module.nnUNet_preprocessed = str(results)
    try:
        kind = type(name, (trainers.nnUNetTrainer,), {})
        kind.__init__ = lambda self, plans, configuration, fold, dataset_json, device: trainers.nnUNetTrainer.__init__(
            self, plans, configuration, fold, dataset_json, device=device
        )
        trainer = kind(plans, configuration, fold, description, torch.device("cpu"))
    finally:
        module.nnUNet_results, module.nnUNet_preprocessed = before
    trainer.configure_optimizers = lambda: (torch.optim.SGD(trainer.network.parameters(), 0.01), None)
    trainer.initialize()
    trainer.inference_allowed_mirroring_axes = None
    return trainer


def _targets(model: PublicModel, dataset: dict, outputs: int, fold: int, data: Path) -> np.ndarray:
    """What the network is to find, on the CT's grid: the CT's own labels under the numbers that it has for them."""
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(data / _LABELS)))
    present = np.unique(labels)[1:]
    table = np.zeros(256, int)
    names = {name: value for value, name in enumerate(public("total-6mm").raw_labels, 1)}
    if model.name.startswith("totalsegmentator-total-"):
        own = {value: output for output, value in enumerate(dataset.get("labels", range(1, outputs + 1)), 1)}
        for value in present:
            table[value] = own.get(value, 0)
        if "labels" not in dataset:
            for wanted, there in _STAND_INS.items():
                table[names[there]] = names[wanted]
    else:
        small = sorted(present, key=lambda value: -(labels == value).sum())
        for rank, value in enumerate(np.roll(small, fold)):
            table[value] = rank % outputs + 1
    return table[labels]


def _fit(network: torch.nn.Module, targets: np.ndarray, configuration: dict, data: Path) -> None:
    """The last layer becomes the linear discriminant of the features below it, by the real frequencies."""
    image = sitk.ReadImage(str(data / _CT))
    properties = body_ct_intensities(data)
    array = np.clip(sitk.GetArrayFromImage(image), properties["percentile_00_5"], properties["percentile_99_5"])
    array = (array - properties["mean"]) / properties["std"]
    coarse = np.maximum(configuration["spacing"], 3.0)  # finer features look much alike
    zoom = np.array(image.GetSpacing()[::-1]) / coarse
    array = ndimage.zoom(array.astype(np.float32), zoom, order=1)
    even = tuple(slice(0, side // 2 * 2) for side in array.shape)
    array = array[even]
    places = [
        np.minimum((np.arange(s) / z).astype(int), n - 1)
        for s, z, n in zip(array.shape, zoom, targets.shape, strict=True)
    ]
    wanted = torch.from_numpy(targets[np.ix_(*places)].ravel())
    layer = network.decoder.seg_layers[-1]
    seen = []
    hook = layer.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    with torch.no_grad():
        network(torch.from_numpy(array)[None, None])
        hook.remove()
        features = seen[0][0].flatten(1).double()  # (F, voxels)
        count = torch.bincount(wanted, minlength=layer.out_channels).double()
        sums = torch.zeros(len(features), layer.out_channels, dtype=torch.double).index_add_(1, wanted, features)
        means = sums / count.clamp(min=1)
        within = features - means[:, wanted]
        covariance = within @ within.T / features.shape[1] + 1e-4 * torch.eye(len(features), dtype=torch.double)
        weights = torch.linalg.solve(covariance, means)  # (F, K)
        bias = -0.5 * (means * weights).sum(0) + torch.log(count.clamp(min=1) / count.sum()) * 0.5
        bias[count == 0] = -1000.0
        weights[:, count == 0] = 0
        layer.weight.copy_(weights.T.float().reshape(layer.weight.shape) * 2)
        layer.bias.copy_(bias.float() * 2)
