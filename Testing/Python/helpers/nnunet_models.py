"""Small models that nnU-Net's own trainer trained for a few steps on real volumes, and nnU-Net's own predictions.

Trainers, plans, checkpoints and predictions are nnU-Net's; only the networks are made small, so that a kind takes
seconds.
"""

from __future__ import annotations

import json
import zipfile
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from nnunet_cases import body_ct_intensities, planned
from nnunetv2.inference import predict_from_raw_data as prediction
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as trainers
from nnunetv2.training.nnUNetTrainer.variants.network_architecture.nnUNetTrainerBN import nnUNetTrainerBN
from torch.nn import functional

HIPPOCAMPUS = {"background": 0, "Anterior": 1, "Posterior": 2}
REGIONS = {"background": 0, "whole": [1, 2], "Posterior": [2]}


@dataclass(frozen=True)
class Kind:
    """What a model is like; what is not named is as nnU-Net's planner has it for the dataset.

    Attributes:
        volume: "hippocampus", "sarcoma" or "body CT".
        configuration: name in the plans; copied from ``base`` if the planner has no such.
        changes: to the configuration; ``plans`` and ``dataset`` to the two files.
        channels: of the network: copies of the volume, each other in its values.
        residual, batch_norm, old: the network, its trainer, and whether its plans are of nnU-Net 2.0.
        kernels, strides: of the three stages; absent: 3 and 2 everywhere.
    """

    volume: str = "hippocampus"
    configuration: str = "3d_fullres"
    base: str = ""
    changes: tuple = ()
    plans: tuple = ()
    dataset: tuple = ()
    channels: int = 1
    residual: bool = False
    batch_norm: bool = False
    old: bool = False
    kernels: tuple = ()
    strides: tuple = ()


_TORCH = {"is_seg": False, "force_separate_z": False, "memefficient_seg_resampling": False}
KINDS = {
    "3D": Kind(),
    "3D, two channels": Kind(channels=2),
    "3D, batch normalisation": Kind(batch_norm=True),
    "residual encoder": Kind(residual=True),
    "regions": Kind(dataset=(("labels", REGIONS), ("regions_class_order", [1, 2]))),
    "ignored label": Kind(dataset=(("labels", {**HIPPOCAMPUS, "ignore": 3}),)),
    "old plans": Kind(old=True, changes=(("spacing", [1.3, 0.9, 1.0]),)),
    "2D": Kind(configuration="2d", changes=(("patch_size", [40, 40]),)),
    "2D, residual encoder, transposed": Kind(
        configuration="2d",
        residual=True,
        changes=(("patch_size", [40, 40]), ("spacing", [0.9, 1.2])),
        plans=(("transpose_forward", [2, 0, 1]), ("transpose_backward", [1, 2, 0])),
    ),
    "anisotropic": Kind(
        "sarcoma",
        changes=(("patch_size", [8, 48, 48]), ("spacing", [4.0, 2.4, 2.2])),
        kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
        strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)),
    ),
    "transposed": Kind(
        "sarcoma",
        changes=(("patch_size", [48, 48, 8]), ("spacing", [2.5, 2.4, 5.0])),
        plans=(("transpose_forward", [2, 1, 0]), ("transpose_backward", [2, 1, 0])),
        kernels=((3, 3, 1), (3, 3, 3), (3, 3, 3)),
        strides=((1, 1, 1), (2, 2, 1), (2, 2, 2)),
    ),
    "CT": Kind("body CT", changes=(("patch_size", [24, 32, 32]), ("spacing", [6.0, 6.0, 6.0]))),
    "resampled by torch": Kind(
        changes=(
            ("spacing", [1.4, 0.8, 1.1]),
            ("resampling_fn_data", "resample_torch_fornnunet"),
            ("resampling_fn_data_kwargs", _TORCH),
            ("resampling_fn_probabilities", "resample_torch_fornnunet"),
            ("resampling_fn_probabilities_kwargs", _TORCH),
        ),
    ),
    "low resolution": Kind(configuration="3d_lowres", base="3d_fullres", changes=(("spacing", [2.0, 2.0, 2.0]),)),
    "cascade": Kind(
        configuration="3d_cascade_fullres",
        base="3d_fullres",
        changes=(("previous_stage", "3d_lowres"),),
    ),
}


