"""Trainers of the accuracy experiment: one recipe, nnUNetTrainerUSEMASmall's, and networks that differ in one thing.

``accuracy.py`` trains them side by side. nnUNetTrainerUSEMASmall itself has a SEMA block at every stage but full
resolution. Of USEMA's neighbours there are two each, of half the width: with the common recipe (Small), and with their
paper's (Half).
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from usema.training.neighbours import Neighbour, nnUNetTrainerAttentionMamba, nnUNetTrainerMLLAUNet
from usema.training.plugin import link_trainers
from usema.training.trainers import nnUNetTrainerUSEMASmall

# Put among nnU-Net's trainers; it does nothing once this repository is gone.
LINK = f"""# Put here by Testing/Benchmarks/accuracy.py of USEMA.
import sys
from pathlib import Path

if Path({str(Path(__file__).resolve())!r}).is_file():
    sys.path.append({str(Path(__file__).resolve().parent)!r})
    from accuracy_trainers import *  # noqa: F403
"""


def link() -> Path:
    """Makes these trainers known to the installed nnU-Net; see ``usema.training.plugin.link_trainers``."""
    return link_trainers("nnUNetTrainerUSEMAAccuracy", LINK)


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


# Half the channels and states, as nnUNetTrainerUSEMASmall takes half the plan's channels.
_HALF_MLLA = {"embed": 32, "heads": (1, 2, 4, 8)}
_HALF_ATTENTION_MAMBA = {"features": (32, 64, 128, 256), "width": 64, "states": 8}


class nnUNetTrainerMLLAUNetHalf(nnUNetTrainerMLLAUNet):
    """MLLA-UNet of half the width with its paper's recipe."""

    switches = _HALF_MLLA


class nnUNetTrainerMLLAUNetSmall(Neighbour, nnUNetTrainerUSEMASmall):
    """MLLA-UNet of half the width with the common recipe."""

    architecture = "MLLA-UNet"
    switches = _HALF_MLLA


class nnUNetTrainerAttentionMambaHalf(nnUNetTrainerAttentionMamba):
    """Attention-Mamba of half the width with its paper's recipe."""

    switches = _HALF_ATTENTION_MAMBA


class nnUNetTrainerAttentionMambaSmall(Neighbour, nnUNetTrainerUSEMASmall):
    """Attention-Mamba of half the width with the common recipe."""

    architecture = "Attention-Mamba"
    switches = _HALF_ATTENTION_MAMBA
    output_weights = nnUNetTrainerAttentionMamba.output_weights
