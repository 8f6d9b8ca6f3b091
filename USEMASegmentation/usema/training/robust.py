"""The recipe of the bundled models: one SEMA block, and augmentation for what hospitals send.

Training data are crops of one scanner's protocol. In use come coarser voxels, other intensities, and fields of view
that show more than the crop did; each has a transform here beside nnU-Net's own.
"""

from __future__ import annotations

import random
from typing import ClassVar

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform

from .trainers import nnUNetTrainerUSEMASmall

OUTSIDE = -1  # nnU-Net's label of what its loader pads a crop with, until its last transform removes it


class Shift(BasicTransform):
    """Moves image and labels by up to 60 % of each side: a tile of a larger volume shows a structure anywhere, or not
    at all. What comes into view is OUTSIDE."""

    def apply(self, data_dict: dict, **params) -> dict:
        image, labels = data_dict["image"], data_dict["segmentation"]
        steps = [round(side * random.uniform(-0.6, 0.6)) for side in image.shape[1:]]
        target = tuple(
            slice(max(0, step), side + min(0, step)) for step, side in zip(steps, image.shape[1:], strict=True)
        )
        source = tuple(
            slice(max(0, -step), side - max(0, step)) for step, side in zip(steps, image.shape[1:], strict=True)
        )
        moved, moved_labels = torch.zeros_like(image), torch.full_like(labels, OUTSIDE)
        moved[(slice(None), *target)] = image[(slice(None), *source)]
        moved_labels[(slice(None), *target)] = labels[(slice(None), *source)]
        return {**data_dict, "image": moved, "segmentation": moved_labels}


class Surroundings(BasicTransform):
    """Fills what lies outside the image with smooth random structure and noise, instead of zeros.

    Takes an image (C, *space) and labels (1, *space) in which OUTSIDE marks voxels outside the image.
    """

    def apply(self, data_dict: dict, **params) -> dict:
        image, outside = data_dict["image"], data_dict["segmentation"][0] == OUTSIDE
        if outside.any():
            space = image.shape[1:]
            mode = "trilinear" if len(space) == 3 else "bilinear"
            coarse = torch.randn(1, image.shape[0], *(max(2, side // random.randint(3, 12)) for side in space))
            structure = torch.nn.functional.interpolate(coarse, space, mode=mode)[0]
            structure = structure * random.uniform(0, 1.5) + torch.randn(image.shape) * random.uniform(0, 0.3)
            structure += random.uniform(-3, 1.5)
            image[:, outside] = structure[:, outside].to(image.dtype)
        return data_dict


class ThickSlices(BasicTransform):
    """Averages two or three neighbouring slices along one axis: where slices are thick against their pixels, nnU-Net's
    rules repeat each slice instead of interpolating between them."""

    def apply(self, data_dict: dict, **params) -> dict:
        image = data_dict["image"]
        axis, count = random.randrange(1, image.ndim), random.choice((2, 3))
        first = random.randrange(count)
        # Slices before the first whole group belong to one that begins outside.
        groups = [image.narrow(axis, 0, first)] if first else []
        groups += image.narrow(axis, first, image.shape[axis] - first).split(count, dim=axis)
        means = [group.mean(dim=axis, keepdim=True).expand_as(group) for group in groups]
        return {**data_dict, "image": torch.cat(means, dim=axis)}


class Level(BasicTransform):
    """Scales and moves all intensities, as the normalization does where a larger field of view holds more air.

    With 2 cm of air around a hippocampus they rise by 2.4 standard deviations; other tissue may lower them.

    Args:
        gain: range of the factor.
        shift: range of what is added, in standard deviations.
    """

    def __init__(self, gain: tuple[float, float] = (0.6, 1.6), shift: tuple[float, float] = (-0.7, 2.8)):
        super().__init__()
        self.gain, self.shift = gain, shift

    def apply(self, data_dict: dict, **params) -> dict:
        data_dict["image"] = data_dict["image"] * random.uniform(*self.gain) + random.uniform(*self.shift)
        return data_dict


class nnUNetTrainerUSEMARobust(nnUNetTrainerUSEMASmall):
    """nnUNetTrainerUSEMASmall with one SEMA block, at the bottleneck, and stronger augmentation.

    The accuracy experiment found no gain from further SEMA blocks, and on a CPU each costs time: without them twice as
    many iterations fit into a budget.
    """

    switches: ClassVar[dict] = {**nnUNetTrainerUSEMASmall.switches, "sema_stages": "bottleneck"}

    @staticmethod
    def get_training_transforms(*arguments, **options):
        every = nnUNetTrainerUSEMASmall.get_training_transforms(*arguments, **options)
        intensity = [number for number, each in enumerate(every.transforms) if isinstance(each, RandomTransform)]
        # nnU-Net wraps its intensity transforms, and these only, in RandomTransform; the place before them is after
        # the patch was cut and turned.
        every.transforms[intensity[0] : intensity[0]] = [
            RandomTransform(Shift(), apply_probability=0.3),
            RandomTransform(Surroundings(), apply_probability=0.6),
            # Voxels of 2 mm, along each axis or along one, seen at the plan's 1 mm.
            RandomTransform(
                SimulateLowResolutionTransform(
                    scale=(0.4, 1), synchronize_channels=True, synchronize_axes=False, ignore_axes=None
                ),
                apply_probability=0.2,
            ),
            RandomTransform(
                SimulateLowResolutionTransform(
                    scale=(0.45, 1), synchronize_channels=True, synchronize_axes=True, ignore_axes=None
                ),
                apply_probability=0.15,
            ),
            RandomTransform(ThickSlices(), apply_probability=0.15),
            RandomTransform(Level(), apply_probability=0.4),
        ]
        return every


class nnUNetTrainerUSEMARobustBothSides(nnUNetTrainerUSEMARobust):
    """nnUNetTrainerUSEMARobust with left and right mirrored, for what both sides have under one label.

    Data may show one side only: the 208 hippocampi of the Medical Segmentation Decathlon that are in use here all have
    one handedness, and a network trained on them as they are failed on mirrored ones. Left to right is x, the last axis
    of stored volumes (z, y, x), unless their slices are sagittal.
    """

    def mirrored_axes(self, axes: tuple[int, ...]) -> tuple[int, ...] | None:
        x = self.plans_manager.transpose_forward.index(2) - (3 - len(self.configuration_manager.patch_size))
        return (x,) if x >= 0 else None  # 2D slices may have no x


class nnUNetTrainerUSEMARobustMirrored(nnUNetTrainerUSEMARobust):
    """nnUNetTrainerUSEMARobust with nnU-Net's mirroring, for labels that do not depend on the side: a tumour."""

    def mirrored_axes(self, axes: tuple[int, ...]) -> tuple[int, ...] | None:
        return axes
