"""Trainers of the accuracy experiment: one recipe, nnUNetTrainerUSEMASmall's, and networks that differ in one thing.

``Testing/Benchmarks/accuracy.py`` trains them side by side. nnUNetTrainerUSEMASmall itself has a SEMA block at every
stage but full resolution.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from .trainers import nnUNetTrainerUSEMASmall

_SMALL = nnUNetTrainerUSEMASmall.switches


class nnUNetTrainerControlPlain(nnUNetTrainerUSEMASmall):
    """nnU-Net's own plain U-Net, with the same share of the plan's channels. It cannot be exported as a bundle."""

    @classmethod
    def build_network_architecture(
        cls, architecture_class_name: str, arch_init_kwargs: dict, *arguments, **options
    ) -> torch.nn.Module:
        features = [round(channels * cls.width) for channels in arch_init_kwargs["features_per_stage"]]
        scaled = {**arch_init_kwargs, "features_per_stage": features}
        return nnUNetTrainer.build_network_architecture(architecture_class_name, scaled, *arguments, **options)

    def set_deep_supervision_enabled(self, enabled: bool):
        nnUNetTrainer.set_deep_supervision_enabled(self, enabled)

    def save_checkpoint(self, filename: str) -> None:
        nnUNetTrainer.save_checkpoint(self, filename)


class nnUNetTrainerControlResidual(nnUNetTrainerUSEMASmall):
    """USEMA without attention: a residual U-Net."""

    switches: ClassVar[dict] = {**_SMALL, "sema_stages": "none"}


class nnUNetTrainerControlBottleneck(nnUNetTrainerUSEMASmall):
    """One SEMA block, at the bottleneck."""

    switches: ClassVar[dict] = {**_SMALL, "sema_stages": "bottleneck"}


class nnUNetTrainerControlAllStages(nnUNetTrainerUSEMASmall):
    """A SEMA block at every stage, as the paper's reconstruction has it."""

    switches: ClassVar[dict] = {**_SMALL, "sema_stages": "all"}


class nnUNetTrainerControlWindowOnly(nnUNetTrainerControlAllStages):
    """Window attention without the mean of all values."""

    switches: ClassVar[dict] = {**nnUNetTrainerControlAllStages.switches, "mean": False}


class nnUNetTrainerControlMeanOnly(nnUNetTrainerControlAllStages):
    """The mean of all values without window attention."""

    switches: ClassVar[dict] = {**nnUNetTrainerControlAllStages.switches, "local": False}


class nnUNetTrainerControlNoValueProjection(nnUNetTrainerControlAllStages):
    """v = u, as in MILA, instead of v = Linear(u)."""

    switches: ClassVar[dict] = {**nnUNetTrainerControlAllStages.switches, "value_projection": False}