def train(kind: str, results: Path, data: Path, *, fold: int | str = 0, steps: int = 12, checkpoint="final") -> Path:
    """Trains a model for a few steps; the folder of its configuration, with plans.json, dataset.json and fold_N."""
    wanted = KINDS[kind]
    plans, dataset = plans_of(wanted, data), dataset_of(wanted)
    torch.manual_seed(len(kind) + (0 if fold == "all" else fold))
    module = trainers
    before = module.nnUNet_results, module.nnUNet_preprocessed
    module.nnUNet_results = module.nnUNet_preprocessed = str(results)
    try:
        trainer = (nnUNetTrainerBN if wanted.batch_norm else trainers.nnUNetTrainer)(
            plans, wanted.configuration, fold, dataset, device=torch.device("cpu")
        )
    finally:
        module.nnUNet_results, module.nnUNet_preprocessed = before
    # nnU-Net's optimiser without its schedule, which some versions of it cannot make with a newer PyTorch.
    trainer.configure_optimizers = lambda: (
        torch.optim.SGD(trainer.network.parameters(), 0.01, weight_decay=3e-5, momentum=0.99, nesterov=True),
        None,
    )
    trainer.initialize()
    trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    batch = _batch(trainer, wanted, data)
    for _ in range(steps):
        trainer.train_step(batch)
    folder = Path(trainer.output_folder).parent
    for name, content in (("plans", plans_of(wanted, data)), ("dataset", dataset)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    trainer.save_checkpoint(str(folder / f"fold_{fold}" / f"checkpoint_{checkpoint}.pth"))
    return folder


def case(kind: str, data: Path) -> list[Path]:
    """The files of a real case that a model of this kind segments, one a channel."""
    return [data / _VOLUMES[KINDS[kind].volume]] * KINDS[kind].channels


def predicted_by_nnunet(
    folder: Path, files: list[Path], folds=(0,), previous: np.ndarray | None = None, probabilities: bool = False
) -> np.ndarray:
    """nnU-Net's own label map (z, y, x), or its probabilities (classes, z, y, x).

    Args:
        folder: of the configuration.
        files: of the case, one a channel.
        folds: to be averaged.
        previous: the label map of the stage before.
        probabilities: give these instead.
    """
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False, use_mirroring=False, verbose=False)
    predictor.initialize_from_trained_model_folder(str(folder), folds)
    images = [sitk.ReadImage(str(file)) for file in files]
    array = np.stack([sitk.GetArrayFromImage(image) for image in images]).astype(np.float32)
    properties = {"spacing": list(images[0].GetSpacing()[::-1])}
    stage = None if previous is None else previous[None].astype(np.float32)
    with added_up_in_float32():
        result = predictor.predict_single_npy_array(array, properties, stage, None, probabilities)
    return result[1] if probabilities else result


@contextmanager
def added_up_in_float32():
    """nnU-Net weighs and adds up its tiles in half precision. That turns one voxel in a thousand of a model that is not
    sure of itself, as one of few steps is not, and is nothing that the model says."""
    half, torch.half = torch.half, torch.float32
    weights, prediction.compute_gaussian = prediction.compute_gaussian, partial(compute_gaussian, dtype=torch.float32)
    try:
        yield
    finally:
        torch.half, prediction.compute_gaussian = half, weights


def zipped(folder: Path, file: Path, top: str) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, f"{top}{path.relative_to(folder)}")
    return file


def changed(file: Path, change) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def resaved(folder: Path, change) -> None:
    file = folder / "fold_0/checkpoint_final.pth"
    content = torch.load(file, weights_only=False)
    change(content)
    torch.save(content, file)


_VOLUMES = {
    "hippocampus": "nnUNet_raw/Dataset004_Hippocampus/imagesTr/hippocampus_001_0000.nii.gz",
    "sarcoma": "nnUNet_raw/Dataset051_SarcomaMR/imagesTr/STS_002_0000.nii.gz",
    "body CT": "volumes/body_ct/example_ct_sm.nii.gz",
}
_LABELS = {
    "hippocampus": "nnUNet_raw/Dataset004_Hippocampus/labelsTr/hippocampus_001.nii.gz",
    "sarcoma": "nnUNet_raw/Dataset051_SarcomaMR/labelsTr/STS_002.nii.gz",
    "body CT": "volumes/body_ct/example_seg_fast.nii.gz",
}


def plans_of(kind: Kind, data: Path) -> dict:
    plans = planned("hippocampus" if kind.volume == "hippocampus" else "sarcoma")
    plans["configurations"]["3d_fullres"]["patch_size"] = [24, 32, 24]
    if kind.base:
        plans["configurations"]["3d_lowres"] = deepcopy(plans["configurations"][kind.base])
        plans["configurations"]["3d_lowres"]["spacing"] = [2.0, 2.0, 2.0]
        plans["configurations"].setdefault(kind.configuration, deepcopy(plans["configurations"][kind.base]))
    plans |= dict(kind.plans)
    chosen = plans["configurations"][kind.configuration]
    chosen |= deepcopy(dict(kind.changes))
    chosen["batch_size"] = 2
    for key in ("normalization_schemes", "use_mask_for_norm"):
        chosen[key] = chosen[key] * kind.channels
    properties = plans["foreground_intensity_properties_per_channel"]
    if kind.volume == "body CT":
        plans["dataset_name"] = "Dataset999_Body"
        chosen["normalization_schemes"], properties["0"] = ["CTNormalization"], body_ct_intensities(data)
    properties |= {str(channel): properties["0"] for channel in range(kind.channels)}
    for configuration in plans["configurations"].values():
        configuration.pop("architecture")
        configuration |= network_of(kind, len(configuration["patch_size"]))
    if kind.old:
        plans["foreground_intensity_properties_by_modality"] = plans.pop("foreground_intensity_properties_per_channel")
    return plans


