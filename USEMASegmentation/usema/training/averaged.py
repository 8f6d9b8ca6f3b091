"""Averaged weights: with few iterations in small batches, the weights of any one iteration are noisy.

Their exponential moving average (Polyak and Juditsky 1992) is what is validated and exported when a training ends; the
iterations go on from the weights themselves. While there were few iterations, the average is of the last tenth of them:
else it would still hold much of the first, untrained weights where the whole training is not many times as long as the
average is (after 1200 iterations at 0.999 they were 30 % of it, and the hippocampi of fold 0 had a Dice of 0.75).
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from safetensors.torch import load_file, save_file
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from .neighbours import CosineDecay
from .robust import Level, Shift, Surroundings, ThickSlices, nnUNetTrainerUSEMARobustBothSides
from .trainers import checkpoint_file, nnUNetTrainerUSEMA


class AveragedWeights(nnUNetTrainerUSEMA):
    """Any recipe with the average of its weights; ``average_decay`` is the share that an iteration leaves of it, less
    while there were few."""

    average_decay: ClassVar[float] = 0.995

    def initialize(self):
        super().initialize()
        self.make_average()

    def make_average(self) -> None:
        self.average = AveragedModel(self.bare_network(), multi_avg_fn=self._move_average)

    def _move_average(self, average: list[torch.Tensor], weights: list[torch.Tensor], iterations: torch.Tensor) -> None:
        decay = min(self.average_decay, (1 + int(iterations)) / (10 + int(iterations)))
        get_ema_multi_avg_fn(decay)(average, weights, iterations)

    def train_step(self, batch: dict) -> dict:
        result = super().train_step(batch)
        self.average.update_parameters(self.bare_network())
        return result

    def on_train_end(self):
        self.bare_network().load_state_dict(self.average.module.state_dict())
        super().on_train_end()

    def save_checkpoint(self, filename: str) -> None:
        super().save_checkpoint(filename)
        self.save_average(filename)

    def save_average(self, filename: str) -> None:
        """Beside the checkpoint, for a run that goes on."""
        if self.local_rank == 0 and not self.disable_checkpointing:
            # Copies: networks that hold a module twice, as nnU-Net's do, share its tensors, which no file may.
            average = {name: value.clone().contiguous() for name, value in self.average.state_dict().items()}
            with checkpoint_file(_beside(filename)) as path:
                save_file(average, path)

    def load_checkpoint(self, filename_or_checkpoint) -> None:
        super().load_checkpoint(filename_or_checkpoint)
        if isinstance(filename_or_checkpoint, str) and _beside(filename_or_checkpoint).is_file():
            self.average.load_state_dict(load_file(_beside(filename_or_checkpoint)))


def _beside(checkpoint: str) -> Path:
    """Where the average of the weights lies."""
    return Path(checkpoint).with_suffix(".average.safetensors")


class nnUNetTrainerUSEMARobustBothSidesFurther(AveragedWeights, nnUNetTrainerUSEMARobustBothSides):
    """Trains a model of nnUNetTrainerUSEMARobustBothSides on (``--start``), with a cosine schedule.

    What it has learned of other fields of view and coarse voxels is kept up with half as many of them: most patches are
    as the data set shows them.
    """

    average_decay: ClassVar[float] = 0.999

    def make_optimizer(self) -> torch.optim.Optimizer:
        self.initial_lr = 5e-4
        return super().make_optimizer()

    def make_schedule(self, optimizer: torch.optim.Optimizer) -> CosineDecay:
        return CosineDecay(optimizer, self.initial_lr, 0, self.num_epochs)

    @staticmethod
    def get_training_transforms(*arguments, **options):
        every = nnUNetTrainerUSEMARobustBothSides.get_training_transforms(*arguments, **options)
        for each in every.transforms:
            if isinstance(getattr(each, "transform", None), (Shift, Surroundings, ThickSlices, Level)):
                each.apply_probability /= 2
        return every
