"""The control of images2d.py: nnU-Net's plain U-Net with the recipe of the bundled 2D models."""

from __future__ import annotations

from pathlib import Path

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from usema.training.plugin import link_trainers
from usema.training.robust_2d import nnUNetTrainerUSEMARobust2D, nnUNetTrainerUSEMARobust2DUpright

LINK = f"""# Put here by Testing/Benchmarks/images2d.py of USEMA.
import sys
from pathlib import Path

if Path({str(Path(__file__).resolve())!r}).is_file():
    sys.path.append({str(Path(__file__).resolve().parent)!r})
    from images2d_trainers import *  # noqa: F403
"""


def link() -> Path:
    """Makes these trainers known to the installed nnU-Net; see ``usema.training.plugin.link_trainers``."""
    return link_trainers("nnUNetTrainerUSEMAImages2D", LINK)


def trainer_class(name: str) -> type:
    """A trainer of this experiment, by its name."""
    return globals()[name]


class _Plain:
    """nnU-Net's own plain U-Net with the plan's channels. It cannot be exported as a bundle."""

    build_network_architecture = staticmethod(nnUNetTrainer.build_network_architecture)

    def set_deep_supervision_enabled(self, enabled: bool):
        nnUNetTrainer.set_deep_supervision_enabled(self, enabled)

    def save_checkpoint(self, filename: str) -> None:
        nnUNetTrainer.save_checkpoint(self, filename)
        self.save_average(filename)


class nnUNetTrainerControlPlain2D(_Plain, nnUNetTrainerUSEMARobust2D):
    """For pictures that have no upright."""


class nnUNetTrainerControlPlain2DUpright(_Plain, nnUNetTrainerUSEMARobust2DUpright):
    """For pictures that stand upright."""