def network_of(kind: Kind, axes: int) -> dict:
    """A network of three narrow stages, in the words of new plans or of old ones."""
    kernels = kind.kernels or ((3,) * axes,) * 3
    strides = kind.strides or ((1,) * axes, (2,) * axes, (2,) * axes)
    kernels, strides = ([list(side) for side in sides] for sides in (kernels, strides))
    if kind.old:
        return {
            "UNet_class_name": "PlainConvUNet",
            "UNet_base_num_features": 6,
            "unet_max_num_features": 16,
            "n_conv_per_stage_encoder": [2, 2, 2],
            "n_conv_per_stage_decoder": [2, 2],
            "num_pool_per_axis": [2] * axes,
            "pool_op_kernel_sizes": strides,
            "conv_kernel_sizes": kernels,
        }
    name = "ResidualEncoderUNet" if kind.residual else "PlainConvUNet"
    return {
        "architecture": {
            "network_class_name": f"dynamic_network_architectures.architectures.unet.{name}",
            "arch_kwargs": {
                "n_stages": 3,
                "features_per_stage": [6, 12, 16],
                "conv_op": f"torch.nn.modules.conv.Conv{axes}d",
                "kernel_sizes": kernels,
                "strides": strides,
                "n_blocks_per_stage" if kind.residual else "n_conv_per_stage": [1, 2, 2]
                if kind.residual
                else [2, 2, 2],
                "n_conv_per_stage_decoder": [1, 1] if kind.residual else [2, 2],
                "conv_bias": True,
                "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{axes}d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        }
    }


def dataset_of(kind: Kind) -> dict:
    names = {"hippocampus": "MRI", "sarcoma": "T1", "body CT": "CT"}
    labels = {"hippocampus": HIPPOCAMPUS, "sarcoma": {"background": 0, "tumour": 1}}
    labels["body CT"] = {"background": 0, "spleen": 1, "kidney_right": 2, "Left kidney": 3}
    dataset = {
        "channel_names": {str(channel): f"{names[kind.volume]}{channel or ''}" for channel in range(kind.channels)},
        "labels": labels[kind.volume],
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    return dataset | dict(kind.dataset)


def _batch(trainer, kind: Kind, data: Path) -> dict:
    """One patch around the labels, as the network sees it, and its targets at every level of the decoder."""
    images = [sitk.ReadImage(str(data / _VOLUMES[kind.volume]))] * kind.channels
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(data / _LABELS[kind.volume])))[None].astype(np.int16)
    labels[
        labels > max(np.max(value) for name, value in trainer.dataset_json["labels"].items() if name != "ignore")
    ] = 0
    array = np.stack([sitk.GetArrayFromImage(image) for image in images]).astype(np.float32)
    properties = {"spacing": list(images[0].GetSpacing()[::-1])}
    image, target = DefaultPreprocessor(verbose=False).run_case_npy(
        array, labels, properties, trainer.plans_manager, trainer.configuration_manager, trainer.dataset_json
    )[:2]
    patch = trainer.configuration_manager.patch_size
    if len(patch) == 2:
        best = int((target[0] > 0).sum((1, 2)).argmax())
        image, target = image[:, best], target[:, best]
    centre = [int(place.mean()) for place in np.nonzero(target[0] > 0)]
    window = tuple(
        slice(start := max(0, min(middle - side // 2, length - side)), start + side)
        for middle, side, length in zip(centre, patch, target.shape[1:], strict=True)
    )
    image, target = image[(slice(None), *window)], np.maximum(target[(slice(None), *window)], 0)
    missing = [(0, 0), *((0, side - length) for side, length in zip(patch, image.shape[1:], strict=True))]
    image, target = np.pad(image, missing), np.pad(target, missing)
    if kind.configuration == "3d_cascade_fullres":
        image = np.concatenate([image, *(target == value for value in (1, 2))])
    if trainer.label_manager.has_regions:
        target = np.stack([np.isin(target[0], np.atleast_1d(values)) for values in trainer.label_manager.all_regions])
    targets = torch.from_numpy(target.astype(np.float32))[None]
    scales = trainer._get_deep_supervision_scales()
    sizes = [[round(side * part) for side, part in zip(patch, scale, strict=True)] for scale in scales]
    return {
        "data": torch.from_numpy(image.astype(np.float32))[None],
        "target": [functional.interpolate(targets, size=size, mode="nearest") for size in sizes],
    }
