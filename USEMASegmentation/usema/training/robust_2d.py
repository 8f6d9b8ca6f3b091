"""The recipe of the bundled 2D models: robust against other devices, exposures and views, at a small budget.

A picture comes from any ultrasound device, X-ray tube or microscope: brighter or darker, inverted, turned, cut,
blurred. The z-score takes out gain and offset; the rest has a transform here, in ``robust`` or in nnU-Net.
"""

from __future__ import annotations

import math
import random
from typing import ClassVar

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform

from .averaged import AveragedWeights
from .robust import OUTSIDE, Level, Shift, Surroundings
from .trainers import nnUNetTrainerUSEMASmall


class Darkness(BasicTransform):
    """Fills what lies outside the image with the image's darkest value, as devices fill what they do not show."""

    def apply(self, data_dict: dict, **params) -> dict:
        image, outside = data_dict["image"], data_dict["segmentation"][0] == OUTSIDE
        if outside.any() and not outside.all():
            for channel in image:
                channel[outside] = channel[~outside].min()
        return data_dict


class Inversion(BasicTransform):
    """Dark becomes bright, as in an X-ray whose MONOCHROME1 nobody heeded."""

    def apply(self, data_dict: dict, **params) -> dict:
        return {**data_dict, "image": -data_dict["image"]}


class UnevenLight(BasicTransform):
    """Adds a smooth field of up to half a standard deviation: gain over depth, heel effect, vignetting."""

    def apply(self, data_dict: dict, **params) -> dict:
        image = data_dict["image"]
        coarse = torch.randn(1, 1, random.randint(2, 4), random.randint(2, 4)) * random.uniform(0, 0.5)
        field = torch.nn.functional.interpolate(coarse, image.shape[1:], mode="bicubic")[0]
        return {**data_dict, "image": image + field}


class nnUNetTrainerUSEMARobust2D(AveragedWeights, nnUNetTrainerUSEMASmall):
    """For pictures that have no upright: one SEMA block, at the bottleneck, strong augmentation, averaged weights.

    The plan's channels are taken as they are. What is exported and validated is the exponential moving average of the
    weights, which evens out a short budget's last steps.
    """

    switches: ClassVar[dict] = {**nnUNetTrainerUSEMASmall.switches, "sema_stages": "bottleneck"}
    width = 1.0
    rotation: ClassVar[float] = math.pi  # at most, to either side

    @staticmethod
    def get_training_transforms(*arguments, **options):
        every = nnUNetTrainerUSEMASmall.get_training_transforms(*arguments, **options)
        for each in every.transforms:
            if isinstance(each, SpatialTransform):
                each.p_rotation, each.p_scaling, each.scaling = 0.6, 0.6, (0.6, 1.6)
        intensity = [number for number, each in enumerate(every.transforms) if isinstance(each, RandomTransform)]
        every.transforms[intensity[0] : intensity[0]] = [
            RandomTransform(transform, apply_probability=probability)
            for transform, probability in (
                (Shift(), 0.1),
                (Darkness(), 0.6),
                (Surroundings(), 0.25),
                (UnevenLight(), 0.3),
                (GammaTransform((0.5, 2.0), 0, False, 1, 1), 0.3),
                (Inversion(), 0.12),
                (SimulateLowResolutionTransform((0.25, 0.6), True, True, None), 0.1),
                (GaussianBlurTransform(blur_sigma=(0.7, 2.0), synchronize_channels=True), 0.1),
                (GaussianNoiseTransform(noise_variance=(0, 0.3), synchronize_channels=True), 0.15),
                (Level(gain=(0.6, 1.6), shift=(-0.6, 0.6)), 0.4),
            )
        ]
        return every

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self):
        _, *others = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        return (-self.rotation, self.rotation), *others

    def mirrored_axes(self, axes: tuple[int, ...]) -> tuple[int, ...] | None:
        return axes


class nnUNetTrainerUSEMARobust2DUpright(nnUNetTrainerUSEMARobust2D):
    """nnUNetTrainerUSEMARobust2D for pictures that stand upright, as X-rays do: left and right alone are mirrored."""

    rotation: ClassVar[float] = math.pi / 8

    def mirrored_axes(self, axes: tuple[int, ...]) -> tuple[int, ...] | None:
        return (1,)


class Finish(nnUNetTrainerUSEMARobust2D):
    """The end of a training: from the weights of the recipe's own trainer (``--start``), at a third of its learning
    rate, with images more like those that it will see. What inherits it names the recipe after it."""

    @staticmethod
    def get_training_transforms(*arguments, **options):
        every = nnUNetTrainerUSEMARobust2D.get_training_transforms(*arguments, **options)
        for each in every.transforms:
            if isinstance(each, RandomTransform):
                each.apply_probability *= 0.4
        return every

    def initialize(self):
        super().initialize()
        self.initial_lr /= 3
        self.optimizer, self.lr_scheduler = self.configure_optimizers()


class nnUNetTrainerUSEMARobust2DFinish(Finish):
    """The end of nnUNetTrainerUSEMARobust2D."""


class nnUNetTrainerUSEMARobust2DUprightFinish(Finish, nnUNetTrainerUSEMARobust2DUpright):
    """The end of nnUNetTrainerUSEMARobust2DUpright."""
